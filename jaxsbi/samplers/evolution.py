"""Moves without gradients: differential evolution, and jumps by a mixture fitted to particles."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers import mixture
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.mixture import Mixture
from jaxsbi.samplers.moves import Cloud, Moved, accept, tempered

_OPTIMAL = 2.38  # times the square root of 1 / (2 d), of differences (ter Braak 2006)
_SCATTER = 0.3  # of the logarithm of that scale
_WHOLE = 0.2  # of the differences are taken whole: they lead from mode to mode
_JUMPS = 0.7  # of the moves are drawn from the mixture


@configuration
class Evolution:
    """Differential evolution in two halves (ter Braak 2006; Vrugt et al. 2009, DREAM), and jumps.

    Seven particles in ten of one half propose a draw of a mixture of Student t's fitted to the
    other half, in which every mode and every part of a bend can have a component: what is accepted
    does not depend on where the particle was. The others move along the difference of two of the
    other half: scaled, for the shape of a mode; whole, from mode to mode; and in a random choice
    of coordinates ("crossover"), which finds modes that differ in some only.
    """

    def cloud(self, log_density: LogDensity, z: Array) -> Cloud:
        """Return particles with their log-densities."""
        return Cloud(z, jax.vmap(log_density)(z))

    def tune(self, z: Array, tuning: Mixture | None = None) -> Mixture:
        """Return the mixtures that the two halves are moved by, each fitted to the other one."""
        half = z.shape[0] // 2
        return tuning or jax.vmap(mixture.first_mixture)(jnp.stack([z[half:], z[:half]]))

    def move(
        self,
        key: Key,
        log_density: LogDensity,
        particles: Cloud,
        temperature: Array,
        tuning: Mixture,
    ) -> Moved:
        """Move one half by the other, then the other by the first."""
        half = particles.z.shape[0] // 2

        def turn(
            carry: tuple[Cloud, Cloud], step: tuple[Array, Mixture]
        ) -> tuple[tuple[Cloud, Cloud], tuple[Array, Mixture]]:
            (moving, other), (i, fitted) = carry, step
            # Folded, not scanned over: JAX's checker takes nested scans of keys for reuse.
            key_propose, key_accept = jax.random.split(jax.random.fold_in(key, i))
            fitted = mixture.improved(fitted, other.z)
            z, correction = _propose(key_propose, moving.z, other.z, fitted)
            proposed = self.cloud(log_density, z)
            gain = tempered(proposed, temperature) - tempered(moving, temperature) + correction
            moved, probability = accept(key_accept, proposed, moving, gain)
            return (other, moved), (jnp.mean(probability), fitted)

        first: Cloud = jax.tree.map(lambda a: a[:half], particles)
        second: Cloud = jax.tree.map(lambda a: a[half:], particles)
        parts, (rate, tuning) = jax.lax.scan(turn, (first, second), (jnp.arange(2), tuning))
        moved: Cloud = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)
        return Moved(moved, jnp.mean(rate), jnp.array(0), tuning)


def _propose(key: Key, z: Array, other: Array, fitted: Mixture) -> tuple[Array, Array]:
    """Return proposals for `z` `(n, d)`, and what corrects their acceptance `(n,)`."""
    key_roll, key_jump, key_difference = jax.random.split(key, 3)
    n = z.shape[0]
    jumps = round(_JUMPS * n)
    # Any particle's turn for either: particles lie in the order of their ancestors.
    start = jax.random.randint(key_roll, (), 0, n)
    z = jnp.roll(z, start, 0)
    there = mixture.sample(key_jump, fitted, jumps)
    both = mixture.log_prob(fitted, jnp.concatenate([z[:jumps], there]))
    differences = _difference(key_difference, n - jumps, other)
    correction = jnp.concatenate([both[:jumps] - both[jumps:], jnp.zeros(n - jumps, z.dtype)])
    proposed = jnp.concatenate([there, z[jumps:] + differences])
    return jnp.roll(proposed, -start, 0), jnp.roll(correction, -start)


def _difference(key: Key, n: int, other: Array) -> Array:
    """Return steps `(n, d)` along differences of two others, in some coordinates."""
    size, dim = other.shape
    keys = jax.random.split(key, 6)
    first = jax.random.randint(keys[0], (n,), 0, size)
    second = (first + jax.random.randint(keys[1], (n,), 1, size)) % size
    # Each coordinate takes part with a probability that is itself random; one always does.
    chance = jax.random.uniform(keys[2], (n, 1))
    number = jax.random.uniform(keys[3], (n, dim))
    part = number <= jnp.maximum(chance, jnp.min(number, 1, keepdims=True))
    count = jnp.sum(part, 1, keepdims=True)
    scatter = jnp.exp(_SCATTER * jax.random.normal(keys[4], (n, 1)))
    whole = jax.random.uniform(keys[5], (n, 1)) < _WHOLE
    scale = jnp.where(whole, 1.0, _OPTIMAL / jnp.sqrt(2.0 * count) * scatter)
    return jnp.where(part, scale * (other[first] - other[second]), 0.0)
