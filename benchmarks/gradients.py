"""How many simulations a simulator's gradients save.

    python -m benchmarks.gradients --out benchmarks/results/gradients.json

`npe` and `nle` are trained on the same simulations with and without the joint-score term
(`score=5`), and judged on fresh simulations by the information on the parameters that they give
(`diagnostics.mutual_information`, nats), for growing numbers of simulations:

- line: ten points on a line with errors in both coordinates. The true positions are latent, so the
  joint score is noisy; parameters are the offset and the slope.
- spectrum: a line of unknown place and strength in 32 noisy channels (`benchmarks.compression`). No
  latents: the joint score is that of the likelihood.

The saving is how many times fewer simulations give the same information, by interpolation.
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
from benchmarks.environment import write
from jaxsbi.base import Array, Data, Key, Theta
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
ROADS = {
    "npe": lambda score: jaxsbi.npe(density=MaskedAutoregressive(layers=4), score=score),
    "nle": lambda score: jaxsbi.nle(density=MaskedAutoregressive(layers=4), score=score),
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=plan.words, default=tuple(PROBLEMS))
    parser.add_argument("--methods", type=plan.words, default=tuple(ROADS))
    parser.add_argument("--budgets", type=plan.words, default=("128", "512", "2048"))
    parser.add_argument("--score", type=float, default=5.0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("problem", options.problems, list(PROBLEMS))
    plan.known("method", options.methods, list(ROADS))
    budgets, rows = sorted(map(int, options.budgets)), []
    for name in options.problems:
        for row in measure(name, budgets, options):
            rows.append(row)
            print(json.dumps(row), flush=True)
    found = savings(rows)
    print(json.dumps(found))
    if options.out:
        sizes = {name: getattr(options, name) for name in ("score", "epochs", "seed")}
        write(options.out, {"rows": rows, "savings": found, "sizes": sizes})


def measure(name: str, budgets: list[int], options: Any) -> Any:
    """Yield a row for each method, number of simulations, and weight of the scores."""
    problem = PROBLEMS[name]()
    seed = jax.random.key(options.seed)

    def made(stream: int, n: int) -> jaxsbi.Simulations:
        key = jax.random.fold_in(seed, stream)
        return jaxsbi.simulate_scored(key, *problem, n, progress=False)

    rows, fresh = made(0, max(budgets)), made(1, TESTED)
    for method in options.methods:
        for n in budgets:
            for score in (0.0, options.score):
                start = time.process_time()
                fitted = jaxsbi.fit(
                    jax.random.fold_in(seed, 2), ROADS[method](score), problem.prior, rows[:n],
                    max_epochs=options.epochs, batch_size=min(64, n // 4), progress=False,
                )  # fmt: skip
                cpu = time.process_time() - start
                found = mutual_information(jax.random.fold_in(seed, 3), fitted.posterior, fresh)
                yield {
                    "problem": name,
                    "method": method,
                    "simulations": n,
                    "score": score,
                    "information": found.value,
                    "error": found.error,
                    "fit_cpu_s": cpu,
                }


def savings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times the simulations each training with scores was worth without them.

    Where they are worth more than the largest number tried, that is a lower bound.
    """
    found = []
    for row in (row for row in rows if row["score"]):
        plain = [
            (other["information"], math.log(other["simulations"]))
            for other in rows
            if not other["score"]
            and (other["problem"], other["method"]) == (row["problem"], row["method"])
        ]
        information, log_n = np.array(sorted(plain, key=lambda pair: pair[1])).T
        information = np.maximum.accumulate(information)
        worth = math.exp(float(np.interp(row["information"], information, log_n)))
        found.append(
            {name: row[name] for name in ("problem", "method", "simulations")}
            | {
                "worth": worth,
                "times": worth / row["simulations"],
                "at_least": bool(row["information"] > information[-1]),
            }
        )
    return found


if __name__ == "__main__":
    main()
