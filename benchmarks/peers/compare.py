"""`python -m benchmarks peers`: this library and sbi on the same simulations, in one run.

Every job runs in a process of its own, ours and the peer's in turn, so that compilation is
counted, nothing is warm, and a drift of the machine's speed meets both alike. A peer that fails
or hangs keeps its row, marked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxsbi
from jaxsbi.diagnostics.c2st import c2st

PEER_REQUIREMENTS = ("torch==2.13.0", "sbi==0.27.0")
MARK = '{"library"'
# (our method, the peer's method, the peer's density)
PAIRS = (("npe", "npe", "nsf"), ("nle", "nle", None), ("npe", "npe", "maf"), ("nre", "nre", None))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and write a JSON file; see `--help`."""
    arguments = _parse(argv)
    python = Path(arguments.python) if arguments.python else _peer_python(arguments.install)
    out = Path(arguments.out)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = _write_data(Path(folder), arguments.task, arguments.budget, arguments.observations)
        for mine, theirs, density in PAIRS:
            if arguments.methods and mine not in arguments.methods.split(","):
                continue
            rows += _pair(arguments, python, Path(folder), data, (mine, theirs, density))
            _write(out, arguments, rows)  # after each pair: nothing finished is lost
    print(table(rows))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("--task", default="two_moons", help="a task with a uniform prior")
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--observations", type=int, default=3)
    parser.add_argument("--methods", default="", help="ours, comma-separated; all by default")
    parser.add_argument("--python", default=os.environ.get("JAXSBI_PEER_PYTHON"))
    parser.add_argument("--install", action="store_true", help="make the peer's environment")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds per job")
    parser.add_argument("--out", default="benchmarks/results/peers.json")
    return parser.parse_args(argv)


def _peer_python(install: bool) -> Path:
    """Return the Python of the peer's environment in the user's cache, made on request."""
    cache = Path(os.environ.get("JAXSBI_CACHE", Path.home() / ".cache" / "jaxsbi"))
    folder = cache / "peer-sbi"
    python = folder / "bin" / "python"
    if not python.exists():
        if not install:
            raise SystemExit(
                f"peers: expected a Python with {' '.join(PEER_REQUIREMENTS)} at {python}. "
                "Make it with --install, or name another with --python."
            )
        venv.create(folder, with_pip=True)
        for requirement in PEER_REQUIREMENTS:
            subprocess.run([python, "-m", "pip", "install", "-q", requirement], check=True)
    return python


def _write_data(folder: Path, name: str, budget: int, observations: int) -> Path:
    task = jaxsbi.tasks.get(name)
    simulations = jaxsbi.simulate(jax.random.key(1), task.prior, task.simulator, budget)
    (site,) = task.prior.distributions
    base = getattr(site, "base_dist", site)
    references = [jaxsbi.tasks.reference(name, i + 1) for i in range(observations)]
    path = folder / "data.npz"
    np.savez(
        path,
        theta=np.asarray(jax.vmap(task.flatten)(simulations.theta)),
        x=np.asarray(simulations.x),
        low=np.broadcast_to(base.low, (task.dim,)),
        high=np.broadcast_to(base.high, (task.dim,)),
        observations=np.stack([r.x.astype(task.x_dtype) for r in references]),
        reference=np.stack([r.posterior_samples for r in references]),
    )
    return path


def _pair(
    arguments: argparse.Namespace,
    python: Path,
    folder: Path,
    data: Path,
    pair: tuple[str, str, str | None],
) -> list[dict[str, Any]]:
    mine, theirs, density = pair
    common = ["--data", str(data), "--draws", str(arguments.draws), "--out"]
    ours = [sys.executable, "-m", "benchmarks.peers.jaxsbi_worker", *common]
    ours += [str(folder / "ours.npz"), "--task", arguments.task, "--method", mine]
    worker = str(Path(__file__).with_name("sbi_worker.py"))
    peer = [str(python), worker, *common, str(folder / "peer.npz"), "--method", theirs]
    peer += ["--density", density] if density else []
    rows = []
    for command, label in ((ours, f"jaxsbi {mine}"), (peer, f"sbi {theirs} {density or ''}")):
        row = {"label": label.strip(), "pair": f"{mine}/{density or theirs}"}
        row |= _job(command, arguments.timeout)
        if "error" not in row:
            draws = np.load(command[command.index("--out") + 1])["draws"]
            row["c2st"] = _c2st(draws, np.load(data)["reference"])
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _job(command: list[str], timeout: float) -> dict[str, Any]:
    # A compilation cache would hide what a new user waits for.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    begin, load = time.perf_counter(), os.getloadavg()[0]
    common: dict[str, Any] = {"load_before": load}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {**common, "error": f"stopped after {timeout:.0f} s"}
    common["process_seconds"] = time.perf_counter() - begin
    if done.returncode:
        return {**common, "error": done.stderr.strip().splitlines()[-1:] or done.returncode}
    # A peer may print its own words before the result, on the same line.
    return {**common, **json.loads(done.stdout[done.stdout.rindex(MARK) :])}


def _c2st(draws: np.ndarray, reference: np.ndarray) -> list[float]:
    keys = jax.random.split(jax.random.key(0), len(draws))
    return [float(c2st(k, d, r)) for k, d, r in zip(keys, draws, reference, strict=True)]


def _write(out: Path, arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    from benchmarks.environment import environment

    out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "command": "python -m benchmarks peers",
        "task": arguments.task,
        "budget": arguments.budget,
        "draws": arguments.draws,
        "environment": environment(),
        "rows": rows,
        "ratios": ratios(rows),
    }
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(out)


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return ours/theirs for training, the first and the later sampling calls, per pair."""
    result = {}
    for ours, theirs in zip(rows[::2], rows[1::2], strict=False):
        if "error" in ours or "error" in theirs:
            continue
        warm = [
            float(np.mean(r["sample_seconds"][1:] or r["sample_seconds"])) for r in (ours, theirs)
        ]
        result[ours["pair"]] = {
            "train": ours["train_seconds"] / theirs["train_seconds"],
            "sample_first": ours["sample_seconds"][0] / theirs["sample_seconds"][0],
            "sample_warm": warm[0] / warm[1],
        }
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows and the ratios as text."""
    lines = [f"{'':24}{'train s':>9}{'epochs':>8}{'first s':>9}{'warm s':>8}   c2st"]
    for row in rows:
        if "error" in row:
            lines.append(f"{row['label']:24}failed: {row['error']}")
            continue
        first, later = row["sample_seconds"][0], row["sample_seconds"][1:]
        warm = float(np.mean(later)) if later else float("nan")
        scores = " ".join(f"{value:.3f}" for value in row["c2st"])
        lines.append(
            f"{row['label']:24}{row['train_seconds']:9.1f}{row['epochs'] or 0:8d}"
            f"{first:9.2f}{warm:8.2f}   {scores}"
        )
    for pair, ratio in ratios(rows).items():
        parts = ", ".join(f"{name} 1/{1 / value:.1f}" for name, value in ratio.items())
        lines.append(f"ours / theirs, {pair}: {parts}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
