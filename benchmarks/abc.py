"""Approximate Bayesian computation on the standard tasks, beside the published numbers.

    python -m benchmarks.abc --budgets 1000,10000,100000 --out abc.jsonl
    python -m benchmarks.abc --speed        # a million simulations of two_moons, 1,000 kept
    python -m benchmarks.abc --choose       # what the variants gain on the development problems

Each record is one task, observation and budget: the C2ST of 10,000 draws from a kernel-density
estimate in latent space of what a method kept (the published benchmark resampled in the same way).
`rejection` and `smc_adjusted` are what the toolkit recommends: kept draws with local-linear and
linear regression adjustment; the others are without, as was published. Both choices are made by
`--choose`: the log-density of the true parameters on simulated observations, of three problems that
are not tasks unless others are named.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from benchmarks import configs, plan
from benchmarks.clock import clocked
from benchmarks.environment import environment
from benchmarks.heldout import DEVELOPMENT
from benchmarks.metrics import score
from benchmarks.summary import published
from jaxsbi import abc
from jaxsbi.base import Array, Data, Key, Theta
from jaxsbi.tasks import Task

TRIALS = 30
DEFENSIVE = 0.01
"""Share of the prior in a density that is judged: one draw missed must not decide the mean."""

KEPT = {"rejection": 3.0, "smc": 5.0}
"""Kept draws, times the square root of the simulations. Chosen by `--choose`, as the rounds are."""
ROUNDS, SMALLEST_ROUND = 10, 200

Weighted = tuple[Theta, Array | None]
Method = Callable[[Key, Task, Data, int, int], Weighted]


def rejection(adjustment: str, key: Key, task: Task, x: Data, budget: int, number: int) -> Weighted:
    """Keep the nearest; adjust by no, linear or local-linear regression."""
    draws, info = abc.rejection(
        key, task.prior, task.simulator, x, num_simulations=budget, keep=number
    )
    if adjustment == "plain":
        return draws, None
    return abc.adjust(task.prior, draws, info, x, local=adjustment == "local")


def smc(adjusted: bool, key: Key, task: Task, x: Data, budget: int, number: int) -> Weighted:
    """Spend the budget in rounds."""
    draws, info = abc.smc(
        key, task.prior, task.simulator, x,
        num_simulations=budget, particles=number, rounds=min(ROUNDS, budget // SMALLEST_ROUND),
    )  # fmt: skip
    return abc.adjust(task.prior, draws, info, x) if adjusted else (draws, info.weights)


METHODS: dict[str, Method] = {
    "rejection": functools.partial(rejection, "local"),
    "rejection_linear": functools.partial(rejection, "linear"),
    "rejection_plain": functools.partial(rejection, "plain"),
    "smc": functools.partial(smc, False),
    "smc_adjusted": functools.partial(smc, True),
}
PUBLISHED = {"rejection_plain": "rejection", "smc_adjusted": "smc"}
"""Whose published number stands beside a variant."""
DEFAULT = ("rejection", "smc_adjusted")


def main() -> None:
    """Run, print a line per record, and append to a file where one is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=plan.words, help="all ten, or the development problems")
    parser.add_argument("--methods", type=plan.words, default=DEFAULT)
    parser.add_argument("--budgets", type=plan.numbers, default=(1_000, 10_000, 100_000))
    parser.add_argument("--observations", type=plan.numbers, default=(1, 2, 3))
    parser.add_argument("--scored", type=int, default=configs.DRAWS, help="draws compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--kept", type=float, help="times the square root of the simulations")
    parser.add_argument("--out", type=Path, help="a file that the lines are appended to")
    options = parser.parse_args()
    if options.kept and not options.choose:
        parser.error("--kept: expected --choose beside it, which it is for.")
    known = (*DEVELOPMENT, *configs.task_names()) if options.choose else configs.task_names()
    tasks = options.tasks or (tuple(DEVELOPMENT) if options.choose else known)
    plan.known("task", tasks, known)
    plan.known("method", options.methods, tuple(METHODS))

    def report(record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(record | environment()) + "\n")

    if options.speed:
        for seconds in speed():
            report(seconds)
    elif options.choose:
        for budget, name, method in itertools.product(options.budgets, tasks, options.methods):
            report(gain(name, method, budget, options.seed, kept(method, budget, options.kept)))
    else:
        measure(options, tasks, report)


