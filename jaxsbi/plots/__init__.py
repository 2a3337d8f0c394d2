"""Pictures: every function returns a matplotlib Figure."""

from jaxsbi.plots.calibration import calibration, strata
from jaxsbi.plots.corner import corner
from jaxsbi.plots.coverage import coverage
from jaxsbi.plots.crossover import crossover
from jaxsbi.plots.emulator import emulator_errors
from jaxsbi.plots.history import loss, rounds
from jaxsbi.plots.local import local_c2st
from jaxsbi.plots.predictive import predictive
from jaxsbi.plots.ranks import rank_histograms
from jaxsbi.plots.trajectories import trajectories

__all__ = [
    "calibration",
    "corner",
    "coverage",
    "crossover",
    "emulator_errors",
    "local_c2st",
    "loss",
    "predictive",
    "rank_histograms",
    "rounds",
    "strata",
    "trajectories",
]
