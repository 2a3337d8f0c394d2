"""Show that our tasks are the benchmark's: its reference posteriors against our likelihoods.

    python -m benchmarks.validate_tasks --out task_validation.json

For every task with a tractable likelihood, 10,000 draws of the posterior of *our* prior and
likelihood are made by a method that needs no training, and compared with *its* reference draws
by the classifier two-sample test. A task is the same if the test cannot tell (C2ST ≤ 0.52).

| method | for | how |
|---|---|---|
| quadrature | two dimensions | a grid over the latent space, narrowed three times, with jitter |
| nuts | unimodal, cheap gradients | NumPyro's NUTS on the latent space, 20 chains |
| importance | Lotka-Volterra | Student-t proposals adapted four times, then resampling |
| smc | SLCP | 10,000 tempered particles, folded along the two exact symmetries |
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi import tasks
from jaxsbi.base import Array, Key
from jaxsbi.diagnostics.c2st import c2st_standard, c2st_twin

METHODS = {
    "two_moons": "quadrature",
    "slcp": "smc",
    "slcp_distractors": "smc",
    "gaussian_linear": "nuts",
    "gaussian_linear_uniform": "nuts",
    "gaussian_mixture": "quadrature",
    "bernoulli_glm": "nuts",
    "bernoulli_glm_raw": "nuts",
    "sir": "quadrature",
    "lotka_volterra": "importance",
}
_METRICS = {"twin": c2st_twin, "standard": c2st_standard}
NUM_DRAWS = 10_000
_SYMMETRIC = (2, 3)  # SLCP's likelihood depends on the squares of these parameters
_DOF = 6.0  # of the importance proposal: tails that outlive a Gaussian's
_PACKAGES = ("jax", "numpyro", "diffrax", "numpy", "scikit-learn")

LogDensity = Callable[[Array], Array]
Draws = tuple[np.ndarray, dict[str, float]]


def latent_log_density(task: tasks.Task, x: Array) -> LogDensity:
    """Return the log-posterior over the latent vector, not normalised; NaN counts as zero mass."""

    def log_density(z: Array) -> Array:
        value = task.log_likelihood(task.prior.from_latent(z), x)
        value = value + task.prior.latent_log_prob(z)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    return log_density


def sample(name: str, observation: int, seed: int, *, n: int = NUM_DRAWS) -> Draws:
    """Draw from the posterior of our likelihood given the benchmark's observation.

    Returns:
        Draws of shape `(n, d)` in the reference's order, and what the sampler reports.
    """
    task = tasks.get(name)
    reference = tasks.reference(name, observation)
    key = jax.random.fold_in(jax.random.key(seed), observation)
    log_density = latent_log_density(task, jnp.asarray(reference.x, task.x_dtype))
    start = task.prior.to_latent(task.unflatten(reference.theta_true))
    method = METHODS[name]
    if method == "quadrature":
        z, info = quadrature(key, log_density, n, cells=192 if name == "sir" else 1024)
    elif method == "nuts":
        z, info = nuts(key, log_density, n, start)
    elif method == "importance":
        z, info = importance(key, log_density, n, start)
    else:
        z, info = smc(key, log_density, n, task.dim)
    theta = jax.jit(jax.vmap(lambda z: task.flatten(task.prior.from_latent(z))))(z)
    return np.asarray(theta), info


def quadrature(key: Key, log_density: LogDensity, n: int, *, cells: int) -> tuple[Array, dict]:
    """Draw from a two-dimensional density on a grid that is narrowed to where the mass is."""

    @jax.jit
    def evaluate(low: Array, step: Array) -> Array:
        # A row at a time bounds the memory.
        centres = low + step * (jnp.arange(cells)[:, None] + 0.5)

        def row(first: Array) -> Array:
            points = jnp.stack([jnp.broadcast_to(first, (cells,)), centres[:, 1]], axis=1)
            return jax.vmap(log_density)(points)

        return jax.lax.map(row, centres[:, 0])

    low, high = jnp.full(2, -6.0), jnp.full(2, 6.0)
    for _ in range(4):
        step = (high - low) / cells
        values = evaluate(low, step)
        inside = jnp.argwhere(values > values.max() - 20.0)
        grid_low, grid_step = low, step
        low, high = low + step * (inside.min(0) - 1), low + step * (inside.max(0) + 2)
    key_cell, key_jitter = jax.random.split(key)
    # NumPy's float64 cumulative sum: a million probabilities have no room in float32.
    mass = np.cumsum(np.exp(np.asarray(values - values.max(), np.float64)).ravel())
    chosen = np.searchsorted(mass, np.asarray(jax.random.uniform(key_cell, (n,))) * mass[-1])
    index = jnp.stack(jnp.unravel_index(jnp.asarray(chosen), values.shape), axis=1)
    return grid_low + grid_step * (index + jax.random.uniform(key_jitter, (n, 2))), {"cells": cells}


def nuts(key: Key, log_density: LogDensity, n: int, start: Array) -> tuple[Array, dict]:
    """Draw with NumPyro's NUTS: 20 chains from around `start`, every fourth draw kept."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    chains, thinning = 20, 4
    key_start, key_run = jax.random.split(key)
    initial = start + 0.1 * jax.random.normal(key_start, (chains, *start.shape))
    sampler = MCMC(
        NUTS(potential_fn=lambda z: -log_density(z)),
        num_warmup=500,
        num_samples=thinning * math.ceil(n / chains),
        num_chains=chains,
        thinning=thinning,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.run(key_run, init_params=initial)
    grouped = np.asarray(sampler.get_samples(group_by_chain=True))
    info = {
        "rhat": float(split_gelman_rubin(grouped).max()),
        "ess": float(effective_sample_size(grouped).min()),
    }
    return jnp.asarray(grouped.reshape(-1, start.shape[0])[:n]), info


def importance(key: Key, log_density: LogDensity, n: int, start: Array) -> tuple[Array, dict]:
    """Draw by importance resampling from a Student-t fitted to earlier rounds' weighted draws."""
    dim = start.shape[0]

    @functools.partial(jax.jit, static_argnames="size")
    def round_(key: Key, mean: Array, factor: Array, size: int) -> tuple[Array, Array]:
        key_normal, key_scale = jax.random.split(key)
        scale = jnp.sqrt(_DOF / jax.random.chisquare(key_scale, _DOF, (size, 1)))
        e = jax.random.normal(key_normal, (size, dim)) * scale
        log_proposal = -0.5 * (_DOF + dim) * jnp.log1p((e**2).sum(1) / _DOF)
        z = mean + e @ factor.T
        # Chunks: the slowest trajectory of a batch sets the pace of all of it.
        return z, jax.lax.map(log_density, z, batch_size=2000) - log_proposal

    mean, factor = start, 0.05 * jnp.eye(dim)
    keys = jax.random.split(key, 6)
    for k in keys[:4]:
        z, log_weight = round_(k, mean, factor, 10_000)
        # Tempered to at least 200 effective draws, so that a poor first fit cannot collapse.
        weight = _tempered(log_weight, 200.0)
        mean = weight @ z
        covariance = (z - mean).T @ (weight[:, None] * (z - mean))
        factor = jnp.linalg.cholesky(covariance + 1e-8 * jnp.eye(dim))
    z, log_weight = round_(keys[4], mean, factor, 10 * n)
    weight = jax.nn.softmax(log_weight)
    chosen = jax.random.choice(keys[5], len(z), (n,), p=weight)
    info = {"ess": float(1 / (weight**2).sum()), "proposals": len(z)}
    return z[chosen], info


def _tempered(log_weight: Array, ess: float) -> Array:
    """Return normalised weights raised to the largest power ≤ 1 that leaves `ess` draws."""
    power = _largest_power(log_weight, 1.0, ess)
    return jax.nn.softmax(power * log_weight)


@jax.jit
def _largest_power(log_weight: Array, limit: Array, ess: Array) -> Array:
    """Return the largest power ≤ `limit` of the weights with `ess` effective draws."""
    shifted = log_weight - log_weight.max()

    def enough(power: Array) -> Array:
        return 1 / (jax.nn.softmax(power * shifted) ** 2).sum() >= ess

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        good = enough(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    low, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros(()), jnp.asarray(limit, jnp.float32)))
    return jnp.where(enough(jnp.asarray(limit, jnp.float32)), limit, low)


