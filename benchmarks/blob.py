"""A blob in a noisy image: does a network's summary keep where it is?

    python -m benchmarks.blob --out benchmarks/results/blob.json

The centre of a Gaussian blob of width 0.15 in 32 × 32 pixels on [-1, 1]², with noise 0.45 in each,
is uniform on [-0.7, 0.7]². Its Fisher width, about 0.023 per coordinate, is the best there is. We
train `npe` with a convolutional summary, and with a perceptron that squeezes the pixels into 8
numbers, on the same stored signals with new noise in every step (`jaxsbi.Signals`), or, with
`--noise stored`, on as many images with the noise that they came with. Compared are the widths of
posteriors of fresh images and the errors of their means, in units of the Fisher width, and the
mean log-density of the truth. How much of the gradient's variance is the noise's, which new noise
averages away, is measured at the trained variables.
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
from jax.flatten_util import ravel_pytree

import jaxsbi
from benchmarks import plan
from benchmarks.environment import write
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


def noiseless(key: Key, theta: Theta) -> Array:
    """Return the image without noise, as a simulator."""
    del key
    return signal(theta["centre"])


def noise(key: Key, theta: Theta, image: Array) -> Array:
    """Return an image with noise."""
    del theta
    return image + NOISE * jax.random.normal(key, image.shape)


def simulator(key: Key, theta: Theta) -> Array:
    """Return the image with noise."""
    return noise(key, theta, signal(theta["centre"]))


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
    parser.add_argument("--noise", choices=("fresh", "stored"), default="fresh")
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("summary", options.summaries, list(SUMMARIES))
    keys = jax.random.split(jax.random.key(options.seed), 5)
    low = jnp.full(2, -EDGE)
    prior = jaxsbi.Prior(centre=dist.Uniform(low, -low).to_event(1))
    fresh = jaxsbi.simulate(keys[1], prior, simulator, TESTED, progress=False)
    rows = []
    for name in options.summaries:
        method = jaxsbi.npe(density=Gaussian(), summary=SUMMARIES[name])
        start, processor = time.perf_counter(), time.process_time()
        posterior = train(keys[0], keys[2], method, prior, options)
        row = {"summary": name, "wall_s": time.perf_counter() - start}
        row |= {"cpu_s": time.process_time() - processor}
        row |= measure(jax.random.clone(keys[3]), posterior, fresh)
        rows.append(row | gradient_variance(jax.random.clone(keys[4]), posterior, fresh))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        names = ("simulations", "noise", "steps", "batch", "seed")
        sizes = {name: getattr(options, name) for name in names}
        write(options.out, {"rows": rows, "sizes": sizes})


def train(key_x: Key, key_fit: Key, method: Any, prior: jaxsbi.Prior, options: Any) -> Any:
    """Return the posterior after equally many steps, with new noise or with that of the images."""
    key_x, key_fit = jax.random.clone(key_x), jax.random.clone(key_fit)
    n, batch = options.simulations, options.batch
    if options.noise == "fresh":
        signals = jaxsbi.simulate(key_x, prior, noiseless, n, progress=False)
        fitted = jaxsbi.fit_online(
            key_fit, method, prior, jaxsbi.Signals(signals, noise), num_steps=options.steps,
            batch_size=batch, progress=False,
        )  # fmt: skip
        return fitted.posterior
    images = jaxsbi.simulate(key_x, prior, simulator, n, progress=False)
    epochs = max(1, round(options.steps / (0.9 * n / batch)))
    fitted = jaxsbi.fit(
        key_fit, method, prior, images, max_epochs=epochs, batch_size=batch, progress=False
    )
    return fitted.posterior


def gradient_variance(key: Key, posterior: Any, fresh: jaxsbi.Simulations) -> dict[str, Any]:
    """Return how much of the variance of one example's gradient, summed over weights, is noise.

    Two noises on each signal: their gradients share what the signal says, and nothing else.
    """
    variables, prior = posterior.variables, posterior.prior

    def gradient(key: Key, theta: Theta) -> Array:
        def loss(params: Any) -> Array:
            one = jax.tree.map(lambda a: a[None], (theta, simulator(key, theta), jnp.ones(())))
            trained = {**variables, "params": params}
            return posterior.method.loss(trained, prior, key, jaxsbi.Simulations(*one))[0]

        return ravel_pytree(jax.grad(loss)(variables["params"]))[0]

    first, second = (
        jax.jit(jax.vmap(gradient))(jax.random.split(k, TESTED), fresh.theta)
        for k in jax.random.split(key)
    )
    mean = 0.5 * (jnp.mean(first, 0) + jnp.mean(second, 0))
    first, second = first - mean[None], second - mean[None]
    total = 0.5 * float(jnp.mean(jnp.sum(first**2 + second**2, 1)))
    signals = max(float(jnp.mean(jnp.sum(first * second, 1))), 0.0)
    return {"gradient_variance": total, "share_of_noise": 1.0 - signals / total}


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
