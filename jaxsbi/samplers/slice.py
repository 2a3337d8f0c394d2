"""Generalised elliptical slice sampling in many vectorised chains."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers import student
from jaxsbi.samplers.chains import LogDensity, kept_steps, report, resampled_start, traced_once
from jaxsbi.samplers.convergence import ChainInfo
from jaxsbi.samplers.student import Fit, fit_to


@configuration
class Slice:
    """Generalised elliptical slice sampling (Nishihara, Murray & Adams 2014, arXiv:1210.7477).

    No gradients and no step size: each step draws an ellipse through the chain's state and shrinks
    an arc of it until a point lies under the density (Murray et al. 2010, arXiv:1001.0175). The
    ellipses belong to a Student t that is fitted to all chains during warm-up, then fixed: with
    those of N(0, I), narrow posteriors would be explored in small steps.

    Attributes:
        chains: Chains run side by side.
        warmup: Steps of each chain that fit the Student t and are not kept.
        thin: Steps for each one that is kept.
        shrinks: Points tried on an ellipse, at most; then the chain stays where it is.
        candidates: Latent prior draws from which the chains' starts are resampled.
    """

    chains: int = 100
    warmup: int = 100
    thin: int = 2
    shrinks: int = 30
    candidates: int = 4096

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there are fewer than 2 chains, or a number of steps is out of its range.
        """
        counts = (self.warmup, self.thin, self.shrinks)
        if self.chains < 2 or min(counts) < 1:
            raise ValueError(
                "slice: expected chains >= 2, warmup, thin and shrinks >= 1, got "
                f"chains={self.chains}, warmup={self.warmup}, thin={self.thin}, "
                f"shrinks={self.shrinks}."
            )

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, ChainInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised log-density on the latent space.
            dim: The number of dimensions.
            n: The number of draws; of `max(n, 100 * chains)` in all, a random choice is returned.

        Returns:
            Draws of shape `(n, dim)`, and the chains' report; `acceptance` is the mean share of the
            points tried that was taken.
        """
        log_density = traced_once(log_density)
        key_start, key_steps, key_order = jax.random.split(key, 3)
        z = resampled_start(key_start, log_density, dim, self.chains, self.candidates)
        start = (z, jax.vmap(log_density)(z), fit_to(z))
        warmup = -(-self.warmup // self.thin)
        rounds = warmup + kept_steps(self.chains, n)

        def kept(state: tuple, this: tuple[Key, Array]) -> tuple[tuple, tuple]:
            key, fitting = this
            z, value, fit = state

            def step(carry: tuple, i: Array) -> tuple[tuple, Array]:
                # Folded, not scanned over: JAX's checker takes nested scans of keys for reuse.
                keys = jax.random.split(jax.random.fold_in(key, i), self.chains)
                z, value, tried = jax.vmap(
                    lambda k, z, v: ellipse(k, log_density, z, v, fit, self.shrinks)
                )(keys, *carry)
                return (z, value), jnp.mean(1.0 / tried)

            (z, value), taken = jax.lax.scan(step, (z, value), jnp.arange(self.thin))
            fit = jax.tree.map(lambda a, b: jnp.where(fitting, a, b), fit_to(z), fit)
            return (z, value, fit), (z, value, jnp.mean(taken))

        # Warm-up in the same loop as the rest: the step is compiled once.
        xs = (jax.random.split(key_steps, rounds), jnp.arange(rounds) < warmup)
        _, trace = jax.lax.scan(kept, start, xs)
        z, value, taken = jax.tree.map(lambda a: a[warmup:], trace)
        return report(
            key_order,
            jnp.swapaxes(z, 0, 1),
            value.T,
            n,
            divergences=jnp.array(0),
            acceptance=jnp.mean(taken),
        )


def ellipse(
    key: Key, log_density: LogDensity, z: Array, value: Array, fit: Fit, shrinks: int
) -> tuple[Array, Array, Array]:
    """Take one step of one chain.

    Args:
        key: A typed key.
        log_density: The log-density of one point.
        z: The chain's state, shape `(d,)`.
        value: The log-density there.
        fit: The Student t that ellipses are drawn from.
        shrinks: Points tried, at most.

    Returns:
        The new state, its log-density, and how many points were tried.
    """
    key_scale, key_normal, key_height, key_angle, key_shrink = jax.random.split(key, 5)
    here = fit.standardize(z)
    other = student.opposite(key_scale, key_normal, here)

    def ratio(u: Array, value: Array) -> Array:
        return jnp.where(jnp.isfinite(value), value - student.log_prob(u), -jnp.inf)

    height = ratio(here, value) - jax.random.exponential(key_height)
    angle = jax.random.uniform(key_angle, maxval=2.0 * math.pi)

    def at(angle: Array) -> tuple[Array, Array, Array]:
        u = here * jnp.cos(angle) + other * jnp.sin(angle)
        new = fit.restore(u)
        value = log_density(new)
        return new, value, ratio(u, value) > height

    def going(state: tuple) -> Array:
        return ~state[-1] & (state[0] < shrinks)

    def shrink(state: tuple) -> tuple:
        tried, low, high, angle, *_ = state
        low, high = jnp.where(angle < 0.0, angle, low), jnp.where(angle < 0.0, high, angle)
        key = jax.random.fold_in(key_shrink, tried)
        angle = low + (high - low) * jax.random.uniform(key)
        return (tried + 1, low, high, angle, *at(angle))

    start = (jnp.array(1), angle - 2.0 * math.pi, angle, angle, *at(angle))
    tried, _, _, _, new, new_value, taken = jax.lax.while_loop(going, shrink, start)
    return jnp.where(taken, new, z), jnp.where(taken, new_value, value), tried


def slice(*, chains: int = 100, warmup: int = 100, thin: int = 2, shrinks: int = 30) -> Slice:
    """Return the configuration of elliptical slice sampling.

    Args:
        chains: Chains run side by side.
        warmup: Steps of each chain that are not kept.
        thin: Steps for each one that is kept.
        shrinks: Points tried in each step, at most.

    Raises:
        ValueError: If there are fewer than 2 chains, or a number of steps is out of its range.
    """
    return Slice(chains=chains, warmup=warmup, thin=thin, shrinks=shrinks)