def smc(key: Key, log_density: LogDensity, n: int, dim: int) -> tuple[Array, dict]:
    """Draw with tempered sequential Monte Carlo from the latent prior N(0, I), SLCP only.

    The particles live where both symmetric coordinates are positive, which is exact, and random
    signs are given back at the end: no move has to cross from one of the four parts to another.
    """
    symmetric = jnp.zeros(dim, bool).at[jnp.array(_SYMMETRIC)].set(True)

    def fold(z: Array) -> Array:
        return jnp.where(symmetric, jnp.abs(z), z)

    def log_likelihood(z: Array) -> Array:
        return log_density(z) + 0.5 * z @ z

    @jax.jit
    def move(key: Key, z: Array, power: Array, moves: Array) -> tuple[Array, Array, Array]:
        covariance = jnp.cov(z.T) + 1e-9 * jnp.eye(dim)
        factor = jnp.linalg.cholesky(covariance)

        def target(z: Array) -> tuple[Array, Array]:
            value = jax.vmap(log_likelihood)(z)
            return value, power * value - 0.5 * (z**2).sum(1)

        def step(i: Array, carry: tuple) -> tuple:
            z, value, density, scale, accepted = carry
            key_step, key_scale, key_accept = jax.random.split(jax.random.fold_in(key, i), 3)
            # Steps of all sizes, from a tenth of the tuned scale: the posterior is a funnel.
            size = scale * 10.0 ** -jax.random.uniform(key_scale, (n, 1))
            new = fold(z + size * (jax.random.normal(key_step, z.shape) @ factor.T))
            new_value, new_density = target(new)
            accept = jnp.log(jax.random.uniform(key_accept, (n,))) < new_density - density
            rate = accept.mean()
            return (
                jnp.where(accept[:, None], new, z),
                jnp.where(accept, new_value, value),
                jnp.where(accept, new_density, density),
                scale * jnp.exp(0.1 * (rate - 0.3)),
                accepted + rate,
            )

        value, density = target(z)
        carry = (z, value, density, jnp.asarray(2.4 / math.sqrt(dim)), jnp.zeros(()))
        z, value, _, _, accepted = jax.lax.fori_loop(0, moves, step, carry)
        return z, value, accepted / moves

    key_start, key_sign, key = jax.random.split(key, 3)
    z = fold(jax.random.normal(key_start, (n, dim)))
    value = jax.vmap(log_likelihood)(z)
    power, stages, acceptance = 0.0, 0, jnp.zeros(())
    while power < 1.0:
        key, key_choice, key_move = jax.random.split(key, 3)
        rise = float(_largest_power(value, 1.0 - power, 0.7 * n))
        power, stages = min(power + rise, 1.0), stages + 1
        power = 1.0 if power > 1.0 - 1e-6 else power
        z = z[jax.random.choice(key_choice, n, (n,), p=jax.nn.softmax(rise * value))]
        z, value, acceptance = move(key_move, z, power, 50 if power < 1.0 else 500)
    sign = jax.random.rademacher(key_sign, (n, dim), dtype=z.dtype)
    return jnp.where(symmetric, sign * z, z), {"stages": stages, "acceptance": float(acceptance)}


