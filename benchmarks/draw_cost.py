"""What draws cost: 10,000 for one observation, and 1,000 for each of many in one program.

    python -m benchmarks.draw_cost --out benchmarks/results/draw_cost.json

`nle` and `npe` after 10,000 simulations. First calls compile (no cache on disk is used). R-hat is
of every parameter and observation of the program with many.
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

TASKS = ("two_moons", "slcp", "gaussian_linear")
METHODS = {"nle": 100, "npe": 1_000}  # how many observations at once
SIMULATIONS, ONE, MANY = 10_000, 10_000, 1_000


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=plan.words, default=TASKS)
    parser.add_argument("--methods", type=plan.words, default=tuple(METHODS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("task", options.tasks, configs.task_names())
    plan.known("method", options.methods, tuple(METHODS))
    jax.config.update("jax_enable_compilation_cache", False)
    rows = [measure(task, method) for task in options.tasks for method in options.methods]
    if options.out:
        write(options.out, {"rows": rows})


def measure(task_name: str, method: str) -> dict[str, Any]:
    """Return the seconds of one method on one task, and R-hat where there are chains."""
    task = jaxsbi.tasks.get(task_name)
    key_train, key_fresh, key_fit, key_one, key_many = jax.random.split(jax.random.key(0), 5)
    simulations = jaxsbi.simulate(
        key_train, task.prior, task.simulator, SIMULATIONS, progress=False
    )
    posterior = jaxsbi.fit(
        key_fit, configs.METHODS[method].method(task), task.prior, simulations, progress=False
    ).posterior
    count = METHODS[method]
    fresh = jaxsbi.simulate(key_fresh, task.prior, task.simulator, count, progress=False).x
    x = jnp.asarray(jaxsbi.tasks.reference(task_name, 1).x, task.x_dtype)
    many = jax.jit(jax.vmap(lambda key, x: posterior.sample_with_info(key, x, MANY)))
    keys = jax.random.split(key_many, count)
    _, one = twice(lambda: posterior.sample_with_info(key_one, x, ONE))
    (_, info), all_of_them = twice(lambda: many(keys, fresh))
    row = {
        "task": task_name,
        "method": method,
        "draws_for_one": ONE,
        "one": one,
        "observations": count,
        "draws_for_each": MANY,
        "many": all_of_them,
    }
    if hasattr(info, "r_hat"):
        r_hat = np.asarray(info.r_hat)
        row["r_hat"] = {
            "median": round(float(np.median(r_hat)), 4),
            "largest": round(float(r_hat.max()), 4),
            "share_above_1.05": round(float(np.mean(r_hat > 1.05)), 4),
        }
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
