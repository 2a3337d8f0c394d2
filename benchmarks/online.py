"""How many simulations per second `fit_online` makes and learns from, in one compiled step.

    python -m benchmarks.online --tasks slcp,gaussian_linear,sir --out results.json

Beside it: the same number of simulations by `simulate` alone, and training on stored ones by `fit`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax

import jaxsbi
from benchmarks import plan
from benchmarks.environment import write
from jaxsbi import tasks


def main() -> None:
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=plan.words, default=("slcp", "gaussian_linear"))
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path, help="a file that the result is written to")
    options = parser.parse_args()
    plan.known("task", options.tasks, tasks.NAMES)
    records = []
    for name in options.tasks:
        records.append(timed(tasks.get(name), options.steps, options.batch))
        print(json.dumps(records[-1]), flush=True)
    if options.out:
        write(options.out, {"steps": options.steps, "batch": options.batch, "records": records})


def timed(task: tasks.Task, steps: int, batch: int) -> dict[str, Any]:
    """Return simulations per second, without compiling, of each way."""
    key, n = jax.random.key(0), steps * batch
    online = jaxsbi.fit_online(
        key, jaxsbi.npe(), task.prior, task.simulator, num_steps=steps, batch_size=batch,
        progress=False,
    ).history  # fmt: skip
    jaxsbi.simulate(key, task.prior, task.simulator, n, progress=False)
    begin = time.perf_counter()
    simulations = jaxsbi.simulate(key, task.prior, task.simulator, n, progress=False)
    alone = time.perf_counter() - begin
    stored = jaxsbi.fit(
        key, jaxsbi.npe(), task.prior, simulations, max_epochs=1, batch_size=batch, progress=False
    ).history
    return {
        "task": task.name,
        "fit_online": round(online.num_simulations[0] / online.run_seconds),
        "simulate": round(n / alone),
        "fit": round(stored.num_simulations[0] / stored.run_seconds),
    }


if __name__ == "__main__":
    main()
