"""NumPyro's NUTS kernel in many vectorised chains, started from resampled prior draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer.hmc import hmc

from jaxsbi.base import Array, Key, configuration
from jaxsbi.samplers.convergence import ChainInfo, chain_statistics

# R-hat of chains that have converged is about 1 + 1/(2 n) of the n effective draws in half a chain:
# shorter chains than this would read as stuck when they are only short.
MIN_STEPS = 100

LogDensity = Callable[[Array], Array]


@configuration
class NUTS:
    """The No-U-Turn sampler (Hoffman & Gelman 2014, arXiv:1111.4246), as NumPyro implements it.

    Attributes:
        chains: Chains run side by side.
        warmup: Steps of each chain that adapt step size and masses and are not kept.
        max_tree_depth: A step takes at most `2**max_tree_depth - 1` gradients.
        target_acceptance: Acceptance probability the step size is adapted to.
        candidates: Latent prior draws from which the chains' starts are resampled.
        dense_mass: Adapt a full mass matrix instead of a diagonal one.
    """

    chains: int = 100
    warmup: int = 100
    max_tree_depth: int = 3
    target_acceptance: float = 0.8
    candidates: int = 4096
    dense_mass: bool = False

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there are fewer than 2 chains, or the warm-up is too short to adapt.
        """
        if self.chains < 2 or self.warmup < 20 or self.candidates < self.chains:
            raise ValueError(
                "nuts: expected chains >= 2, warmup >= 20 and candidates >= chains, got "
                f"chains={self.chains}, warmup={self.warmup}, candidates={self.candidates}."
            )

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, ChainInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised log-density on the latent space, in which the prior is
                close to N(0, I).
            dim: The number of dimensions.
            n: The number of draws; of `max(n, 100 * chains)` in all, a random choice is returned.

        Returns:
            Draws of shape `(n, dim)`, and the chains' report.
        """
        # Traced once here instead of once per use in the kernel; XLA inlines it.
        log_density = jax.jit(log_density)
        key_start, key_chains, key_order = jax.random.split(key, 3)
        start = resampled_start(key_start, log_density, dim, self.chains, self.candidates)
        steps = max(-(-n // self.chains), MIN_STEPS)
        keys = jax.random.split(key_chains, self.chains)
        z, accept, diverging, energy = jax.vmap(
            lambda k, z0: self._chain(k, log_density, z0, steps)
        )(keys, start)
        r_hat, bulk, tail = chain_statistics(z)
        flat = z.reshape(-1, dim)
        order = jax.random.permutation(key_order, flat.shape[0])[:n]
        log_density_of = -energy.reshape(-1)
        info = ChainInfo(
            r_hat, bulk, tail, jnp.sum(diverging), jnp.mean(accept), log_density_of[order]
        )
        return flat[order], info

    def _chain(self, key: Key, log_density: LogDensity, z0: Array, steps: int) -> Any:
        init, kernel = hmc(potential_fn=lambda z: -log_density(z), algo="NUTS")
        state = init(
            z0,
            self.warmup,
            step_size=0.5,
            dense_mass=self.dense_mass,
            target_accept_prob=self.target_acceptance,
            max_tree_depth=self.max_tree_depth,
            rng_key=jax.random.key_data(key),  # NumPyro uses a typed key twice
        )

        def step(state: Any, _: None) -> tuple[Any, Any]:
            state = kernel(state)
            return state, (state.z, state.accept_prob, state.diverging, state.potential_energy)

        # One loop for warm-up and sampling: the kernel is compiled once, not twice.
        _, kept = jax.lax.scan(step, state, None, self.warmup + steps)
        return jax.tree.map(lambda a: a[self.warmup :], kept)


def resampled_start(
    key: Key, log_density: LogDensity, dim: int, chains: int, candidates: int
) -> Array:
    """Return starting points, resampled from N(0, I) draws in proportion to the density.

    With many chains the starts already carry the weights of separated modes, which chains alone
    could not exchange.
    """
    key_draw, key_pick = jax.random.split(key)
    z = jax.random.normal(key_draw, (candidates, dim))
    value = jax.vmap(log_density)(z)
    log_weight = jnp.where(jnp.isfinite(value), value + 0.5 * jnp.sum(z * z, -1), -jnp.inf)
    # Systematic resampling spreads the starts more evenly than independent picks.
    weight = jax.nn.softmax(log_weight)
    offset = jax.random.uniform(key_pick)
    grid = (jnp.arange(chains) + offset) / chains
    index = jnp.clip(jnp.searchsorted(jnp.cumsum(weight), grid), 0, candidates - 1)
    return z[index]


def nuts(
    *,
    chains: int = 100,
    warmup: int = 100,
    max_tree_depth: int = 3,
    target_acceptance: float = 0.8,
    dense_mass: bool = False,
) -> NUTS:
    """Return the configuration of NumPyro's NUTS kernel.

    Args:
        chains: Chains run side by side.
        warmup: Steps per chain that are not kept.
        max_tree_depth: A step takes at most `2**max_tree_depth - 1` gradients.
        target_acceptance: Acceptance probability the step size is adapted to.
        dense_mass: Adapt a full mass matrix, for strongly correlated posteriors.

    Raises:
        ValueError: If there are fewer than 2 chains, or the warm-up is too short to adapt.
    """
    return NUTS(
        chains=chains,
        warmup=warmup,
        max_tree_depth=max_tree_depth,
        target_acceptance=target_acceptance,
        dense_mass=dense_mass,
    )
