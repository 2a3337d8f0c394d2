"""Families of ripplegw's waveforms in units of the total mass, on any grid of M f.

Sources beside those of `waveforms`: Pratten et al. 2020, arXiv:2001.11412 (IMRPhenomXAS).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from examples.gravitational_waves.ripple import (
    SpinWeightedY,
    convert_spins,
    gen_IMRPhenomD,
    gen_IMRPhenomPv2,
    gen_IMRPhenomXAS,
)
from examples.gravitational_waves.waveforms import aligned, symmetric
from jaxsbi.base import ONCE_OPTIONS, Array, Theta

SUN = 4.925490947641267e-6
"""Of its mass, in seconds."""
MEGAPARSEC = 1.0292712503e14
"""In seconds."""
MASS = 60.0
"""Total mass at which ripplegw is called, in solar masses; the results do not depend on it."""
UNIT = (MASS * SUN) ** 2 / MEGAPARSEC
"""Of its strain at 1 Mpc: the square of the mass over the distance."""
ALIGNED = {"IMRPhenomD": gen_IMRPhenomD, "IMRPhenomXAS": gen_IMRPhenomXAS}
ORDERS = (2, 1, 0, -1, -2)
VIEWS = (0.3, 0.9, 1.5, 2.1, 2.7)
"""Inclinations from which a precessing binary's modes are found."""


def waveforms(family: str, mf: np.ndarray, theta: Theta) -> np.ndarray:
    """Return waveforms of binaries that do not precess, seen face-on.

    Args:
        family: A name in `ALIGNED`.
        mf: M f, shape `(k,)`.
        theta: `mass_ratio` (at most 1), and the spins `chi1` (of the heavier) and `chi2`, `(n,)`.

    Returns:
        Complex, in units of M^2 over the distance, in double precision, shape `(n, k)`.
    """
    with jax.enable_x64(True):
        numbers = [_double(theta[name]) for name in ("mass_ratio", "chi1", "chi2")]
        return np.asarray(_waveforms(family, _double(mf), *numbers)) / UNIT


def modes(mf: np.ndarray, theta: Theta) -> np.ndarray:
    """Return the modes of order 2 and 1 of precessing binaries of IMRPhenomPv2.

    In the frame whose axis is the total angular momentum; the precession's phase is 0 at the first
    frequency. Polarizations from several directions are a linear function of five modes.

    Args:
        mf: M f, shape `(k,)`.
        theta: As for `waveforms`, and the precessing spin `chip` of the heavier, each `(n,)`.

    Returns:
        In units of M^2 over the distance, shape `(n, 2, k)`.
    """
    with jax.enable_x64(True):
        numbers = [_double(theta[name]) for name in ("mass_ratio", "chi1", "chi2", "chip")]
        return np.asarray(_modes(_double(mf), *numbers)) / UNIT


def direct(frequency: Array, mass: float, theta: Theta) -> Array:
    """Return one waveform of IMRPhenomD at some frequencies in Hz, for 1 Mpc."""
    chirp_mass = mass * symmetric(theta["mass_ratio"]) ** 0.6
    return aligned(frequency, {**theta, "chirp_mass": chirp_mass})


@functools.partial(jax.jit, static_argnames="family", compiler_options=ONCE_OPTIONS)
def _waveforms(family: str, mf: Array, *numbers: Array) -> Array:
    frequency = hertz(mf)

    def one(each: tuple[Array, ...]) -> Array:
        eta = symmetric(each[0])
        theta = [MASS * eta**0.6, eta, *each[1:], jnp.ones(()), jnp.zeros(()), jnp.zeros(())]
        return ALIGNED[family](frequency, jnp.stack(theta), frequency[0])

    return jax.lax.map(one, numbers, batch_size=32)


@functools.partial(jax.jit, compiler_options=ONCE_OPTIONS)
def _modes(mf: Array, *numbers: Array) -> Array:
    frequency = hertz(mf)

    def one(each: tuple[Array, ...]) -> Array:
        def view(inclination: Array) -> tuple[Array, Array]:
            theta, angles = seen(each, inclination, jnp.pi / 2.0, frequency[0])
            plus, cross = gen_IMRPhenomPv2(frequency, theta, frequency[0])
            rows = pattern(*angles)
            return jnp.stack(rows), jnp.stack([plus + 1j * cross, plus - 1j * cross])

        rows, strains = jax.vmap(view)(jnp.asarray(VIEWS))
        rows, strains = rows.reshape(-1, len(ORDERS)), strains.reshape(-1, mf.size)
        return (jnp.linalg.pinv(rows) @ strains)[:2]

    return jax.lax.map(one, numbers, batch_size=16)


def seen(
    each: tuple[Array, ...], inclination: Array, phase: float, reference: Array
) -> tuple[Array, tuple[Array, ...]]:
    """Return ripplegw's parameters of a precessing binary, and the angles of the view.

    Args:
        each: Mass ratio, both aligned spins and the precessing spin.
        inclination: Of the orbit.
        phase: Of the orbit.
        reference: Hz where spins and phases are defined.

    Returns:
        Parameters `(12,)`; polar angle of the total angular momentum to the line of sight, phase of
        precession, polarization angle.
    """
    q, chi1, chi2, chip = each
    m1, m2 = MASS / (1.0 + q), MASS * q / (1.0 + q)
    zero, one = jnp.zeros(()), jnp.ones(())
    spins = (chip, zero, chi1, zero, zero, chi2)
    theta = jnp.stack([m1, m2, *spins, one, zero, phase * one, inclination])
    # ripplegw's function takes the lighter one first.
    found = convert_spins(m2, m1, reference, phase, inclination, *spins[3:], *spins[:3])
    return theta, (found[3], found[4], found[6])


def pattern(polar: Array, precession: Array, polarization: Array) -> tuple[Array, Array]:
    """Return how each mode counts in h+ + i hx and in h+ - i hx, two arrays `(5,)`."""
    turn = jnp.exp(2j * polarization)
    turns = [jnp.exp(1j * m * precession) for m in ORDERS]
    left = [e * SpinWeightedY(polar, 0.0, -2, 2, m) for m, e in zip(ORDERS, turns, strict=True)]
    right = [
        (-1) ** m * e * SpinWeightedY(polar, 0.0, -2, 2, -m)
        for m, e in zip(ORDERS, turns, strict=True)
    ]
    return jnp.conj(turn) * jnp.stack(left), turn * jnp.stack(right)


def hertz(mf: Array) -> Array:
    """Return frequencies of M f at `MASS`."""
    return mf / (MASS * SUN)


def _double(a: Array) -> Array:
    return jnp.asarray(np.asarray(a, np.float64))
