"""How sequential Monte Carlo moves its particles: kernels.

A kernel leaves N(z; 0, I)^(1 - t) exp(t log_density(z)) as it is, for the inverse temperature t.
It has

- `cloud(log_density, z)`: particles `(n, d)` with what the kernel knows at each;
- `tune(z, tuning)`: what moves need to know, from where particles start and from moves before;
- `move(key, log_density, particles, temperature, tuning)`: one move of all of them.

The particles are those of all populations: a population is moved with the help of the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.weights import covariance_factor, log_normal

MAX_ENERGY_ERROR = 1000.0  # as NumPyro's and Stan's divergences
_STEP = 0.5  # that step sizes are adapted from


class Cloud(NamedTuple):
    """Particles `(n, d)`, the log-density `(n,)` at each, and its gradient `(n, d)` if needed."""

    z: Array
    log_density: Array
    gradient: Any = None


class Moved(NamedTuple):
    """Particles after a move, its mean acceptance, how many diverged, and the adapted tuning."""

    cloud: Cloud
    acceptance: Array
    diverging: Array
    tuning: Any


class Tuning(NamedTuple):
    """A factor of the particles' covariance `(d, d)`, in whose coordinates momenta are normal."""

    factor: Array
    log_step: Array


def tempered(particles: Cloud, temperature: Array) -> Array:
    """Return the log-density between prior and target of each particle, `(n,)`."""
    prior = (1.0 - temperature) * log_normal(particles.z)
    return temperature * particles.log_density + prior


def accept(key: Key, proposed: Cloud, particles: Cloud, gain: Array) -> tuple[Cloud, Array]:
    """Take proposals with probability min(1, exp(gain)), never where the density is not finite.

    Returns:
        The particles, and the acceptance probabilities `(n,)`.
    """
    n = gain.shape[0]
    finite = jnp.isfinite(proposed.log_density) & ~jnp.isnan(gain)
    probability = jnp.where(finite, jnp.exp(jnp.minimum(gain, 0.0)), 0.0)
    taken = jax.random.uniform(key, (n,)) < probability

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(taken.reshape(n, *(1,) * (a.ndim - 1)), a, b)

    moved: Cloud = jax.tree.map(choose, proposed, particles)
    return moved, probability


@configuration
class Hamiltonian:
    """Hamiltonian trajectories, scaled by the particles' covariance.

    Attributes:
        leapfrog_steps: Gradients per move.
        target_acceptance: Acceptance probability the step size is adapted to.
    """

    leapfrog_steps: int = 3
    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If a number is out of its range.
        """
        if self.leapfrog_steps < 1 or not 0.0 < self.target_acceptance < 1.0:
            raise ValueError(
                "Hamiltonian: expected leapfrog_steps >= 1 and target_acceptance between 0 and 1, "
                f"got {self.leapfrog_steps} and {self.target_acceptance}."
            )

    def cloud(self, log_density: LogDensity, z: Array) -> Cloud:
        """Return particles with log-densities and gradients, 0 where these are not finite.

        A move along any function of the position is reversible and keeps volumes: the gradient only
        makes it likely to be accepted.
        """
        value, gradient = jax.vmap(jax.value_and_grad(log_density))(z)
        return Cloud(z, value, jnp.where(jnp.isfinite(gradient), gradient, 0.0))

    def tune(self, z: Array, tuning: Tuning | None = None) -> Tuning:
        """Return the particles' covariance, and the step size so far."""
        log_step = jnp.log(jnp.asarray(_STEP, z.dtype)) if tuning is None else tuning.log_step
        return Tuning(covariance_factor(z), log_step)

    def move(
        self,
        key: Key,
        log_density: LogDensity,
        particles: Cloud,
        temperature: Array,
        tuning: Tuning,
    ) -> Moved:
        """Move each particle along one trajectory, and accept or reject where it ends."""
        key_momentum, key_step, key_accept = jax.random.split(key, 3)
        n = particles.z.shape[0]
        momentum = jax.random.normal(key_momentum, particles.z.shape)
        # One size would bring whole orbits of a Gaussian back to their start; funnels need all.
        size = jnp.exp(tuning.log_step) * jax.random.uniform(
            key_step, (n, 1), minval=0.1, maxval=1.5
        )

        def kick(momentum: Array, at: Cloud) -> Array:
            gradient = temperature * at.gradient - (1.0 - temperature) * at.z
            return momentum + 0.5 * size * (gradient @ tuning.factor)

        def leap(carry: tuple[Cloud, Array], _: None) -> tuple[tuple[Cloud, Array], None]:
            at, momentum = carry
            momentum = kick(momentum, at)
            at = self.cloud(log_density, at.z + size * (momentum @ tuning.factor.T))
            return (at, kick(momentum, at)), None

        (proposed, end), _ = jax.lax.scan(leap, (particles, momentum), None, self.leapfrog_steps)
        gain = tempered(proposed, temperature) - tempered(particles, temperature)
        gain = gain + 0.5 * jnp.sum(momentum**2 - end**2, -1)
        moved, probability = accept(key_accept, proposed, particles, gain)
        rate = jnp.mean(probability)
        diverging = jnp.sum(~(gain >= -MAX_ENERGY_ERROR))
        # One number for all particles has little noise: the steps towards it are large.
        log_step = tuning.log_step + (rate - self.target_acceptance)
        return Moved(moved, rate, diverging, tuning._replace(log_step=log_step))
