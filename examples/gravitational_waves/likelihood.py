"""Log-likelihoods of strain in Gaussian noise, with the phase of coalescence integrated out."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import i0e

from examples.gravitational_waves.data import Segment
from jaxsbi.base import Array


def marginal_ratio(data: Array, signal: Array) -> Array:
    """Return log p(data | signal of any phase) - log p(data | noise), a scalar.

    Both are whitened: complex, with noise of unit variance in the real and the imaginary part. A
    phase turns signals of the dominant mode as a whole, so that its integral is a Bessel function
    (Veitch & Del Pozzo 2013, LIGO-T1300326).
    """
    product = jnp.sum(jnp.conj(signal) * data)
    # The modulus has no gradient at 0, where the phase means nothing.
    size = jnp.sqrt(product.real**2 + product.imag**2 + 1e-20)
    return jnp.log(i0e(size)) + size - 0.5 * jnp.sum(jnp.abs(signal) ** 2)


def whiten(segment: Segment, strain: Array) -> Array:
    """Return strain at all frequencies of a segment, whitened: the Whittle likelihood's form."""
    return jnp.sqrt(4.0 * segment.resolution) / jnp.asarray(segment.asd) * strain


def detected(
    frequency: Array, plus: Array, cross: Array, sky: tuple[Array, Array, Array], time: Array
) -> Array:
    """Return both detectors' strain, shape `(2, n)`, from two polarizations `(n,)`.

    Args:
        frequency: Hz.
        plus: One polarization; its amplitude peaks at time 0.
        cross: The other.
        sky: Antenna patterns and delays, from `detectors.project`.
        time: When the amplitude peaks at the Earth's centre, in seconds after `EVENT`.
    """
    f_plus, f_cross, delay = sky
    turns = frequency[None] * (time + delay)[:, None]
    # Whole turns are left out before they are multiplied: single precision needs it.
    phase = -2.0 * jnp.pi * (turns - jnp.round(turns))
    arrived = jnp.exp(1j * phase)
    return (f_plus[:, None] * plus[None] + f_cross[:, None] * cross[None]) * arrived