def validate(name: str, observation: int, seed: int, metric: str = "twin") -> dict[str, Any]:
    """Return one record: the C2ST of our posterior against the reference, and how it was made.

    Args:
        name: The task.
        observation: 1 to 10.
        seed: Seeds the draws.
        metric: "twin" (compiled) or "standard" (scikit-learn's).
    """
    started = time.perf_counter()
    draws, info = sample(name, observation, seed)
    sampled = time.perf_counter()
    reference = tasks.reference(name, observation).posterior_samples
    return {
        "task": name,
        "observation": observation,
        "method": METHODS[name],
        "info": {k: round(float(v), 4) for k, v in info.items()},
        "c2st": round(_METRICS[metric](draws, reference), 4),
        "metric": metric,
        "draws": len(draws),
        "sample_seconds": round(sampled - started, 1),
        "c2st_seconds": round(time.perf_counter() - sampled, 1),
    }


def main(arguments: list[str] | None = None) -> None:
    """Validate the tasks and write a JSON file, record by record; finished ones are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("task_validation.json"))
    parser.add_argument("--tasks", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--observations", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--metric", choices=list(_METRICS), default="twin")
    options = parser.parse_args(arguments)
    header: dict[str, Any] = {
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": options.seed,
        "metric": options.metric,
        "seconds": "wall clock, compilation included; whatever else ran on the machine slows them",
    }
    records = _resume(options.out, header)
    done = {(record["task"], record["observation"]) for record in records}
    for name in options.tasks:
        for observation in options.observations:
            if (name, observation) in done:
                continue
            record = validate(name, observation, options.seed, options.metric)
            records.append(record)
            print(" ".join(f"{k}={v}" for k, v in record.items()), flush=True)
            options.out.write_text(json.dumps({**header, "records": records}, indent=1) + "\n")


def _resume(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of an earlier run with the same versions, machine, seed and metric."""
    if not path.exists():
        return []
    earlier = json.loads(path.read_text())
    return earlier["records"] if {k: earlier.get(k) for k in header} == header else []


if __name__ == "__main__":
    main()
