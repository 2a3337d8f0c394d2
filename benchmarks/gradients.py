"""How many simulations a simulator's joint scores and joint ratios save.

    python -m benchmarks.gradients --out benchmarks/results/gradients.json

`npe`, `nle` and `nre` are trained on the same simulations without and with the joint score
(`score=5`), the joint ratio (`ratio=5`, to `--contrasts`) and both, and judged on fresh simulations
by the information on the parameters that they give (`diagnostics.mutual_information`, nats), for
growing numbers of simulations:

- line: ten points on a line with errors in both coordinates. The true positions are latent, so the
  joint score is noisy; parameters are the offset and the slope.
- spectrum: a line of unknown place and strength in 32 noisy channels (`benchmarks.compression`). No
  latents: the joint score is that of the likelihood.

The saving is how many times fewer simulations give the same information, by interpolation. Rows
that the file has of other problems, methods, numbers or terms are kept; each has its commit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxsbi
from benchmarks import compression, plan
from benchmarks.environment import environment, write
from jaxsbi.base import Array, Data, Key, Method, Theta
from jaxsbi.densities import MaskedAutoregressive
from jaxsbi.diagnostics import mutual_information

POINTS, SPREAD, ERROR_X, ERROR_Y = 10, 1.0, 0.2, 0.4
TESTED = 1_000


class Problem(NamedTuple):
    """A simulator whose every random number has a density.

    Attributes:
        prior: The prior.
        simulator: `simulator(key, theta) -> (x, latents)`.
        log_joint: `log_joint(theta, x, latents) -> scalar`.
    """

    prior: jaxsbi.Prior
    simulator: Callable[[Key, Theta], tuple[Data, Any]]
    log_joint: Callable[[Theta, Data, Any], Array]


def line() -> Problem:
    """Return the line with errors in both coordinates."""

    def simulator(key: Key, theta: Theta) -> tuple[Array, Array]:
        key_true, key_x, key_y = jax.random.split(key, 3)
        true = SPREAD * jax.random.normal(key_true, (POINTS,))
        x = true + ERROR_X * jax.random.normal(key_x, (POINTS,))
        y = theta["a"] + theta["b"] * true + ERROR_Y * jax.random.normal(key_y, (POINTS,))
        return jnp.concatenate([x, y]), true

    def log_joint(theta: Theta, x: Array, true: Array) -> Array:
        y = x[POINTS:]  # positions and their errors do not depend on the parameters
        return -0.5 * jnp.sum((y - theta["a"] - theta["b"] * true) ** 2) / ERROR_Y**2

    return Problem(
        jaxsbi.Prior(a=dist.Uniform(-1.0, 1.0), b=dist.Uniform(-2.0, 2.0)), simulator, log_joint
    )


def spectrum() -> Problem:
    """Return the spectrum, which has no latents."""

    def simulator(key: Key, theta: Theta) -> tuple[Array, Any]:
        return compression.simulator(key, theta), ()

    def log_likelihood(theta: Theta, x: Array, latents: Any) -> Array:
        del latents
        return -0.5 * jnp.sum((x - compression.signal(theta)) ** 2) / compression.NOISE**2

    return Problem(compression.make_prior(), simulator, log_likelihood)


PROBLEMS = {"line": line, "spectrum": spectrum}
ROADS: dict[str, Callable[..., Method]] = {
    "npe": lambda **terms: jaxsbi.npe(density=MaskedAutoregressive(layers=4), **terms),
    "nle": lambda **terms: jaxsbi.nle(density=MaskedAutoregressive(layers=4), **terms),
    "nre": lambda **terms: jaxsbi.nre(**terms),
    "nre64": lambda **terms: jaxsbi.nre(contrasts=64, **terms),
}
TERMS = {"plain": (0, 0), "score": (1, 0), "ratio": (0, 1), "both": (1, 1)}
IDENTITY = ("problem", "method", "simulations", "score", "ratio", "contrasts")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=plan.words, default=tuple(PROBLEMS))
    parser.add_argument("--methods", type=plan.words, default=tuple(ROADS))
    parser.add_argument("--budgets", type=plan.words, default=("128", "512", "2048"))
    parser.add_argument("--terms", type=plan.words, default=tuple(TERMS))
    parser.add_argument("--score", type=float, default=5.0)
    parser.add_argument("--ratio", type=float, default=5.0)
    parser.add_argument("--contrasts", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("problem", options.problems, list(PROBLEMS))
    plan.known("method", options.methods, list(ROADS))
    plan.known("term", options.terms, list(TERMS))
    budgets = sorted(map(int, options.budgets))
    for name in options.problems:
        for row in measure(name, budgets, options):
            print(json.dumps(row), flush=True)
            if options.out:
                keep(options.out, row, options)
    if options.out:
        print(json.dumps(json.loads(options.out.read_text())["savings"], indent=1))


def keep(path: Path, row: dict[str, Any], options: Any) -> None:
    """Write a row down beside those that are there, in place of one of the same name."""
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [other for other in known if any(other[key] != row[key] for key in IDENTITY)] + [row]
    sizes = {name: getattr(options, name) for name in ("epochs", "seed")}
    write(path, {"rows": rows, "savings": savings(rows), "sizes": sizes})


def measure(name: str, budgets: list[int], options: Any) -> Any:
    """Yield a row for each method, number of simulations, and choice of terms."""
    problem = PROBLEMS[name]()
    seed = jax.random.key(options.seed)

    def made(stream: int, n: int, contrasts: int) -> jaxsbi.Simulations:
        key = jax.random.fold_in(seed, stream)
        return jaxsbi.simulate_scored(key, *problem, n, contrasts=contrasts, progress=False)

    rows, fresh = made(0, max(budgets), options.contrasts), made(1, TESTED, 0)
    for method in options.methods:
        for n in budgets:
            for term in options.terms:
                with_score, with_ratio = TERMS[term]
                terms = {"score": with_score * options.score, "ratio": with_ratio * options.ratio}
                start = time.process_time()
                fitted = jaxsbi.fit(
                    jax.random.fold_in(seed, 2), ROADS[method](**terms), problem.prior, rows[:n],
                    max_epochs=options.epochs, batch_size=min(64, n // 4), progress=False,
                )  # fmt: skip
                cpu = time.process_time() - start
                found = mutual_information(jax.random.fold_in(seed, 3), fitted.posterior, fresh)
                yield {
                    "problem": name,
                    "method": method,
                    "simulations": n,
                    **terms,
                    "contrasts": with_ratio * options.contrasts,
                    "information": found.value,
                    "error": found.error,
                    "fit_cpu_s": cpu,
                    "commit": environment()["commit"],
                }


def savings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many simulations each training with a term was worth without it.

    Where they are worth more than the largest number tried, that is a lower bound; where less than
    the smallest, an upper one. A classifier is judged by the one among 8, which is as good as the
    one among 64 (and takes less time).
    """
    found = []
    for row in (row for row in rows if row["score"] or row["ratio"]):
        plain = [
            (other["information"], math.log(other["simulations"]))
            for other in rows
            if not other["score"]
            and not other["ratio"]
            and (other["problem"], other["method"]) == (row["problem"], row["method"][:3])
        ]
        if len(plain) < 2:
            continue
        information, log_n = np.array(sorted(plain, key=lambda pair: pair[1])).T
        information = np.maximum.accumulate(information)
        worth = math.exp(float(np.interp(row["information"], information, log_n)))
        found.append(
            {name: row[name] for name in IDENTITY}
            | {
                "worth": worth,
                "times": worth / row["simulations"],
                "at_least": bool(row["information"] > information[-1]),
                "at_most": bool(row["information"] < information[0]),
            }
        )
    return found


if __name__ == "__main__":
    main()
