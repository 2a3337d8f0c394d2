"""Waveforms of ripplegw: aligned spins (IMRPhenomD) and precessing ones (IMRPhenomPv2).

Sources: Khan et al. 2016, arXiv:1508.07253; Hannam et al. 2014, arXiv:1308.3271; their JAX form,
Edwards et al. 2023, arXiv:2302.05329.
"""

from __future__ import annotations

import jax.numpy as jnp

from examples.gravitational_waves.ripple import gen_IMRPhenomD, gen_IMRPhenomPv2
from jaxsbi.base import Array, Theta

REFERENCE = 20.0
"""Hz at which phases and spins are defined."""


def symmetric(mass_ratio: Array) -> Array:
    """Return the symmetric mass ratio of m2 / m1."""
    return mass_ratio / (1.0 + mass_ratio) ** 2


def aligned(frequency: Array, theta: Theta) -> Array:
    """Return the waveform of a binary seen face-on at 1 Mpc, with spins along its axis.

    Args:
        frequency: Hz, shape `(n,)`.
        theta: `chirp_mass` (detector frame, solar masses), `mass_ratio` (at most 1), and the spins
            `chi1` and `chi2` along the orbital angular momentum.

    Returns:
        Complex strain per Hz, shape `(n,)`; the amplitude peaks at time 0.
    """
    one, zero = jnp.ones_like(theta["chirp_mass"]), jnp.zeros_like(theta["chirp_mass"])
    numbers = [theta["chirp_mass"], symmetric(theta["mass_ratio"]), theta["chi1"], theta["chi2"]]
    return gen_IMRPhenomD(frequency, jnp.stack([*numbers, one, zero, zero]), REFERENCE)


def inclined(h: Array, inclination: Array) -> tuple[Array, Array]:
    """Return both polarizations of a face-on waveform seen at an inclination."""
    cosine = jnp.cos(inclination)
    return 0.5 * (1.0 + cosine**2) * h, -1j * cosine * h


def precessing(frequency: Array, theta: Theta) -> tuple[Array, Array]:
    """Return both polarizations of a precessing binary.

    Args:
        frequency: Hz, shape `(n,)`.
        theta: `mass1` and `mass2` (detector frame, solar masses, in any order), for each its spin
            as `spin1_a`, `spin1_polar` and `spin1_azimuthal`, `distance` (Mpc), `inclination`.

    Returns:
        Two arrays of complex strain per Hz, shape `(n,)`; the amplitude peaks at time 0.
    """
    spins = jnp.stack([_vector(theta, "spin1"), _vector(theta, "spin2")])
    swap = theta["mass1"] < theta["mass2"]  # ripplegw expects the heavier one first
    masses = jnp.sort(jnp.stack([theta["mass1"], theta["mass2"]]))[::-1]
    spins = jnp.where(swap, spins[::-1], spins)
    zero = jnp.zeros_like(masses[0])
    rest = jnp.stack([theta["distance"], zero, zero, theta["inclination"]])
    return gen_IMRPhenomPv2(frequency, jnp.concatenate([masses, *spins, rest]), REFERENCE)


def _vector(theta: Theta, name: str) -> Array:
    size, polar, azimuth = (theta[f"{name}_{part}"] for part in ("a", "polar", "azimuthal"))
    across = size * jnp.sin(polar)
    along = size * jnp.cos(polar)
    return jnp.stack([across * jnp.cos(azimuth), across * jnp.sin(azimuth), along])
