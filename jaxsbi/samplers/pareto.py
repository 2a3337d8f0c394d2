"""The tail of importance weights: a generalised Pareto distribution, fitted."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Array

_LEAST = 1e-6  # of the largest excess


def pareto_k(log_weights: Array) -> Array:
    """Return the shape k of the upper tail of importance weights, a scalar.

    Sources: Vehtari, Simpson, Gelman, Yao & Gabry 2015, arXiv:1507.02646 (how much of the tail, and
    the prior on k); Zhang & Stephens 2009, Technometrics 51, 316 (the fit).

    Args:
        log_weights: Shape `(n,)`, not normalised; -inf is a weight of zero.

    Returns:
        k: weights have 1/k finite moments. NaN with fewer than 25 draws; -inf if the largest
        weights are equal, inf if there are too few that are not zero.
    """
    n = log_weights.shape[0]
    size = int(min(0.2 * n, 3.0 * n**0.5))
    if size < 5:
        return jnp.full((), jnp.nan, log_weights.dtype)
    ordered, _ = jax.lax.top_k(log_weights, size + 1)
    peak = jnp.where(jnp.isfinite(ordered[0]), ordered[0], 0.0)
    cut = jnp.exp(ordered[-1] - peak)
    excess = (jnp.exp(ordered[:-1] - peak) - cut)[::-1]
    few, equal = cut <= 0, excess[-1] <= 0
    k = _fit(jnp.where(few | equal, jnp.linspace(0.1, 1.0, size, dtype=excess.dtype), excess))
    return jnp.where(few, jnp.inf, jnp.where(equal, -jnp.inf, k))


def _fit(excess: Array) -> Array:
    """Return k of a generalised Pareto distribution from sorted excesses; the last is positive."""
    size = excess.shape[0]
    grid = 30 + int(size**0.5)
    # Large log-weights have few digits, so that some excesses are equal, and those at the cut 0.
    quartile = jnp.maximum(excess[int(size / 4 + 0.5) - 1], _LEAST * excess[-1])
    positions = 1.0 - jnp.sqrt(grid / (jnp.arange(1, grid + 1) - 0.5))
    scale = positions / (3.0 * quartile) + 1.0 / excess[-1]
    shapes = jnp.mean(jnp.log1p(-scale[:, None] * excess[None, :]), axis=1)
    profile = size * (jnp.log(-scale / shapes) - shapes - 1.0)
    weights = jax.nn.softmax(profile)
    k = jnp.mean(jnp.log1p(-jnp.sum(weights * scale) * excess))
    # Ten draws' worth of k = 1/2, so that short tails do not scatter.
    return (size * k + 10 * 0.5) / (size + 10)
