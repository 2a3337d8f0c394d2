"""The posterior learned outright: NPE on the stored runs, each seen with new noise every time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from planck import CALIBRATION, LOW, calibrate

import jaxsbi
from jaxsbi.base import Array, Data, Fitted, Key, Simulations, Theta


class Summaries(NamedTuple):
    """618 numbers made 11: the scores of the six parameters, and the five bins at low ℓ.

    Scores keep all that there is to know of parameters in which the data are linear (Heavens,
    Jimenez & Lahav 2000, arXiv:astro-ph/9911102), as those of plik-lite nearly are here.

    Attributes:
        matrix: Orthonormal rows, shape `(11, 618)`.
    """

    matrix: Array

    def signal(self, mean: Array) -> Data:
        """Return the summaries of expected data, and how they answer to the calibration."""
        _, slope = jax.jvp(lambda c: calibrate(mean, c), (1.0,), (1.0,))
        return {"mean": self.matrix @ mean, "slope": self.matrix @ slope}

    def noise(self, key: Key, theta: Theta, signal: Data) -> Array:
        """Return summaries as they would be observed, shape `(11,)`."""
        del theta
        key_noise, key_calibration = jax.random.split(key)
        white = jax.random.normal(key_noise, signal["mean"].shape)
        calibration = CALIBRATION * jax.random.normal(key_calibration)
        return signal["mean"] + calibration * signal["slope"] + white


def summaries(theta: Theta, mean: Array) -> Summaries:
    """Return the summaries for runs around the truth: slopes are those at their centre.

    Args:
        theta: The parameters of the runs, each of shape `(n,)`.
        mean: The data that they expect, shape `(n, 618)`.
    """
    values = np.stack([np.asarray(a, float) for a in theta.values()], axis=1)
    u = (values - values.mean(0)) / values.std(0)
    pairs = [u[:, i] * u[:, j] for i in range(u.shape[1]) for j in range(i + 1)]
    features = np.column_stack([np.ones(len(u)), u, *pairs])
    jacobian = np.linalg.lstsq(features, np.asarray(mean, float))[0][1 : 1 + u.shape[1]]
    # What looks like the calibration says nothing of the parameters.
    d = CALIBRATION * np.asarray(jax.jacfwd(calibrate, 1)(jnp.mean(mean, 0), 1.0), float)
    scores = jacobian - np.outer(jacobian @ d, d) / (1 + d @ d)
    scores /= np.linalg.norm(scores, axis=1, keepdims=True)
    rows = np.concatenate([scores, np.eye(d.size)[-len(LOW) :]])
    # Scores of A_s and τ are nearly parallel: an orthonormal basis holds what sets them apart.
    return Summaries(jnp.asarray(np.linalg.qr(rows.T)[0].T))


def by_npe(
    key: Key,
    prior: jaxsbi.Prior,
    simulations: Simulations,
    compressed: Summaries,
    **options: Any,
) -> Fitted:
    """Return the posterior of compressed data, learned from stored runs and new noise."""
    signal = jax.vmap(compressed.signal)(simulations.x)
    signals = Simulations(simulations.theta, signal, simulations.weight)
    stored = jaxsbi.Signals(signals, compressed.noise)
    return jaxsbi.fit_online(key, jaxsbi.npe(), prior, stored, **options)
