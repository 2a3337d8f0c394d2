"""`python -m benchmarks.samplers`: every sampler on exact likelihoods, against reference draws.

For each sampler with its defaults and each task: seconds to compile, seconds per 10,000 draws
(wall-clock and processor), R-hat, and the C2ST between 2,500 of its draws and 2,500 draws of the
reference posterior, 0.5 where they cannot be told apart. For two moons also the share of draws in
the upper crescent, beside the reference's and its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import configs
from benchmarks.clock import clocked
from benchmarks.environment import environment
from benchmarks.metrics import score
from benchmarks.validate_tasks import latent_log_density
from jaxsbi import samplers, tasks
from jaxsbi.base import CPU_OPTIONS

TASKS = ("two_moons", "slcp", "gaussian_mixture", "gaussian_linear")
NAMES = ("nuts", "hmc", "smc", "ensemble", "slice", "sir", "rejection")
COLUMNS = {
    "task": (17, ""),
    "sampler": (10, ""),
    "compile": (8, ".1f"),
    "seconds": (8, ".2f"),
    "cpu": (8, ".2f"),
    "r_hat": (8, ".3f"),
    "ess": (8, ".0f"),
    "c2st": (8, ".3f"),
    "share": (8, ".3f"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table and write a JSON file; see `--help`."""
    arguments = _parse(argv)
    # A program found on disk would hide what a new user waits for.
    jax.config.update("jax_enable_compilation_cache", False)
    rows = []
    print(_line({name: name for name in COLUMNS}))
    for task in arguments.tasks:
        for name in arguments.samplers:
            rows.append(measure(task, arguments.observation, name, arguments.draws))
            print(_line(rows[-1]), flush=True)
    shares = _reference_share(arguments.observation)
    document = {
        "command": "python -m benchmarks.samplers",
        "observation": arguments.observation,
        "rows": rows,
        "reference_share": shares,
        "environment": environment(),
        "load_after": os.getloadavg()[0],
    }
    print(f"two_moons, the reference's share: {shares['share']:.3f} ± {shares['error']:.3f}")
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # JSON has no infinity and no NaN: a sampler that failed has no R-hat, a task no share of modes.
    for row in rows:
        row.update(
            {k: None for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
        )
    out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--samplers", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--observation", type=int, default=1)
    parser.add_argument("--draws", type=int, default=configs.DRAWS)
    parser.add_argument("--out", default="benchmarks/results/samplers.json")
    return parser.parse_args(argv)


def measure(task_name: str, observation: int, name: str, n: int) -> dict[str, Any]:
    """Return one row: what one sampler took for one task, and how good its draws are."""
    task, reference = tasks.get(task_name), tasks.reference(task_name, observation)
    log_density = latent_log_density(task, jnp.asarray(reference.x, task.x_dtype))
    sampler = getattr(samplers, name)()

    def draw(key: jax.Array) -> Any:
        z, info = sampler(key, log_density, task.dim, n)
        return jax.vmap(lambda z: task.flatten(task.prior.from_latent(z)))(z), info

    on_cpu = jax.default_backend() == "cpu"
    lowered = jax.jit(draw, compiler_options=CPU_OPTIONS if on_cpu else {})
    program, compiled = clocked(lambda: lowered.lower(jax.random.key(0)).compile())
    jax.block_until_ready(program(jax.random.key(0)))
    (draws, info), took = clocked(lambda: jax.block_until_ready(program(jax.random.key(1))))
    draws = np.asarray(draws)
    row: dict[str, Any] = {
        "task": task_name,
        "sampler": name,
        "compile": compiled["wall"],
        "compile_cpu": compiled["cpu"],
        "seconds": took["wall"] * 10_000 / n,
        "cpu": took["cpu"] * 10_000 / n,
        "r_hat": float(jnp.max(info.r_hat)),
        "ess": float(jnp.minimum(jnp.min(info.ess_bulk), jnp.min(info.ess_tail))),
        "acceptance": float(info.acceptance),
        "divergences": int(info.divergences),
        "c2st": score(draws, reference.posterior_samples, "jax", 2_500)["c2st"],
        "share": _share(draws) if task_name == "two_moons" else math.nan,
        "warning": _warning(info),
    }
    for extra in ("log_evidence", "log_evidence_error"):
        if hasattr(info, extra):
            row[extra] = float(getattr(info, extra))
    return row


def _share(theta: np.ndarray) -> float:
    """Return the share of draws in one of the two moons."""
    return float(np.mean(theta[:, 0] + theta[:, 1] > 0.0))


def _reference_share(observation: int) -> dict[str, float]:
    draws = tasks.reference("two_moons", observation).posterior_samples
    share = _share(draws)
    return {"share": share, "error": math.sqrt(share * (1.0 - share) / len(draws))}


def _warning(info: Any) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        info.warn()
    return "; ".join(str(one.message) for one in caught)


def _line(row: dict[str, Any]) -> str:
    cells = []
    for name, (width, form) in COLUMNS.items():
        value = row[name]
        cells.append(value.ljust(width) if isinstance(value, str) else f"{value:{width}{form}}")
    return " ".join(cells)


if __name__ == "__main__":
    raise SystemExit(main())
