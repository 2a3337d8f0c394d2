"""Sets of points: weights against the latent prior, resampling, evidence, and covariance."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxsbi.base import Array, Key
from jaxsbi.latent import log_normal_density


def log_normal(z: Array) -> Array:
    """Return log N(z; 0, I) over the last axis, the log-density of the latent prior."""
    return jnp.sum(log_normal_density(z), -1)


def finite_log_ratio(z: Array, log_density: Array) -> Array:
    """Return log_density - log N(z; 0, I), and -inf where it is NaN or infinite.

    A learned density may give NaN far from its training data: such a point has no weight.
    """
    ratio = log_density - log_normal(z)
    return jnp.where(jnp.isfinite(ratio), ratio, -jnp.inf)


def systematic(key: Key, weight: Array, n: int) -> Array:
    """Return `n` indices, in order, drawn in proportion to normalised weights.

    Systematic resampling spreads the draws more evenly than independent picks: an index of weight
    w comes floor(n w) or ceil(n w) times.
    """
    return spread(jax.random.uniform(key), weight, n)


def spread(offset: Array, weight: Array, n: int) -> Array:
    """Return the indices of systematic resampling, given its one number from 0 to 1."""
    grid = (jnp.arange(n) + offset) / n
    total = jnp.cumsum(weight)
    # The sum ends beside 1 by rounding: without the division the last index would get the rest.
    return jnp.clip(jnp.searchsorted(total / total[-1], grid), 0, weight.shape[0] - 1)


def effective_size(log_weight: Array) -> Array:
    """Return Kish's effective sample size of unnormalised log-weights; 0 if all are -inf."""
    shifted = log_weight - jnp.max(log_weight)
    size = jnp.exp(2.0 * logsumexp(shifted) - logsumexp(2.0 * shifted))
    return jnp.where(jnp.isfinite(jnp.max(log_weight)), size, 0.0)


def log_mean_and_error(log_weight: Array) -> tuple[Array, Array]:
    """Return the log of the mean of independent exp(log_weight), and its standard error.

    The error is the relative standard error of the mean (the delta method); infinite where every
    weight is zero.
    """
    n = log_weight.shape[0]
    top = jnp.max(log_weight)
    some = jnp.isfinite(top)
    weight = jnp.exp(log_weight - jnp.where(some, top, 0.0))
    mean = jnp.mean(weight)
    error = jnp.std(weight, ddof=1) / math.sqrt(n) / jnp.where(some, mean, 1.0)
    log_mean = jnp.log(jnp.where(some, mean, 1.0)) + top
    return jnp.where(some, log_mean, -jnp.inf), jnp.where(some, error, jnp.inf)


def covariance_factor(z: Array) -> Array:
    """Return a lower-triangular factor `(d, d)` of the covariance of points `(n, d)`."""
    n, dim = z.shape
    centred = z - jnp.mean(z, 0, keepdims=True)
    covariance = centred.T @ centred / n
    # Few points span less than the space: off the diagonal, as much is kept as n / (n + d).
    diagonal = jnp.diagonal(covariance)
    share = dim / (dim + n)
    jitter = 1e-6 * jnp.max(diagonal) + 1e-12
    return jnp.linalg.cholesky((1.0 - share) * covariance + jnp.diag(share * diagonal + jitter))
