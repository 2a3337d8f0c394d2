"""What it costs to check a posterior: calibration studies and the default report.

    python -m benchmarks.check_cost --out benchmarks/results/check_cost.json

Simulation-based calibration of `npe` (1,000 data sets × 1,000 draws) and of `nle` (200 × 1,000),
and `jaxsbi.check` of `npe`, after 10,000 simulations. First calls compile (no cache on disk).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from benchmarks import configs, plan
from benchmarks.clock import twice
from benchmarks.environment import write

TASKS = ("two_moons", "slcp")
STUDIES = {"npe": 1_000, "nle": 200}  # data sets
SIMULATIONS, DRAWS = 10_000, 1_000


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=plan.words, default=TASKS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("task", options.tasks, configs.task_names())
    jax.config.update("jax_enable_compilation_cache", False)
    rows = [row for task in options.tasks for row in measure(task)]
    if options.out:
        write(options.out, {"rows": rows})


def measure(task_name: str) -> list[dict[str, Any]]:
    """Return the seconds of each study on one task."""
    task = jaxsbi.tasks.get(task_name)
    key_train, key_fit, key_study = jax.random.split(jax.random.key(0), 3)
    simulations = jaxsbi.simulate(
        key_train, task.prior, task.simulator, SIMULATIONS, progress=False
    )
    x = jnp.asarray(jaxsbi.tasks.reference(task_name, 1).x, task.x_dtype)
    rows = []
    for method, count in STUDIES.items():
        posterior = jaxsbi.fit(
            key_fit, configs.METHODS[method].method(task), task.prior, simulations, progress=False
        ).posterior
        problem = (key_study, posterior, task.prior, task.simulator)
        found, seconds = twice(
            lambda problem=problem, count=count: jaxsbi.diagnostics.sbc(
                *problem, num_datasets=count, num_draws=DRAWS
            )
        )
        smallest = min(float(np.min(p)) for p in found.p_value.values())
        row = {"task": task_name, "method": method, "study": "sbc", "data_sets": count}
        rows.append(row | {"draws": DRAWS, "seconds": seconds, "p_value": round(smallest, 4)})
        if method == "npe":
            report, seconds = twice(lambda problem=problem: jaxsbi.check(*problem, x))
            row = {"task": task_name, "method": method, "study": "check"}
            rows.append(row | {"seconds": seconds, "passed": bool(report.calibration.passed)})
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
