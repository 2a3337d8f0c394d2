"""More simulations than fit in memory, on two cores, killed three times on the way.

    python -m benchmarks.large --n 10000000 --kills 3 --folder large --out results.json

One program simulates slcp into a store, trains npe on it with a checkpoint, and ranks 1,000
fresh parameters among 199 posterior draws each (simulation-based calibration). It is started,
killed (SIGKILL) in the middle of simulating, of training and of ranking, and started again each
time; it ends with a checksum of all that it has learned. `--kills 0` lets it run in peace, for the
same checksum.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxsbi
from benchmarks.environment import environment
from jaxsbi import checkpoint, tasks
from jaxsbi.fingerprint import digest

METHODS = {
    # As fast as the disk, and not able to learn slcp: its ranks are as wrong as they should be.
    "small": lambda: jaxsbi.npe(density=jaxsbi.densities.MaskedAutoregressive(layers=3, hidden=32)),
    "default": jaxsbi.npe,
}
ROOT = Path(__file__).resolve().parent.parent
STAGES, AFTER = ("simulate", "fit", "rank"), ("fit", "rank", "end")


def main() -> None:
    """Run the program, or drive it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--method", choices=METHODS, default="default")
    parser.add_argument("--chunk", type=int, default=65_536, help="draws written at once")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between checkpoints")
    parser.add_argument("--kills", type=int, default=3, choices=range(len(STAGES) + 1))
    parser.add_argument("--folder", type=Path, required=True, help="made, and deleted at the end")
    parser.add_argument("--out", type=Path, help="a file that the result is written to")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(program(options)))
        return
    record = driven(options)
    print(json.dumps(record, indent=1))
    if options.out:
        found = json.loads(options.out.read_text()) if options.out.exists() else []
        options.out.write_text(json.dumps([*found, record], indent=1) + "\n")


def program(options: argparse.Namespace) -> dict[str, Any]:
    """Simulate, train and rank; whatever was done before is not done again."""
    checkpoint.EVERY_SECONDS = options.every
    task = tasks.get("slcp")
    key_store, key_fit, key_ranks = jax.random.split(jax.random.key(0), 3)
    seconds, begin = {}, time.perf_counter()

    def stage(name: str) -> None:
        nonlocal begin
        now, begin = time.perf_counter() - begin, time.perf_counter()
        seconds[name] = round(now, 1)
        (options.folder / "stage").write_text(name)

    stage("start")
    stage("simulate")
    folder = options.folder / "store"
    store = jaxsbi.Store.create(folder, key_store, task.prior, chunk=options.chunk)
    store.fill(task.simulator, options.n, progress=False)
    stage("fit")
    fitted = jaxsbi.fit(
        key_fit,
        METHODS[options.method](),
        task.prior,
        store,
        batch_size=min(options.batch, options.chunk // 2),
        max_epochs=options.epochs,
        checkpoint=options.folder / "run",
        progress=False,
    )
    stage("rank")
    ranks = jaxsbi.diagnostics.sbc(
        key_ranks,
        fitted.posterior,
        task.prior,
        task.simulator,
        num_datasets=min(1_000, options.n // 100),
        num_draws=199,
    )
    stage("end")
    history = fitted.history
    return {
        "draws": len(store),
        "invalid": history.num_invalid,
        "trained_on": history.num_simulations[0],
        "windows": history.epochs,
        "validation_loss": [round(float(v), 4) for v in history.validation_loss],
        "fit_seconds": round(history.run_seconds, 1),
        "last_run_seconds": {
            name: seconds[after] for name, after in zip(STAGES, AFTER, strict=True)
        },
        "p_values": np.round(np.asarray(ranks.p_value["theta"]), 4).tolist(),
        "sha256": digest((fitted.posterior.variables, ranks.ranks)),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def driven(options: argparse.Namespace) -> dict[str, Any]:
    """Start the program, kill it in as many stages as wanted, and let it end."""
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    begin, peak, kills = time.perf_counter(), 0, []
    for name in (*STAGES[: options.kills], None):
        child = _started(options)
        when = _moment(options, name)
        while child.poll() is None and not (name and when()):
            peak = max(peak, _peak_mib(child.pid))
            time.sleep(0.05)
        if name is None:
            break
        if child.poll() is not None:
            sys.exit(f"the program ended before it could be killed in {name!r}")
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kills.append({"stage": name, "after": round(time.perf_counter() - begin, 1)})
    text, _ = child.communicate()
    if child.returncode:
        sys.exit(text)
    record = json.loads(text.splitlines()[-1])
    disk = sum(p.stat().st_size for p in options.folder.rglob("*") if p.is_file())
    shutil.rmtree(options.folder)
    return {
        "n": options.n,
        "method": options.method,
        "kills": kills,
        "seconds": round(time.perf_counter() - begin, 1),
        "disk_mib": disk >> 20,
        **record,
        "peak_mib": max(peak, record["peak_mib"]),
        **environment(),
    }


def _started(options: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.large", "--child"]
    for name in ("n", "method", "chunk", "batch", "epochs", "every", "folder"):
        command += [f"--{name}", str(getattr(options, name))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _moment(options: argparse.Namespace, name: str | None) -> Any:
    """Return a function that says whether a stage is in full course."""
    chunks, saved = options.folder / "store/chunks", options.folder / "run/training.safetensors"
    stage = options.folder / "stage"
    half = -(-options.n // options.chunk) // 2

    def now() -> bool:
        if not stage.exists() or stage.read_text() != name:
            return False
        if name == "simulate":
            return len(list(chunks.glob("*.done"))) >= half
        return name == "rank" or saved.exists()

    return now


def _peak_mib(pid: int) -> int:
    """Return the most memory that a process had so far; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0].split()[1]) // 1024 if found else 0


if __name__ == "__main__":
    main()
