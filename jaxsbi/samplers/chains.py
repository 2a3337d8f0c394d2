"""What all samplers that run many chains side by side share: their starts, and their report."""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxsbi.base import Array, Key
from jaxsbi.samplers.convergence import ChainInfo, chain_statistics
from jaxsbi.samplers.weights import finite_log_ratio, normalized, systematic

# R-hat of chains that have converged is about 1 + 1/(2 n) of the n effective draws in half a chain:
# shorter chains than this would read as stuck when they are only short.
MIN_STEPS = 100

LogDensity = Callable[[Array], Array]


def traced_once(log_density: LogDensity) -> LogDensity:
    """Return the same function, traced once and not at each use; XLA inlines it."""
    # The function itself may be an object that `jax.jit` cannot hash.
    return jax.jit(lambda z: log_density(z))


def kept_steps(chains: int, n: int) -> int:
    """Return how many states each chain keeps so that there are `n`, and enough to judge them."""
    return max(-(-n // chains), MIN_STEPS)


def resampled_start(
    key: Key, log_density: LogDensity, dim: int, chains: int, candidates: int
) -> Array:
    """Return starting points, resampled from N(0, I) draws in proportion to the density.

    With many chains the starts already carry the weights of separated modes, which chains alone
    could not exchange. Where the density is nowhere finite, the starts are the prior's. There are
    at least as many candidates as chains.
    """
    key_draw, key_pick = jax.random.split(key)
    z = jax.random.normal(key_draw, (max(candidates, chains), dim))
    weight = normalized(finite_log_ratio(z, jax.vmap(log_density)(z)))
    return z[systematic(key_pick, weight, chains)]


def report(
    key: Key, z: Array, log_density: Array, n: int, *, divergences: Array, acceptance: Array
) -> tuple[Array, ChainInfo]:
    """Return `n` of the chains' states in random order, and what the chains say of themselves.

    Args:
        key: A typed key.
        z: States, shape `(chains, steps, d)`.
        log_density: Their log-densities, shape `(chains, steps)`.
        n: How many to return, at most `chains * steps`.
        divergences: Number of divergent transitions, a scalar.
        acceptance: Mean acceptance probability, a scalar.
    """
    r_hat, bulk, tail = chain_statistics(z)
    flat = z.reshape(-1, z.shape[-1])
    order = jax.random.permutation(key, flat.shape[0])[:n]
    info = ChainInfo(r_hat, bulk, tail, divergences, acceptance, log_density.reshape(-1)[order])
    return flat[order], info
