"""A catalogue of clustered points: what a graph of neighbours says that a bag of points does not.

    python -m benchmarks.graphs --out benchmarks/results/graphs.json

Sixty points in the unit square with periodic edges: each is scattered by a normal law of width w
around one of m cluster centres, chosen at random (a Thomas process of fixed size; Thomas 1949,
Biometrika 36, 18). To be inferred are log10 w, uniform on [-2.5, -0.5], and log10 m, uniform on
[0.3, 1.5]. `npe` reads the points by a `DeepSet`, and by a `GraphNet` with the same width and the
edges to the six nearest neighbours; with the histogram of all distances (the two-point function)
as the classical summary beside them. Compared is the information on the parameters, in nats.
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
from jaxsbi.base import Array, Data, Key, Theta
from jaxsbi.densities import MaskedAutoregressive
from jaxsbi.diagnostics import mutual_information
from jaxsbi.networks import MLP, DeepSet, GraphNet

POINTS, CENTRES, NEIGHBOURS, BINS = 60, 32, 6, 16
TESTED = 2_000
SUMMARIES = {
    "deepset": DeepSet(hidden=32, out=16),
    "graph": GraphNet(hidden=32, out=16, rounds=1),
    "distances": MLP(64, 64, out=16),
}


def simulator(key: Key, theta: Theta) -> Array:
    """Return the points, shape `(60, 2)`."""
    key_centres, key_choice, key_noise = jax.random.split(key, 3)
    count = jnp.floor(10.0 ** theta["log_centres"])
    centres = jax.random.uniform(key_centres, (CENTRES, 2))
    chosen = jnp.floor(jax.random.uniform(key_choice, (POINTS,)) * count).astype(int)
    noise = 10.0 ** theta["log_width"] * jax.random.normal(key_noise, (POINTS, 2))
    return jnp.mod(centres[jnp.minimum(chosen, CENTRES - 1)] + noise, 1.0)


def displacements(points: Array) -> Array:
    """Return the shortest way from each point to each other, `(n, n, 2)`."""
    apart = points[None] - points[:, None]
    return apart - jnp.round(apart)


def bag(points: Array) -> Data:
    """Return the points on circles: what is close on a torus is close in these four numbers."""
    return jnp.concatenate([jnp.cos(2 * jnp.pi * points), jnp.sin(2 * jnp.pi * points)], -1)


def graph(points: Array) -> Data:
    """Return the same points with edges from their nearest neighbours, and how far these are."""
    apart = displacements(points)
    square = jnp.sum(apart**2, -1) + 10.0 * jnp.eye(POINTS)
    near, senders = jax.lax.top_k(-square, NEIGHBOURS)
    log_distance = 0.5 * jnp.log(-near + 1e-8)
    receivers = jnp.repeat(jnp.arange(POINTS), NEIGHBOURS)
    edges = {"senders": jnp.ravel(senders), "receivers": receivers}
    return {"nodes": bag(points), "edges": edges | {"values": jnp.ravel(log_distance)[:, None]}}


def distances(points: Array) -> Data:
    """Return the histogram of the logarithms of all distances, as log(1 + count)."""
    square = jnp.sum(displacements(points) ** 2, -1)[jnp.triu_indices(POINTS, 1)]
    edges = jnp.linspace(-3.0, -0.15, BINS + 1)
    return jnp.log1p(jnp.histogram(0.5 * jnp.log10(square + 1e-12), edges)[0].astype(float))


READ = {"deepset": bag, "graph": graph, "distances": distances}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--summaries", type=plan.words, default=tuple(SUMMARIES))
    parser.add_argument("--simulations", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("summary", options.summaries, list(SUMMARIES))
    keys = jax.random.split(jax.random.key(options.seed), 4)
    prior = jaxsbi.Prior(log_width=dist.Uniform(-2.5, -0.5), log_centres=dist.Uniform(0.3, 1.5))
    points = jaxsbi.simulate(keys[0], prior, simulator, options.simulations, progress=False)
    fresh = jaxsbi.simulate(keys[1], prior, simulator, TESTED, progress=False)
    rows = []
    for name in options.summaries:
        method = jaxsbi.npe(density=MaskedAutoregressive(), summary=SUMMARIES[name])
        start, processor = time.perf_counter(), time.process_time()
        fitted = jaxsbi.fit(
            jax.random.clone(keys[2]), method, prior, read(points, name),
            max_epochs=options.epochs, progress=False,
        )  # fmt: skip
        row: dict[str, Any] = {"summary": name, "wall_s": time.perf_counter() - start}
        row |= {"cpu_s": time.process_time() - processor, "epochs": fitted.history.epochs}
        key = jax.random.clone(keys[3])
        found = mutual_information(key, fitted.posterior, read(fresh, name))
        rows.append(row | {"information": found.value, "error": found.error})
        rows[-1] |= errors(key, fitted.posterior, read(fresh[:200], name))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        sizes = {name: getattr(options, name) for name in ("simulations", "epochs", "seed")}
        write(options.out, {"rows": rows, "sizes": sizes})


def read(simulations: jaxsbi.Simulations, name: str) -> jaxsbi.Simulations:
    """Return the simulations with their points as a summary reads them."""
    x = jax.jit(lambda x: jax.lax.map(READ[name], x, batch_size=256))(simulations.x)
    return jaxsbi.Simulations(simulations.theta, x, simulations.weight)


def errors(key: Key, posterior: Any, fresh: jaxsbi.Simulations) -> dict[str, float]:
    """Return the root mean square errors of the posterior means, by parameter."""
    keys = jax.random.split(jax.random.clone(key), len(fresh))
    draws = jax.vmap(lambda key, x: posterior.sample(key, x, 200))(keys, fresh.x)
    return {
        f"error_{name}": float(np.sqrt(np.mean((draws[name].mean(1) - truth) ** 2)))
        for name, truth in fresh.theta.items()
    }


if __name__ == "__main__":
    main()
