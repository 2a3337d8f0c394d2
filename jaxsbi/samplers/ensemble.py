"""An affine-invariant ensemble of walkers, moved by differences of other walkers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers.chains import LogDensity, kept_steps, report, resampled_start, traced_once
from jaxsbi.samplers.convergence import ChainInfo

_JUMP = 0.1  # how often a walker tries a whole difference, which can lead to another mode
_SPREAD = 1e-5  # of the length of a difference, so that walkers leave the lattice they span


@configuration
class Ensemble:
    """Differential evolution of walkers (ter Braak 2006; Nelson et al. 2014, arXiv:1311.5229).

    No gradients and nothing to tune. Half of the walkers moves at a time, along differences of two
    walkers of the other half (Foreman-Mackey et al. 2013, arXiv:1202.3665), so that correlations
    cost nothing; a tenth of the moves takes a whole difference and can change between modes.

    Attributes:
        walkers: Walkers, an even number and at least four for each dimension.
        warmup: Steps of each walker that are not kept.
        thin: Steps for each one that is kept.
        candidates: Latent prior draws from which the walkers' starts are resampled.
    """

    walkers: int = 100
    warmup: int = 300
    thin: int = 10
    candidates: int = 4096

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If walkers are few or odd, or a number of steps is out of its range.
        """
        even = self.walkers >= 4 and self.walkers % 2 == 0
        if not even or self.warmup < 0 or self.thin < 1:
            raise ValueError(
                "ensemble: expected an even number of walkers >= 4, warmup >= 0 and thin >= 1, "
                f"got walkers={self.walkers}, warmup={self.warmup}, thin={self.thin}."
            )

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, ChainInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised log-density on the latent space.
            dim: The number of dimensions.
            n: The number of draws; of `max(n, 100 * walkers)` in all, a random choice is returned.

        Returns:
            Draws of shape `(n, dim)`, and the walkers' report.

        Raises:
            ValueError: If there are fewer than four walkers for each dimension, whose differences
                would not span the space well.
        """
        if self.walkers < 4 * dim:
            raise ValueError(
                f"ensemble: expected at least {4 * dim} walkers in {dim} dimensions, got "
                f"{self.walkers}. Raise walkers, or use a sampler with gradients (nuts)."
            )
        log_density = traced_once(log_density)
        key_start, key_steps, key_order = jax.random.split(key, 3)
        z = resampled_start(key_start, log_density, dim, self.walkers, self.candidates)
        state = (z, _finite(jax.vmap(log_density)(z)))

        def kept(state: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], tuple]:
            state, accept = _sweeps(key, log_density, state, self.thin)
            return state, (*state, accept)

        # Warm-up in the same loop as the rest: the sweep is compiled once.
        warmup = -(-self.warmup // self.thin)
        keys = jax.random.split(key_steps, warmup + kept_steps(self.walkers, n))
        _, trace = jax.lax.scan(kept, state, keys)
        z, value, accept = jax.tree.map(lambda a: a[warmup:], trace)
        return report(
            key_order,
            jnp.swapaxes(z, 0, 1),
            value.T,
            n,
            divergences=jnp.array(0),
            acceptance=jnp.mean(accept),
        )


def _sweeps(
    key: Key, log_density: LogDensity, state: tuple[Array, Array], sweeps: int
) -> tuple[tuple[Array, Array], Array]:
    """Move one half of the walkers by the other, then the other way round; so many times."""
    half = state[0].shape[0] // 2

    def one(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        z, value = carry
        # Keys are folded, not scanned over: JAX's checker takes nested scans of keys for reuse.
        key_half = jax.random.fold_in(key, i)
        moved, new, accept = _half(key_half, log_density, z[:half], value[:half], z[half:])
        # The halves change places, so that two of these are a sweep, and the order is as before.
        return (jnp.concatenate([z[half:], moved]), jnp.concatenate([value[half:], new])), accept

    state, accept = jax.lax.scan(one, state, jnp.arange(2 * sweeps))
    return state, jnp.mean(accept)


def _half(
    key: Key, log_density: LogDensity, z: Array, value: Array, others: Array
) -> tuple[Array, Array, Array]:
    key_pair, key_length, key_jump, key_accept = jax.random.split(key, 4)
    n, dim = z.shape
    first, apart = jax.random.randint(
        key_pair, (2, n), jnp.array([[0], [1]]), jnp.array([[n], [n]])
    )
    difference = others[first] - others[(first + apart) % n]
    length = jnp.where(
        jax.random.bernoulli(key_jump, _JUMP, (n, 1)), 1.0, 2.38 / math.sqrt(2.0 * dim)
    )
    length = length * (1.0 + _SPREAD * jax.random.normal(key_length, (n, 1)))
    proposed = z + length * difference
    new = _finite(jax.vmap(log_density)(proposed))
    # Two infinities have no difference; a walker that starts at one takes any finite point.
    gain = jnp.where(jnp.isfinite(new), new - value, -jnp.inf)
    accept = jnp.exp(jnp.minimum(gain, 0.0))
    taken = jax.random.uniform(key_accept, (n,)) < accept
    return jnp.where(taken[:, None], proposed, z), jnp.where(taken, new, value), jnp.mean(accept)


def _finite(value: Array) -> Array:
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)


def ensemble(*, walkers: int = 100, warmup: int = 300, thin: int = 10) -> Ensemble:
    """Return the configuration of the ensemble of walkers.

    Args:
        walkers: Walkers, an even number and at least four for each dimension.
        warmup: Steps of each walker that are not kept.
        thin: Steps for each one that is kept.

    Raises:
        ValueError: If walkers are few or odd, or a number of steps is out of its range.
    """
    return Ensemble(walkers=walkers, warmup=warmup, thin=thin)
