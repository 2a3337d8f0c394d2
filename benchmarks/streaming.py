"""Training on a store beside training in memory: seconds per million rows.

    python -m benchmarks.streaming --n 1000000 --folder stream --out results.json

Both train the same method on the same draws of slcp, in turns in one process; what is compared are
the best times, without compiling. A store's validation set, 16,384 draws here for both, is scored
after every window, the other one's once. How much memory a store needs: `benchmarks.large`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax

import jaxsbi
from benchmarks.environment import write
from jaxsbi import tasks, windows

METHODS = {
    "npe": jaxsbi.npe,
    # The fastest to train: reading has the least time.
    "gaussian": lambda: jaxsbi.npe(density=jaxsbi.densities.Gaussian()),
}


def main() -> None:
    """Fill the store, and time both in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--chunk", type=int, default=65_536, help="draws written at once")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, required=True, help="where the store is, or is made")
    parser.add_argument("--out", type=Path, help="a file that the result is written to")
    options = parser.parse_args()
    task = tasks.get("slcp")
    store = jaxsbi.Store.create(options.folder, jax.random.key(0), task.prior, chunk=options.chunk)
    store.fill(task.simulator, options.n, progress=False)
    records = []
    for method in options.methods:
        runs: dict[str, list[Any]] = {"memory": [], "store": []}
        for _ in range(options.repeats):
            runs["memory"].append(seconds(method, store, store.simulations(), options.batch))
            runs["store"].append(seconds(method, store, store, options.batch))
        speed = round(min(runs["memory"]) / min(runs["store"]), 3)
        records.append({"method": method, "speed": speed, "seconds_per_million": runs})
        print(json.dumps(records[-1]), flush=True)
    if options.out:
        sizes = {name: getattr(options, name) for name in ("n", "chunk", "batch")}
        write(options.out, sizes | {"records": records})


def seconds(method: str, store: jaxsbi.Store, simulations: Any, batch: int) -> float:
    """Train for one pass; return the seconds per million rows, without compiling."""
    fitted = jaxsbi.fit(
        jax.random.key(1),
        METHODS[method](),
        store.prior,
        simulations,
        batch_size=batch,
        max_epochs=1,
        validation_fraction=windows.MAX_VALIDATION / len(store),
        progress=False,
    )
    rows = fitted.history.num_simulations[0]
    if simulations is store:  # what makes no whole window is left for another pass
        key, size = jax.random.key(0), 4 * (5 + 8 + 1)
        parts = windows.Windows(store, METHODS[method](), store.prior, key, rows, size)
        rows = parts.rows * parts.in_a_pass
    return round(1e6 * fitted.history.run_seconds / rows, 3)


if __name__ == "__main__":
    main()
