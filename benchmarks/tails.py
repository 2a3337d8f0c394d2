"""Numbers with heavy tails, beside exact posteriors: does `nle` do better by their normal scores?

    python -m benchmarks.tails --out benchmarks/results/tails.json

Three problems of two parameters and four numbers, all of a kurtosis far above a normal's 3, for
different reasons: "scale", normal noise of a width that differs by decades; "decades", growth with
noise of 30 %, as of a population that may explode; "tail", Student's t of 2.5 degrees of freedom.
Each is learned as `nle` does by itself, which takes scores where they tell the law given theta
better, and with the scores of all numbers, and without any. Compared with the exact
posteriors of fresh observations is the total variation, by sums over a grid; with the exact
likelihood what q(x | theta) falls short of it, in nats.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxsbi
from benchmarks import plan
from benchmarks.environment import use_compilation_cache, write
from jaxsbi.base import Array, Key, Posterior, Theta
from jaxsbi.methods import scores
from jaxsbi.methods.likelihood import at_theta

NUMBERS, FRESH, OBSERVATIONS, POINTS = 4, 10_000, 40, 301
Law = Callable[[Theta], dist.Distribution]


def scale(theta: Theta) -> dist.Distribution:
    """Normal noise of any width."""
    return dist.Normal(jnp.full(NUMBERS, theta["level"]), jnp.exp(theta["slope"]))


def decades(theta: Theta) -> dist.Distribution:
    """Growth, or decay, over decades."""
    return dist.LogNormal(theta["level"] + theta["slope"] * jnp.linspace(0.0, 2.0, NUMBERS), 0.3)


def tail(theta: Theta) -> dist.Distribution:
    """Noise with outliers."""
    return dist.StudentT(2.5, jnp.full(NUMBERS, theta["level"]), jnp.exp(0.3 * theta["slope"]))


LAWS: dict[str, Law] = {law.__name__: law for law in (scale, decades, tail)}
CHOICES: dict[str, Any] = {
    "itself": scores._gains,
    "all": lambda _, x, z: (jnp.full(x.shape[1], jnp.inf), 0.0),
    "none": lambda _, x, z: (jnp.full(x.shape[1], -jnp.inf), 0.0),
}
PRIOR = jaxsbi.Prior(level=dist.Normal(0.0, 1.0), slope=dist.Normal(0.0, 1.0))


def main() -> None:
    """Train, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", type=plan.numbers, default=(1_000, 10_000))
    parser.add_argument("--problems", type=plan.words, default=tuple(LAWS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("problem", options.problems, tuple(LAWS))
    use_compilation_cache(True)
    rows = [
        measure(problem, budget, choice)
        for problem in options.problems
        for budget in options.budgets
        for choice in CHOICES
    ]
    if options.out:
        write(options.out, {"rows": rows})


def measure(problem: str, budget: int, choice: str) -> dict[str, Any]:
    """Train on one problem, and return how far the likelihood and its posteriors are off."""
    law = LAWS[problem]

    def simulator(key: Key, theta: Theta) -> Array:
        return law(theta).sample(key)

    def exact(theta: Theta, x: Array) -> Array:
        return jnp.sum(law(theta).log_prob(x))

    key_train, key_fresh, key_fit = jax.random.split(jax.random.key(0), 3)
    simulations = jaxsbi.simulate(key_train, PRIOR, simulator, budget, progress=False)
    fresh = jaxsbi.simulate(key_fresh, PRIOR, simulator, FRESH, progress=False)
    jax.clear_caches()  # what was compiled chose by itself
    with mock.patch.object(scores, "_gains", CHOICES[choice]):
        fitted = jaxsbi.fit(key_fit, jaxsbi.nle(), PRIOR, simulations, progress=False)
    learned = _likelihood(fitted.posterior)
    short = jax.jit(jax.vmap(lambda theta, x: exact(theta, x) - learned(theta, x)))
    off = _total_variation(exact, learned, fresh.x[:OBSERVATIONS])
    statistics: Any = fitted.posterior.variables["statistics"]
    row = {
        "problem": problem,
        "budget": budget,
        "chosen": choice,
        "scores": np.asarray(statistics["continuous"]["heavy"]).tolist(),
        "nats_short": float(jnp.mean(short(fresh.theta, fresh.x))),
        "total_variation": float(jnp.mean(off)),
        "total_variation_error": float(jnp.std(off) / OBSERVATIONS**0.5),
        "total_variation_max": float(jnp.max(off)),
    }
    print(row, flush=True)
    return row


def _likelihood(posterior: Posterior) -> Callable[[Theta, Array], Array]:
    method: Any = posterior.method
    return lambda theta, x: at_theta(method, posterior.variables, posterior.prior, theta, x)


def _total_variation(exact: Any, learned: Any, x: Array) -> Array:
    """Return the total variation of each observation's two posteriors, by sums over a grid."""
    axis = jnp.linspace(-4.5, 4.5, POINTS)
    level, slope = jnp.meshgrid(axis, axis, indexing="ij")
    grid = {"level": level.ravel(), "slope": slope.ravel()}

    def shares(law: Any, grid: Theta, x: Array) -> Array:
        return jax.nn.softmax(jax.vmap(lambda theta: PRIOR.log_prob(theta) + law(theta, x))(grid))

    @jax.jit  # the grid is an argument: as a constant the compiler would evaluate it
    def all_of(grid: Theta, x: Array) -> Array:
        def one(x: Array) -> Array:
            return 0.5 * jnp.sum(jnp.abs(shares(exact, grid, x) - shares(learned, grid, x)))

        return jax.lax.map(one, x)

    found: Array = all_of(grid, x)
    return found


if __name__ == "__main__":
    main()