def kept(method: str, budget: int, times: float | None = None) -> int:
    """Return how many draws a method keeps."""
    return round((times or KEPT[method.split("_")[0]]) * budget**0.5)


def measure(
    options: argparse.Namespace, tasks: tuple[str, ...], report: Callable[[dict[str, Any]], None]
) -> None:
    """Report the C2ST of every cell."""
    known = published()
    for name in tasks:
        task = jaxsbi.tasks.get(name)
        for budget in options.budgets:
            for method in options.methods:
                for observation in options.observations:
                    record = cell(task, method, budget, observation, options.seed, options.scored)
                    there = known.get((name, PUBLISHED.get(method, method), budget))
                    report(record | {"published": there})
        jax.clear_caches()


def cell(
    task: Task, method: str, budget: int, observation: int, seed: int, scored: int
) -> dict[str, Any]:
    """Return the record of one method, task, budget and observation."""
    reference = jaxsbi.tasks.reference(task.name, observation)
    x = jnp.asarray(reference.x).astype(task.x_dtype)
    key_run, key_draw = jax.random.split(jax.random.key(seed))

    def run() -> Array:
        draws, weights = METHODS[method](key_run, task, x, budget, kept(method, budget))
        estimate = abc.kde(task.prior, draws, weights=weights)
        sampled = estimate.sample(key_draw, configs.DRAWS)
        return jax.block_until_ready(jax.vmap(task.flatten)(sampled))

    draws, seconds = clocked(run)
    found = score(np.asarray(draws), reference.posterior_samples, "jax", scored)
    return {
        "task": task.name,
        "method": method,
        "budget": budget,
        "observation": observation,
        "seed": seed,
        "c2st": round(found["c2st"], 4),
        "draws": found["c2st_draws"],
        "seconds": seconds,
    }


def speed(n: int = 1_000_000, keep: int = 1_000, repeats: int = 5) -> list[dict[str, Any]]:
    """Return the seconds of a million simulations of two_moons: the first call compiles."""
    task = jaxsbi.tasks.get("two_moons")

    def run(seed: int) -> Any:
        return jax.block_until_ready(
            abc.rejection(
                jax.random.key(seed), task.prior, task.simulator, jnp.zeros(2),
                num_simulations=n, keep=keep,
            )
        )  # fmt: skip

    return [
        {"simulations": n, "keep": keep, "call": seed, **clocked(lambda s=seed: run(s))[1]}
        for seed in range(repeats)
    ]


def gain(name: str, method: str, budget: int, seed: int, number: int) -> dict[str, Any]:
    """Return nats gained over the prior at the true parameters of simulated observations."""
    task = DEVELOPMENT[name]() if name in DEVELOPMENT else jaxsbi.tasks.get(name)
    key_run, key_fresh = jax.random.split(jax.random.key(seed))
    fresh = jaxsbi.simulate(key_fresh, task.prior, task.simulator, TRIALS, progress=False)

    def one(row: tuple[Theta, Data]) -> Array:
        theta, x = row
        draws, weights = METHODS[method](key_run, task, x, budget, number)
        estimate = abc.kde(task.prior, draws, weights=weights)
        ratio = jnp.exp(estimate.log_prob(theta) - task.prior.log_prob(theta))
        return jnp.log((1.0 - DEFENSIVE) * ratio + DEFENSIVE)

    gains = np.asarray(jax.lax.map(one, (fresh.theta, fresh.x)))
    return {
        "problem": name,
        "method": method,
        "budget": budget,
        "kept": number,
        "gain": round(float(gains.mean()), 3),
        "standard_error": round(float(gains.std(ddof=1) / np.sqrt(TRIALS)), 3),
    }


if __name__ == "__main__":
    main()
