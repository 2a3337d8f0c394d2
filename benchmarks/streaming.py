"""Training on a store beside training in memory: rows per second, and resident memory.

    python -m benchmarks.streaming --n 2000000 --folder stream --out results.json

Both train the same method on the same draws of slcp, in as many steps, each in a process of its
own, and take turns; the ratio is of their best times. Their validation is not the same work: a
store's is scored after every window, and holds 16,384 draws, as the other one's here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import jaxsbi
from benchmarks.environment import environment
from benchmarks.large import ROOT
from jaxsbi import tasks, windows

METHODS = {
    "npe": jaxsbi.npe,
    # The fastest to train: reading has the least time.
    "gaussian": lambda: jaxsbi.npe(density=jaxsbi.densities.Gaussian()),
}


def main() -> None:
    """Fill the store, and time both in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2_000_000)
    parser.add_argument("--chunk", type=int, default=65_536, help="draws written at once")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, required=True, help="where the store is, or is made")
    parser.add_argument("--out", type=Path, help="a file that the result is written to")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    store = opened(options)
    if options.child:
        print(json.dumps(timed(options, store, *options.child)))
        return
    store.fill(tasks.get("slcp").simulator, options.n, progress=False)
    records = []
    for method in options.methods:
        runs: dict[str, list[Any]] = {"memory": [], "store": []}
        for _ in range(options.repeats):
            for where, found in runs.items():
                found.append(_started(options, method, where))
        best = {
            where: min(r["seconds_per_million"] for r in found) for where, found in runs.items()
        }
        speed = round(best["memory"] / best["store"], 3)
        records.append({"method": method, "speed": speed, "best": best, "runs": runs})
        print(json.dumps(records[-1]), flush=True)
    if options.out:
        sizes = {name: getattr(options, name) for name in ("n", "chunk", "batch")}
        record = sizes | {"records": records} | environment()
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def opened(options: argparse.Namespace) -> jaxsbi.Store:
    """Return the store, which need not be full yet."""
    prior = tasks.get("slcp").prior
    return jaxsbi.Store.create(options.folder, jax.random.key(0), prior, chunk=options.chunk)


def timed(
    options: argparse.Namespace, store: jaxsbi.Store, method: str, where: str
) -> dict[str, Any]:
    """Train for one pass; return seconds, without compiling, and mebibytes."""
    n = len(store)
    held_out = windows.MAX_VALIDATION / n
    before = _peak_mib()
    fitted = jaxsbi.fit(
        jax.random.key(1),
        METHODS[method](),
        store.prior,
        store if where == "store" else store.simulations(),
        batch_size=options.batch,
        max_epochs=1,
        validation_fraction=held_out,
        progress=False,
    )
    history = fitted.history
    rows = history.num_simulations[0]
    if where == "store":
        key = jax.random.key(0)
        parts = windows.Windows(
            store, fitted.posterior.method, store.prior, key, rows, _row_bytes(store)
        )
        rows = parts.rows * parts.in_a_pass
    return {
        "seconds_per_million": round(1e6 * history.run_seconds / rows, 3),
        "rows": rows,
        "validations": history.epochs,
        "peak_mib": _peak_mib(),
        "before_mib": before,
    }


def _row_bytes(store: jaxsbi.Store) -> int:
    return sum(a.nbytes for a in jax.tree.leaves(store.simulations(slice(1))))


def _started(options: argparse.Namespace, method: str, where: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.streaming", "--child", method, where]
    for name in ("n", "chunk", "batch", "folder"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
