"""What summaries of two numbers keep, by the objective that trained them.

    python -m benchmarks.compression --out benchmarks/results/compression.json

A spectrum of 32 channels with noise 0.3 has one line of width 0.1; to be inferred are its place,
uniform on [-0.7, 0.7], and its strength, uniform on [0.5, 2]. Each summary of two numbers is
trained, kept fixed (`compression.frozen`), and read by the same `npe`; compared is the information
on the parameters with that in the whole spectrum, which a grid gives exactly. Summaries by Fisher
information are made at the middle of the prior: they are local, and the prior is wide.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxsbi
from benchmarks import plan
from benchmarks.environment import write
from jaxsbi import compression
from jaxsbi.base import Array, Data, Key, Simulations, Theta
from jaxsbi.densities import GaussianMixture
from jaxsbi.diagnostics import mutual_information
from jaxsbi.networks import MLP

CHANNELS, WIDTH, NOISE = 32, 0.1, 0.3
LOW, HIGH = np.array([-0.7, 0.5]), np.array([0.7, 2.0])
FIDUCIAL = {"place": 0.0, "strength": 1.25}
TESTED, GRID = 1_000, 161
DENSITY = GaussianMixture(components=4, hidden=32)
OBJECTIVES = ("joint", "ratio", "regression", "contrast", "imnn", "score")


def make_prior() -> jaxsbi.Prior:
    """Return the prior of place and strength."""
    return jaxsbi.Prior(place=dist.Uniform(LOW[0], HIGH[0]), strength=dist.Uniform(LOW[1], HIGH[1]))


def signal(theta: Theta) -> Array:
    """Return the spectrum without noise, shape `(32,)`."""
    axis = jnp.linspace(-1.0, 1.0, CHANNELS)
    return theta["strength"] * jnp.exp(-0.5 * ((axis - theta["place"]) / WIDTH) ** 2)


def simulator(key: Key, theta: Theta) -> Array:
    """Return the spectrum."""
    return signal(theta) + NOISE * jax.random.normal(key, (CHANNELS,))


def views(key: Key, theta: Theta) -> Data:
    """Return two spectra of one source."""
    first, second = jax.random.split(key)
    return {"first": simulator(first, theta), "second": simulator(second, theta)}


def network() -> Any:
    """Return the network of every summary that has one."""
    return MLP(64, 64, out=2)


def train(name: str, key: Key, prior: Any, rows: Simulations, options: Any) -> Any:
    """Return a summary of two numbers, by one objective."""
    key_x, key_fit = jax.random.split(key)
    more: dict[str, Any] = {"max_epochs": options.epochs, "progress": False}
    n = len(rows)
    if name == "score":
        return compression.gaussian_score(signal, NOISE**2 * jnp.ones(CHANNELS), FIDUCIAL)
    if name == "imnn":
        rows = compression.at_fiducial(key_x, simulator, FIDUCIAL, n, progress=False)
        more["batch_size"] = 250
    if name == "contrast":
        rows = jaxsbi.simulate(key_x, prior, views, n, progress=False)
    method = {
        "joint": lambda: jaxsbi.npe(density=DENSITY, summary=network()),
        "ratio": lambda: jaxsbi.nre(summary=network()),
        "regression": lambda: compression.regression(network()),
        "contrast": lambda: compression.contrast({"first": network(), "second": network()}),
        "imnn": lambda: compression.imnn(network()),
    }[name]()
    fitted = jaxsbi.fit(key_fit, method, prior, rows, **more)
    return compression.summary(fitted.posterior, view="first" if name == "contrast" else None)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objectives", type=plan.words, default=OBJECTIVES)
    parser.add_argument("--simulations", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("objective", options.objectives, list(OBJECTIVES))
    keys = jax.random.split(jax.random.key(options.seed), 4)
    prior = make_prior()
    rows = jaxsbi.simulate(keys[0], prior, simulator, options.simulations, progress=False)
    fresh = jaxsbi.simulate(keys[1], prior, simulator, TESTED, progress=False)
    exact = exact_information(fresh)
    found = []
    for name in options.objectives:
        start = time.process_time()
        summary = train(name, jax.random.clone(keys[2]), prior, rows, options)
        method = compression.frozen(jaxsbi.npe(density=DENSITY), summary)
        key = jax.random.clone(keys[3])
        fitted = jaxsbi.fit(key, method, prior, rows, max_epochs=options.epochs, progress=False)
        kept = mutual_information(jax.random.key(0), fitted.posterior, fresh)
        row = {"objective": name, "information": kept.value, "error": kept.error}
        row |= {"lost": exact - kept.value, "cpu_s": time.process_time() - start}
        found.append(row)
        print(json.dumps(row), flush=True)
    if options.out:
        sizes = {name: getattr(options, name) for name in ("simulations", "epochs", "seed")}
        write(options.out, {"exact": exact, "rows": found, "sizes": sizes})


def exact_information(fresh: Simulations) -> float:
    """Return the mean of log p(theta | x) - log p(theta) over simulations, by quadrature."""
    place, strength = (
        jnp.linspace(a, b, GRID + 1)[1:] - 0.5 * (b - a) / GRID
        for a, b in zip(LOW, HIGH, strict=True)
    )
    shapes = jax.vmap(lambda p: signal({"place": p, "strength": jnp.ones(())}))(place)

    def one(row: tuple[Theta, Array]) -> Array:
        theta, x = row
        linear, square = shapes @ x, jnp.sum(shapes**2, 1)
        log_l = strength[:, None] * linear[None] - 0.5 * strength[:, None] ** 2 * square[None]
        truth = signal(theta)
        at_truth = truth @ x - 0.5 * truth @ truth
        evidence = jax.nn.logsumexp(log_l / NOISE**2) - 2.0 * jnp.log(GRID)
        return at_truth / NOISE**2 - evidence

    return float(jnp.mean(jax.lax.map(one, (fresh.theta, fresh.x))))


if __name__ == "__main__":
    main()
