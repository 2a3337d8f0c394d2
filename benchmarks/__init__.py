"""The main job: both roads, compared on the standard tasks against reference posteriors.

`python -m benchmarks` runs the ten-minute default; `python -m benchmarks --help` says the rest.
"""
