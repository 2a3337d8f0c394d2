"""How unlike two waveforms are to a detector, whatever their arrival times and starting phases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array

LAGS = 10.0
"""The largest difference of arrival times that is tried, in units of the total mass."""


def mismatch(first: Array, second: Array, mf: Array, power: Array) -> Array:
    """Return one minus the overlap of two waveforms, maximised over time and phase (a scalar).

    Args:
        first: Complex, shape `(k,)`.
        second: Same shape.
        mf: M f, increasing, shape `(k,)`; dense enough for the waveforms' difference in phase.
        power: The noise's power spectral density at these frequencies, infinite where it is not
            heard, shape `(k,)`.
    """
    weight = jnp.gradient(mf) / power
    product = jnp.conj(first) * second * weight
    norms = [jnp.sum(jnp.abs(h) ** 2 * weight) for h in (first, second)]

    def overlap(lag: Array) -> Array:
        return jnp.abs(jnp.sum(product * jnp.exp(2j * jnp.pi * lag * mf)))

    lag, width = jnp.zeros(()), LAGS
    for _ in range(4):
        lags = lag + width * jnp.linspace(-1.0, 1.0, 41)
        lag = lags[jnp.argmax(jax.lax.map(overlap, lags))]
        width = width / 15.0
    return 1.0 - overlap(lag) / jnp.sqrt(norms[0] * norms[1])


def power(mf: np.ndarray, mass: np.ndarray, frequency: np.ndarray, asd: np.ndarray) -> np.ndarray:
    """Return the noise's power at M f for binaries of some total masses, `(n, k)`.

    Args:
        mf: Shape `(k,)`.
        mass: Total masses in seconds, shape `(n,)`.
        frequency: Hz, where the noise's amplitude spectral density is known.
        asd: The density; elsewhere nothing is heard.
    """
    f = mf[None] / mass[:, None]
    found = np.interp(f, frequency, asd / asd.min(), np.inf, np.inf)
    return found**2
