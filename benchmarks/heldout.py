"""Held-out log-density of amortized posteriors: what defaults are chosen by.

    python -m benchmarks.heldout --methods npe --budgets 1000,10000 --tasks two_moons,ball_throw

Each method is trained on the budget's simulations; its log-density at the true parameters of 10,000
fresh ones, minus the prior's, is its gain: nats that it extracts from a data set, at most the
mutual information of parameters and data. No reference posterior is looked at. Besides the standard
tasks there are development problems outside them. One line of JSON per training.

Learned likelihoods and ratios are normalised by the evidence that their sampler reports, one run
per data set: `--fresh 400` makes that affordable, and the gains of all roads comparable.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxsbi
from benchmarks import configs, plan
from benchmarks.environment import environment
from jaxsbi.base import Array, Key, Simulations, Theta
from jaxsbi.methods.likelihood import is_learned_by
from jaxsbi.tasks import Task

FRESH = 10_000
BATCH = 1_000
DRAWS = 2_048  # of the sampler that gives an evidence: its error is about 0.1


def ball_throw() -> Task:
    """A throw's angle from its range, 10² / 9.81 sin(2 angle) with noise 0.3: two modes."""

    def simulator(key: Key, theta: Theta) -> Array:
        distance = 100.0 / 9.81 * jnp.sin(2.0 * theta["angle"])
        return distance[None] + 0.3 * jax.random.normal(key, (1,))

    prior = jaxsbi.Prior(angle=dist.Uniform(0.05, np.pi / 2 - 0.05))
    return Task("ball_throw", prior, simulator, None, (1,))


def line_fit() -> Task:
    """A line's intercept and slope from 20 points with noise 0.25: correlated, nearly Gaussian."""

    def simulator(key: Key, theta: Theta) -> Array:
        line = theta["intercept"] + theta["slope"] * jnp.linspace(0.0, 1.0, 20)
        return line + 0.25 * jax.random.normal(key, (20,))

    prior = jaxsbi.Prior(intercept=dist.Uniform(-1.0, 1.0), slope=dist.Uniform(-2.0, 2.0))
    return Task("line_fit", prior, simulator, None, (20,))


def burst() -> Task:
    """A burst's height and time from a light curve whose counts span four decades."""

    def simulator(key: Key, theta: Theta) -> Array:
        time = jnp.linspace(0.0, 10.0, 25) - theta["time"]
        rate = 2.0 + theta["height"] * jnp.exp(-0.5 * time**2)
        return jax.random.poisson(key, rate).astype(float)

    prior = jaxsbi.Prior(height=dist.LogNormal(4.0, 2.0), time=dist.Uniform(1.0, 9.0))
    return Task("burst", prior, simulator, None, (25,))


DEVELOPMENT: dict[str, Callable[[], Task]] = {
    made.__name__: made for made in (ball_throw, line_fit, burst)
}


def main() -> None:
    """Train, score and print; append to a file where one is given."""
    names = (*DEVELOPMENT, *configs.task_names())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=plan.words, default=names, help="all by default")
    parser.add_argument("--methods", type=plan.words, default=("npe",))
    parser.add_argument("--budgets", type=plan.numbers, default=(1_000, 10_000))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", type=int, default=FRESH, help="data sets to score on")
    parser.add_argument("--out", type=Path, help="a file that the lines are appended to")
    options = parser.parse_args()
    plan.known("task", options.tasks, names)
    plan.known("method", options.methods, tuple(configs.METHODS))
    for budget in options.budgets:
        for name in options.tasks:
            task = DEVELOPMENT[name]() if name in DEVELOPMENT else jaxsbi.tasks.get(name)
            for method in options.methods:
                record = score(task, method, budget, options.seed, options.fresh)
                print(json.dumps(record), flush=True)
                if options.out:
                    with options.out.open("a") as file:
                        file.write(json.dumps(record | environment()) + "\n")
            jax.clear_caches()


def score(task: Task, method: str, budget: int, seed: int, num_fresh: int) -> dict[str, Any]:
    """Return a method's gain on fresh simulations: mean, standard error, mean of the best 99 %."""
    key = jax.random.fold_in(jax.random.key(seed), np.uint32(zlib.crc32(task.name.encode())))
    key_train, key_fresh, key_fit = jax.random.split(key, 3)
    simulations = jaxsbi.simulate(key_train, task.prior, task.simulator, budget, progress=False)
    fresh = jaxsbi.simulate(key_fresh, task.prior, task.simulator, num_fresh, progress=False)
    entry = configs.METHODS[method]
    fitted = jaxsbi.fit(
        key_fit, entry.method(task), task.prior, simulations, progress=False, **entry.fit
    )
    gain = np.asarray(_gains(fitted.posterior, fresh))
    if is_learned_by(fitted.posterior.method):
        gain = gain - np.asarray(_log_evidence(fitted.posterior, jax.random.key(seed), fresh.x))
    gain = np.sort(gain[np.asarray(fresh.weight) > 0])
    return {
        "task": task.name,
        "method": method,
        "budget": budget,
        "seed": seed,
        "fresh": num_fresh,
        "gain": round(float(gain.mean()), 4),
        "standard_error": round(float(gain.std() / np.sqrt(gain.size)), 4),
        "best_99_percent": round(float(gain[gain.size // 100 :].mean()), 4),
        "best_epoch": int(np.max(fitted.history.best_epoch)),
        "epochs": fitted.history.epochs,
        "seconds": [round(fitted.history.compile_seconds, 1), round(fitted.history.run_seconds, 1)],
    }


@jax.jit
def _gains(posterior: jaxsbi.Posterior, fresh: Simulations) -> Array:
    """Return log q(theta | x) - log p(theta) of each simulation, a batch at a time.

    Of learned likelihoods and ratios q is not yet normalised.
    """

    def one(row: tuple[Theta, Any]) -> Array:
        theta, x = row
        return posterior.log_prob(theta, x) - posterior.prior.log_prob(theta)

    n = len(fresh)
    return jax.lax.map(one, (fresh.theta, fresh.x), batch_size=min(BATCH, n))


@jax.jit
def _log_evidence(posterior: jaxsbi.Posterior, key: Key, x: Any) -> Array:
    """Return what a learned likelihood or ratio integrates to over the prior, per data set."""

    def one(row: tuple[Key, Any]) -> Array:
        return posterior.sample_with_info(*row, DRAWS)[1].log_evidence

    n = jax.tree.leaves(x)[0].shape[0]
    return jax.lax.map(one, (jax.random.split(key, n), x))


if __name__ == "__main__":
    main()
