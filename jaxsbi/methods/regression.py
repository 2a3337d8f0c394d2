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
CLIP = 6.0
"""Standard deviations beyond which a number no longer moves the linear prediction."""

Linear = dict[str, Array]


def fit_linear(x: Array, z: Array) -> Linear:
    """Return offset a, slopes B and factor L of z = a + B x + L u, for u of unit covariance.

    The ridge penalty minimises the generalised cross-validation score (Golub, Heath & Wahba 1979),
    summed over the logarithms of the outputs; data that say nothing get slopes of zero.

    Args:
        x: Standardised data, shape `(n, p)`.
        z: Latent parameters, shape `(n, d)`.

    Returns:
        `{"offset": (d,), "slopes": (d, p), "factor": (d, d)}`, the factor lower triangular.
    """
    n, p = x.shape
    mean = jnp.mean(z, 0)
    if p > MAX_FEATURES:
        residuals, slopes, used = z - mean[None], jnp.zeros((z.shape[1], p), z.dtype), jnp.ones(())
        return _result(residuals, mean, slopes, used)
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
        return loss

    penalties = (jnp.mean(size) + 1e-6) * jnp.logspace(-6.0, 4.0, 31)
    penalty = penalties[jnp.argmin(jax.lax.map(score, penalties))]
    weights = moment / (size + penalty)[:, None]
    slopes = (axes @ weights).T
    used = jnp.sum(size / (size + penalty)) + 1.0
    return _result(targets - rotated @ weights, mean - slopes @ centre, slopes, used)


def whiten(linear: Linear, z: Array, x: Array) -> tuple[Array, Array]:
    """Return u, shape `(d,)`, of one latent point given standardised data, and log |du/dz|."""
    u = jax.scipy.linalg.solve_triangular(linear["factor"], z - _mean(linear, x), lower=True)
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
    return {
        "offset": offset,
        "slopes": slopes,
        "factor": jnp.linalg.cholesky(covariance + floor),
    }
