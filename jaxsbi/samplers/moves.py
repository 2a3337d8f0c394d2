"""Hamiltonian moves of many particles at once, for a density between the prior and the target."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.weights import log_normal

MAX_ENERGY_ERROR = 1000.0  # as NumPyro's and Stan's divergences


class Cloud(NamedTuple):
    """Particles `(n, d)`, the log-density `(n,)` at each, and its gradient `(n, d)`."""

    z: Array
    log_density: Array
    gradient: Array


def cloud(log_density: LogDensity, z: Array) -> Cloud:
    """Return particles with their log-densities and gradients, 0 where these are not finite.

    A move along any function of the position is reversible and keeps volumes: the gradient only
    makes it likely to be accepted.
    """
    value, gradient = jax.vmap(jax.value_and_grad(log_density))(z)
    return Cloud(z, value, jnp.where(jnp.isfinite(gradient), gradient, 0.0))


def move(
    key: Key,
    log_density: LogDensity,
    particles: Cloud,
    temperature: Array,
    factor: Array,
    step: Array,
    leapfrog_steps: int,
) -> tuple[Cloud, Array, Array]:
    """Move each particle along one Hamiltonian trajectory, and accept or reject where it ends.

    Leaves N(z; 0, I)^(1 - t) exp(t log_density(z)) as it is, for the inverse temperature t.

    Args:
        key: A typed key.
        log_density: The log-density of the target, of one point.
        particles: Where the particles are.
        temperature: The inverse temperature, a scalar.
        factor: A factor of the particles' covariance `(d, d)`: momenta are normal in the
            coordinates in which it is the identity.
        step: Step size in these coordinates; each particle takes a tenth of it to half as much
            again.
        leapfrog_steps: Gradients per trajectory.

    Returns:
        The particles, their acceptance probabilities `(n,)`, and whether they diverged `(n,)`.
    """
    key_momentum, key_step, key_accept = jax.random.split(key, 3)
    n = particles.z.shape[0]
    momentum = jax.random.normal(key_momentum, particles.z.shape)
    # One size would bring whole orbits of a Gaussian back to their start; funnels need all sizes.
    size = step * jax.random.uniform(key_step, (n, 1), minval=0.1, maxval=1.5)

    def tempered(at: Cloud) -> Array:
        return temperature * at.log_density + (1.0 - temperature) * log_normal(at.z)

    def kick(momentum: Array, at: Cloud) -> Array:
        gradient = temperature * at.gradient - (1.0 - temperature) * at.z
        return momentum + 0.5 * size * (gradient @ factor)

    def leap(carry: tuple[Cloud, Array], _: None) -> tuple[tuple[Cloud, Array], None]:
        at, momentum = carry
        momentum = kick(momentum, at)
        at = cloud(log_density, at.z + size * (momentum @ factor.T))
        return (at, kick(momentum, at)), None

    (proposed, end), _ = jax.lax.scan(leap, (particles, momentum), None, leapfrog_steps)
    gain = tempered(proposed) - tempered(particles)
    gain = gain + 0.5 * jnp.sum(momentum**2 - end**2, -1)
    finite = jnp.isfinite(proposed.log_density) & ~jnp.isnan(gain)
    gain = jnp.where(finite, gain, -jnp.inf)
    accept = jnp.exp(jnp.minimum(gain, 0.0))
    taken = jax.random.uniform(key_accept, (n,)) < accept
    moved = Cloud(
        *(
            jnp.where(taken.reshape(n, *(1,) * (a.ndim - 1)), a, b)
            for a, b in zip(proposed, particles, strict=True)
        )
    )
    return moved, accept, gain < -MAX_ENERGY_ERROR
