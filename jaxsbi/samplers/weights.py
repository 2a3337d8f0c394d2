"""Sets of points: weights against the latent prior, resampling, evidence, and covariance."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxsbi.base import Array, Key
from jaxsbi.latent import log_normal_density

SMALL = 16  # dimensions whose matrices are not given to LAPACK
_LEAST = 1e-12  # a variance


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


def normalized(log_weight: Array) -> Array:
    """Return weights that sum to one; equal ones if all are zero."""
    alive = jnp.isfinite(jnp.max(log_weight))
    return jax.nn.softmax(jnp.where(alive, log_weight, 0.0))


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


def covariance(z: Array) -> Array:
    """Return the covariance `(d, d)` of points `(n, d)`, shrunk where they are few."""
    n, dim = z.shape
    centred = z - jnp.mean(z, 0, keepdims=True)
    found = centred.T @ centred / n
    # Few points span less than the space: off the diagonal, as much is kept as n / (n + d).
    diagonal = jnp.diagonal(found)
    share = dim / (dim + n)
    jitter = 1e-6 * jnp.max(diagonal) + 1e-12
    return (1.0 - share) * found + jnp.diag(share * diagonal + jitter)


def covariance_factor(z: Array) -> Array:
    """Return a lower-triangular factor `(d, d)` of the covariance of points `(n, d)`."""
    return jnp.linalg.cholesky(covariance(z))


def cholesky_and_inverse(a: Array) -> tuple[Array, Array]:
    """Return the Cholesky factors of matrices `(..., d, d)`, and the factors' inverses.

    Small ones column by column, all at once. LAPACK takes them one by one, which costs more than
    the densities that depend on them; and where two such calls run at the same time, on a machine
    of two cores, JAX 0.10 waits for ever: each holds a thread and waits for one.

    Matrices must be positive definite; of small ones that is not looked at.
    """
    dim = a.shape[-1]
    identity = jnp.eye(dim, dtype=a.dtype)
    if dim > SMALL:
        factor = jnp.linalg.cholesky(a)
        solve = jax.scipy.linalg.solve_triangular
        return factor, solve(factor, jnp.broadcast_to(identity, a.shape), lower=True)
    columns, rows = [], []
    inverse = jnp.broadcast_to(identity, a.shape)
    for j in range(dim):  # what eliminates a column of the matrix makes a row of the inverse
        root = jnp.sqrt(jnp.maximum(a[..., j, j, None], _LEAST))
        below = jnp.broadcast_to(jnp.arange(dim) >= j, a.shape[:-1])
        columns.append(jnp.where(below, a[..., :, j] / root, 0.0))
        rows.append(inverse[..., j, :] / root)
        a = a - columns[j][..., :, None] * columns[j][..., None, :]
        inverse = inverse - columns[j][..., :, None] * rows[j][..., None, :]
    return jnp.stack(columns, -1), jnp.stack(rows, -2)
