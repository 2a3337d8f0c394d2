"""Is the log-evidence right, and is its reported error?

    python -m benchmarks.evidence --out benchmarks/results/evidence.json

Parameters N(0, I) in one to ten dimensions, seen with noise of 0.3 by sequential Monte Carlo; and
the two of `benchmarks.power`, weighed with a proposal that is too wide and beside the posterior.
200 observations each, of which all have an evidence of their own; asked is 0.05 nat, and two
reported errors in 95 % of them (of 200, give or take 1.5 %).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import jaxsbi
from benchmarks import power
from benchmarks.environment import write
from jaxsbi import samplers

SIGMA, DIMENSIONS, DRAWS = 0.3, (1, 2, 5, 10), 2_000
PROPOSALS = {"width × 1.5": (1.5, 0.0), "width × 1.3, moved by 0.5 widths": (1.3, 0.5)}
AT_ONCE = 10
Result = tuple[Any, Any]


def by_smc(dim: int, key: Any) -> Result:
    """Return the error of an evidence, and the reported one."""
    key_z, key_x, key_draws = jax.random.split(key, 3)
    z = jax.random.normal(key_z, (dim,))
    x = z + SIGMA * jax.random.normal(key_x, (dim,))

    def log_density(z: Any) -> Any:
        return jnp.sum(norm.logpdf(z)) + jnp.sum(norm.logpdf(x, z, SIGMA))

    _, info = samplers.smc()(key_draws, log_density, dim, DRAWS)
    exact = jnp.sum(norm.logpdf(x, 0.0, math.sqrt(1.0 + SIGMA**2)))
    return info.log_evidence - exact, info.log_evidence_error


def by_importance(factor: float, shift: float, key: Any) -> Result:
    """Return the error of an evidence, and the reported one."""
    key_theta, key_x, key_draws = jax.random.split(key, 3)
    x = power.simulator(key_x, power.PRIOR.sample(key_theta))
    proposal = power.posterior(power.Defective(factor=factor, shift=shift))

    def log_likelihood(theta: Any, x: Any) -> Any:
        return jnp.sum(norm.logpdf(x, theta["theta"], power.NOISE))

    found = jaxsbi.importance(key_draws, proposal, log_likelihood, power.PRIOR, x, DRAWS)
    exact = jnp.sum(norm.logpdf(x, 0.0, math.sqrt(1.0 + power.NOISE**2)))
    return found.log_evidence - exact, found.log_evidence_error


def row(way: str, problem: str, one: Callable[[Any], Result], repeats: int) -> dict[str, Any]:
    """Return what so many repeats give."""
    keys = jax.random.split(jax.random.key(0), repeats)
    off, error = (np.array(a) for a in jax.lax.map(one, keys, batch_size=AT_ONCE))
    return {
        "way": way,
        "problem": problem,
        "repeats": repeats,
        "largest error": round(float(np.abs(off).max()), 4),
        "within 0.05 nat": round(float(np.mean(np.abs(off) < 0.05)), 3),
        "scatter": round(float(off.std()), 4),
        "mean reported error": round(float(error.mean()), 4),
        "bias": round(float(off.mean()), 4),
        "its error": round(float(off.std() / math.sqrt(repeats)), 4),
        "within two reported errors": round(float(np.mean(np.abs(off) < 2 * error)), 3),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ways = {
        ("importance", name): functools.partial(by_importance, *how)
        for name, how in PROPOSALS.items()
    } | {("SMC", f"{d} dimensions"): functools.partial(by_smc, d) for d in DIMENSIONS}
    rows = []
    for (way, problem), one in ways.items():
        rows.append(row(way, problem, one, options.repeats))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if options.out:
        write(options.out, {"draws": DRAWS, "rows": rows})


if __name__ == "__main__":
    main()
