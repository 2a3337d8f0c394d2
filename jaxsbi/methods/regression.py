"""The linear part of a posterior, solved before training starts.

Ridge regression of the latent parameters on the standardised data gives z = a + B x + L u. A
density then learns u, which has mean zero and unit covariance: what is linear and Gaussian in a
problem is exact from the start, and early stopping ends a training that has nothing to add.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Array

MAX_FEATURES = 512
"""With more numbers in a data set no regression is made: an eigenvalue problem of this size takes a
second, and so much data want a summary network."""
GAUSSIAN = 1.05
"""Largest kurtosis of the residuals (Mardia's, over that of a normal distribution: 1) with which a
regression is kept. Where posteriors have one width and shape for all data, to start from them saves
most of the learning; where they do not, a flow learns better in the prior's own coordinates."""
CLIP = 6.0
"""Standard deviations beyond which a number no longer moves the linear prediction."""
FREE = 0.75
"""Least share of the data sets that must be left over by the slopes: where these use most of them
up, the score is noise and can choose residuals of almost nothing."""

Linear = dict[str, Array]


def fit_linear(x: Array, z: Array) -> Linear:
    """Return offset a, slopes B and factor L of z = a + B x + L u, for u of unit covariance.

    The ridge penalty minimises the generalised cross-validation score (Golub, Heath & Wahba 1979),
    summed over the logarithms of the outputs; data that say nothing get slopes of zero.

    Args:
        x: Standardised data, shape `(n, p)`.
        z: Latent parameters, shape `(n, d)`.

    Returns:
        `{"offset": (d,), "slopes": (d, p), "factor": (d, d), "inverse": (d, d)}`, the factor lower
        triangular. Without slopes (and with no correlations) if residuals are not normal, or the
        data are too many.
    """
    n, p = x.shape
    mean = jnp.mean(z, 0)
    if p > MAX_FEATURES:
        return _nothing(z, p)
    x = jnp.clip(x, -CLIP, CLIP)
    centre = jnp.mean(x, 0)
    features, targets = x - centre[None], z - mean[None]
    size, axes = jnp.linalg.eigh(features.T @ features / n)
    size = jnp.maximum(size, 0.0)
    rotated = features @ axes
    moment = rotated.T @ targets / n

    def score(penalty: Array) -> Array:
        residual = targets - rotated @ (moment / (size + penalty)[:, None])
        free = 1.0 - (jnp.sum(size / (size + penalty)) + 1.0) / n
        loss = jnp.sum(jnp.log(jnp.mean(residual**2, 0) + 1e-12)) - 2 * z.shape[1] * jnp.log(
            jnp.maximum(free, 1e-6)
        )
        return jnp.where(free < FREE, jnp.inf, loss)

    penalties = (jnp.mean(size) + 1e-6) * jnp.logspace(-6.0, 4.0, 31)[::-1]
    penalty = penalties[jnp.argmin(jax.lax.map(score, penalties))]
    weights = moment / (size + penalty)[:, None]
    slopes = (axes @ weights).T
    used = jnp.sum(size / (size + penalty)) + 1.0
    residuals = targets - rotated @ weights
    linear = _result(residuals, mean - slopes @ centre, slopes, used)
    # The fewer data sets there are per number, the more a regularised start is worth.
    keep = _kurtosis(linear["inverse"], residuals) < GAUSSIAN + p / n
    return jax.tree.map(lambda a, b: jnp.where(keep, a, b), linear, _nothing(z, p))


def whiten(linear: Linear, z: Array, x: Array) -> tuple[Array, Array]:
    """Return u, shape `(d,)`, of one latent point given standardised data, and log |du/dz|."""
    u = linear["inverse"] @ (z - _mean(linear, x))
    return u, -jnp.sum(jnp.log(jnp.diagonal(linear["factor"])))


def colour(linear: Linear, u: Array, x: Array) -> tuple[Array, Array]:
    """Return the latent point of one u, shape `(d,)`, and log |du/dz|: the inverse of `whiten`."""
    z = _mean(linear, x) + linear["factor"] @ u
    return z, -jnp.sum(jnp.log(jnp.diagonal(linear["factor"])))


def _mean(linear: Linear, x: Array) -> Array:
    return linear["offset"] + linear["slopes"] @ jnp.clip(x, -CLIP, CLIP)


def _result(residuals: Array, offset: Array, slopes: Array, used: Array) -> Linear:
    n, d = residuals.shape
    covariance = residuals.T @ residuals / jnp.maximum(n - used, 1.0)
    # A parameter that the data determine exactly would leave nothing to divide by.
    floor = 1e-6 * jnp.eye(d, dtype=residuals.dtype)
    factor = jnp.linalg.cholesky(covariance + floor)
    # Solved once here: a product compiles and runs faster in every step of a training.
    inverse = jax.scipy.linalg.solve_triangular(factor, jnp.eye(d, dtype=factor.dtype), lower=True)
    return {
        "offset": offset,
        "slopes": slopes,
        "factor": factor,
        "inverse": inverse,
    }


def _nothing(z: Array, p: int) -> Linear:
    """Return a prediction that leaves the latent space as it is."""
    d = z.shape[1]
    zeros = jnp.zeros((d, p), z.dtype)
    eye = jnp.eye(d, dtype=z.dtype)
    return {"offset": jnp.zeros(d, z.dtype), "slopes": zeros, "factor": eye, "inverse": eye}


def _kurtosis(inverse: Array, residuals: Array) -> Array:
    """Return Mardia's multivariate kurtosis, relative to a normal distribution's."""
    d = residuals.shape[1]
    u = inverse @ residuals.T
    return jnp.mean(jnp.sum(u * u, 0) ** 2) / (d * (d + 2))
