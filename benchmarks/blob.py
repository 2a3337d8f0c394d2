"""A blob in a noisy image: does a network's summary keep where it is?

    python -m benchmarks.blob --out benchmarks/results/blob.json

The centre of a Gaussian blob of width 0.15 in 32 × 32 pixels on [-1, 1]², with noise 0.45 in each,
is uniform on [-0.7, 0.7]². Its Fisher width, about 0.023 per coordinate, is the best there is. We
train `npe` with a convolutional summary, and with a perceptron that squeezes the pixels into 8
numbers, on the same images; compared are the widths of posteriors of fresh images and the errors
of their means, in units of the Fisher width, and the mean log-density of the truth.
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
from benchmarks.environment import environment
from jaxsbi.base import Array, Key, Theta
from jaxsbi.densities import Gaussian
from jaxsbi.networks import MLP, Conv

PIXELS, WIDTH, NOISE, EDGE = 32, 0.15, 0.45, 0.7
SUMMARIES = {
    "conv": Conv(features=(16, 32), kernel=5, out=16),
    "bottleneck": MLP(128, 8),
}
TESTED, DRAWS = 500, 1_000


def signal(centre: Array) -> Array:
    """Return the image without noise, shape `(32, 32, 1)`."""
    axis = (jnp.arange(PIXELS) + 0.5) * 2 / PIXELS - 1
    x, y = (jnp.exp(-0.5 * ((axis - c) / WIDTH) ** 2) for c in centre)
    return x[:, None, None] * y[None, :, None]


def simulator(key: Key, theta: Theta) -> Array:
    """Return the image with noise."""
    return signal(theta["centre"]) + NOISE * jax.random.normal(key, (PIXELS, PIXELS, 1))


def fisher_widths(centres: Array) -> Array:
    """Return the square root of the diagonal of each inverse Fisher matrix, `(n, 2)`."""

    def widths(centre: Array) -> Array:
        J = jax.jacobian(lambda c: jnp.ravel(signal(c)))(centre)
        return jnp.sqrt(jnp.diag(jnp.linalg.inv(J.T @ J))) * NOISE

    return jax.vmap(widths)(centres)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--summaries", type=plan.words, default=tuple(SUMMARIES))
    parser.add_argument("--simulations", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("summary", options.summaries, list(SUMMARIES))
    keys = jax.random.split(jax.random.key(options.seed), 4)
    low = jnp.full(2, -EDGE)
    prior = jaxsbi.Prior(centre=dist.Uniform(low, -low).to_event(1))
    images = jaxsbi.simulate(keys[0], prior, simulator, options.simulations, progress=False)
    fresh = jaxsbi.simulate(keys[1], prior, simulator, TESTED, progress=False)
    rows = []
    for name in options.summaries:
        method = jaxsbi.npe(density=Gaussian(), summary=SUMMARIES[name])
        start, processor = time.perf_counter(), time.process_time()
        fitted = jaxsbi.fit(
            keys[2], method, prior, images, max_epochs=options.epochs, batch_size=options.batch,
            progress=False,
        )  # fmt: skip
        row = {"summary": name, "wall_s": time.perf_counter() - start}
        row |= {"cpu_s": time.process_time() - processor, "epochs": fitted.history.epochs}
        rows.append(row | measure(keys[3], fitted.posterior, fresh))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        sizes = {
            name: getattr(options, name) for name in ("simulations", "epochs", "batch", "seed")
        }
        report = {"rows": rows, "sizes": sizes, "environment": environment()}
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(key: Key, posterior: Any, fresh: jaxsbi.Simulations) -> dict[str, Any]:
    """Return widths and errors in units of the Fisher width, and the log-density of the truth."""
    sample = jax.vmap(lambda key, x: posterior.sample(key, x, DRAWS)["centre"])
    draws = np.asarray(sample(jax.random.split(key, TESTED), fresh.x))
    log_prob = jax.vmap(posterior.log_prob)(fresh.theta, fresh.x)
    truth, widths = np.asarray(fresh.theta["centre"]), fisher_widths(fresh.theta["centre"])
    # At the prior's edge a posterior is narrower than the likelihood.
    inner = np.all(np.abs(truth) < EDGE - 3 * np.asarray(widths), 1)
    error = ((draws.mean(1) - truth) / widths)[inner]
    return {
        "fisher_width": float(np.mean(widths)),
        "width": float(np.median(np.std(draws, 1)[inner] / widths[inner])),
        "error": float(np.sqrt(np.mean(error**2))),
        "median_error": float(np.median(np.abs(error)) / 0.6745),
        "log_density": float(jnp.mean(log_prob)),
    }


if __name__ == "__main__":
    main()
