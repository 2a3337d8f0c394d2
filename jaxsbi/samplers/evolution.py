"""Moves without gradients: differential evolution, with jumps, crossover and a fitted Student t."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers import student
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.moves import Cloud, Moved, accept, tempered

_OPTIMAL = 2.38  # times the square root of 1 / (2 d), of differences (ter Braak 2006)
_SCATTER = 0.3  # of the logarithm of that scale
_JUMPS = 0.2  # of the differences are taken whole: they lead from mode to mode
_FITTED = 0.4  # of the moves follow the Student t


@configuration
class Evolution:
    """Differential evolution in two halves (ter Braak 2006; Vrugt et al. 2009, DREAM).

    A particle of one half moves along the difference of two of the other half: scaled, for the
    shape of a mode; whole, from mode to mode; and in a random choice of coordinates ("crossover"),
    which finds modes that differ in some only. Four moves in ten turn a random angle on an ellipse
    of a Student t fitted to the other half instead: where the posterior is close to normal these
    are almost independent draws, in any number of dimensions that the half can tell apart.
    """

    def moves(self, dim: int) -> tuple[int, int]:
        """Return the fewest moves at a temperature, and those between draws that are kept."""
        return 2 * dim, max(dim, 3)

    def cloud(self, log_density: LogDensity, z: Array) -> Cloud:
        """Return particles with their log-densities."""
        return Cloud(z, jax.vmap(log_density)(z))

    def tune(self, z: Array, tuning: tuple[()] | None = None) -> tuple[()]:
        """Return nothing: the other half is what a move needs to know."""
        return ()

    def move(
        self,
        key: Key,
        log_density: LogDensity,
        particles: Cloud,
        temperature: Array,
        tuning: tuple[()],
    ) -> Moved:
        """Move one half by the other, then the other by the first."""
        half = particles.z.shape[0] // 2

        def turn(carry: tuple[Cloud, Cloud], i: Array) -> tuple[tuple[Cloud, Cloud], Array]:
            moving, other = carry
            # Folded, not scanned over: JAX's checker takes nested scans of keys for reuse.
            key_propose, key_accept = jax.random.split(jax.random.fold_in(key, i))
            z, correction = _propose(key_propose, moving.z, other.z)
            proposed = self.cloud(log_density, z)
            gain = tempered(proposed, temperature) - tempered(moving, temperature) + correction
            moved, probability = accept(key_accept, proposed, moving, gain)
            return (other, moved), jnp.mean(probability)

        first: Cloud = jax.tree.map(lambda a: a[:half], particles)
        second: Cloud = jax.tree.map(lambda a: a[half:], particles)
        parts, rate = jax.lax.scan(turn, (first, second), jnp.arange(2))
        moved: Cloud = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)
        return Moved(moved, jnp.mean(rate), jnp.array(0), tuning)


def _propose(key: Key, z: Array, other: Array) -> tuple[Array, Array]:
    """Return proposals for `z` `(n, d)`, and what corrects their acceptance `(n,)`."""
    key_difference, key_turn, key_choice = jax.random.split(key, 3)
    turned, correction = _turn(key_turn, z, other)
    fitted = jax.random.uniform(key_choice, z.shape[:1]) < _FITTED
    z = jnp.where(fitted[:, None], turned, z + _difference(key_difference, z, other))
    return z, jnp.where(fitted, correction, 0.0)


def _difference(key: Key, z: Array, other: Array) -> Array:
    """Return steps `(n, d)` along differences of two others, in some coordinates."""
    n, dim = z.shape
    keys = jax.random.split(key, 6)
    first = jax.random.randint(keys[0], (n,), 0, n)
    second = (first + jax.random.randint(keys[1], (n,), 1, n)) % n
    # Each coordinate takes part with a probability that is itself random; one always does.
    chance = jax.random.uniform(keys[2], (n, 1))
    number = jax.random.uniform(keys[3], (n, dim))
    part = number <= jnp.maximum(chance, jnp.min(number, 1, keepdims=True))
    count = jnp.sum(part, 1, keepdims=True)
    scatter = jnp.exp(_SCATTER * jax.random.normal(keys[4], (n, 1)))
    whole = jax.random.uniform(keys[5], (n, 1)) < _JUMPS
    scale = jnp.where(whole, 1.0, _OPTIMAL / jnp.sqrt(2.0 * count) * scatter)
    return jnp.where(part, scale * (other[first] - other[second]), 0.0)


def _turn(key: Key, z: Array, other: Array) -> tuple[Array, Array]:
    """Return each point turned on an ellipse of a Student t fitted to the others, and log q ratios.

    The turn leaves the Student t as it is: what is accepted must only be corrected for it.
    """
    key_width, key_angle, key_normal = jax.random.split(key, 3)
    fit = student.fit_to(other)
    here = jax.vmap(fit.standardize)(z)
    angle = jax.random.uniform(key_angle, (z.shape[0], 1), maxval=math.pi)
    opposite = student.opposite(key_width, key_normal, here)
    there = here * jnp.cos(angle) + opposite * jnp.sin(angle)
    return jax.vmap(fit.restore)(there), student.log_prob(here) - student.log_prob(there)
