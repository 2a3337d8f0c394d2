"""What `fit` costs: 20 epochs on 1,000 simulations from nothing, and five members at once.

    python -m benchmarks.fit_cost --out benchmarks/results/fit_cost.json

Each training on 1,000 simulations runs in a process of its own, with an empty compilation cache on
disk and then with the one that the first has filled. An ensemble of five is compared with five
trainings in turn of one compiled program, patience out of the way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxsbi
from benchmarks.environment import cache_hits, peak_memory_mib, use_compilation_cache, write

TASKS = ("two_moons", "gaussian_linear")
REPEATS = 3
MEMBERS, EPOCHS = 5, 20


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", metavar="TASK", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        use_compilation_cache(True)
        print(json.dumps(one_fit(options.child)))
        return
    found = {
        task: {"fit_20_epochs": in_processes(task), "ensemble": ensemble(task)} for task in TASKS
    }
    print(json.dumps(found, indent=1))
    if options.out:
        write(options.out, found)


def in_processes(task: str) -> dict[str, Any]:
    """Return the seconds of `fit` with an empty and with a filled cache on disk."""
    seconds: dict[str, list[Any]] = {"cold": [], "warm": []}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as cache:
            for name in seconds:
                command = [sys.executable, "-m", "benchmarks.fit_cost", "--child", task]
                done = subprocess.run(
                    command,
                    env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                seconds[name].append(json.loads(done.stdout.splitlines()[-1]))
    return seconds


def one_fit(name: str) -> dict[str, Any]:
    """Train npe for 20 epochs on 1,000 simulations; return what it took."""
    task, simulations = simulated(name)
    begin = time.perf_counter()
    fitted = jaxsbi.fit(
        jax.random.key(1), jaxsbi.npe(), task.prior, simulations, max_epochs=EPOCHS, progress=False
    )
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "compile": round(fitted.history.compile_seconds, 2),
        "run": round(fitted.history.run_seconds, 2),
        "programs_from_disk": cache_hits(),
        "peak_memory_mib": peak_memory_mib(),
    }


def ensemble(name: str) -> dict[str, Any]:
    """Return the seconds of five members at once, and of five in turn, compiled before."""
    task, simulations = simulated(name)

    def run(seed: int, members: int | None) -> float:
        fitted = jaxsbi.fit(
            jax.random.key(seed),
            jaxsbi.npe(),
            task.prior,
            simulations,
            max_epochs=EPOCHS,
            patience=1_000,
            ensemble=members,
            progress=False,
        )
        return fitted.history.run_seconds

    run(0, MEMBERS), run(0, None)
    together = [run(seed, MEMBERS) for seed in range(REPEATS)]
    in_turn = [sum(run(10 * seed + m, None) for m in range(MEMBERS)) for seed in range(REPEATS)]
    return {
        "members": MEMBERS,
        "together": np.round(together, 2).tolist(),
        "in_turn": np.round(in_turn, 2).tolist(),
        "ratio": round(float(np.median(together) / np.median(in_turn)), 2),
    }


def simulated(name: str) -> tuple[jaxsbi.tasks.Task, jaxsbi.Simulations]:
    """Return a task and 1,000 simulations of it."""
    task = jaxsbi.tasks.get(name)
    key = jax.random.key(0)
    return task, jaxsbi.simulate(key, task.prior, task.simulator, 1_000, progress=False)


if __name__ == "__main__":
    main()
