"""The posterior learned outright: NPE on the stored runs, each seen with new noise every time."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from planck import CALIBRATION, LOW, SPECTRA, Planck

from jaxsbi.base import Array, Data, Key, Simulations, Theta


class Summaries(NamedTuple):
    """618 numbers made 11: the scores of the six parameters, and the five bins at low ℓ.

    Scores keep all that there is to know of parameters in which the data are linear (Heavens,
    Jimenez & Lahav 2000, arXiv:astro-ph/9911102), as those of plik-lite nearly are here.

    Attributes:
        matrix: Shape `(11, 618)`.
        factor: Cholesky factor of the summaries' noise, shape `(11, 11)`.
    """

    matrix: Array
    factor: Array

    def signal(self, likelihood: Planck, spectra: Data) -> Data:
        """Return the noiseless summaries of spectra, and how they answer to the calibration."""
        mean, slope = jax.jvp(lambda c: likelihood.mean(spectra, c), (1.0,), (1.0,))
        return {"mean": self.matrix @ mean, "slope": self.matrix @ slope}

    def noise(self, key: Key, theta: Theta, signal: Data) -> Array:
        """Return summaries as they would be observed, shape `(11,)`."""
        del theta
        key_noise, key_calibration = jax.random.split(key)
        white = jax.random.normal(key_noise, signal["mean"].shape)
        calibration = CALIBRATION * jax.random.normal(key_calibration)
        return signal["mean"] + calibration * signal["slope"] + self.factor @ white


def summaries(likelihood: Planck, simulations: Simulations) -> Summaries:
    """Return the summaries for runs around the truth: slopes are those at their centre."""
    theta = np.stack([np.asarray(a, float) for a in simulations.theta.values()], axis=1)
    u = (theta - theta.mean(0)) / theta.std(0)
    pairs = [u[:, i] * u[:, j] for i in range(u.shape[1]) for j in range(i + 1)]
    features = np.column_stack([np.ones(len(u)), u, *pairs])
    spectra = {name: simulations.x[name] for name in SPECTRA}
    mean, slope = jax.vmap(lambda s: jax.jvp(lambda c: likelihood.mean(s, c), (1.0,), (1.0,)))(
        spectra
    )
    jacobian = np.linalg.lstsq(features, np.asarray(mean, float))[0][1 : 1 + u.shape[1]]
    # What looks like the calibration says nothing of the parameters.
    d = CALIBRATION * np.asarray(slope, float).mean(0)
    scores = jacobian - np.outer(jacobian @ d, d) / (1 + d @ d)
    scores /= np.linalg.norm(scores, axis=1, keepdims=True)
    low = np.eye(mean.shape[1])[-len(LOW) :]
    matrix = np.concatenate([scores, low])
    return Summaries(jnp.asarray(matrix), jnp.asarray(np.linalg.cholesky(matrix @ matrix.T)))
