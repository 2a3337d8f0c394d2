"""A mixture of Student t's that follows points: proposals that lead wherever the points are."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxsbi.base import Array, Key
from jaxsbi.samplers import student
from jaxsbi.samplers.weights import cholesky_and_inverse

_COMPONENTS = 16  # at most
_PER_COMPONENT = 4  # points for each number of a component's centre and its spread, at least
_FLOOR = 1e-6  # of the points' variance


class Mixture(NamedTuple):
    """Log-weights `(k,)`, centres `(k, d)`, factors of scales `(k, d, d)`, and their inverses."""

    log_weight: Array
    centre: Array
    factor: Array
    inverse: Array


def first_mixture(z: Array) -> Mixture:
    """Return a mixture to begin with, of as many components as points `(n, d)` can tell apart."""
    n, dim = z.shape
    k = max(1, min(_COMPONENTS, n // (_PER_COMPONENT * (dim + 1))))
    centred = z - jnp.mean(z, 0, keepdims=True)
    scale = k ** (-2.0 / dim) * (centred.T @ centred / n) + _floor(centred)
    factor, inverse = cholesky_and_inverse(jnp.broadcast_to(scale, (k, dim, dim)))
    return Mixture(jnp.full(k, -jnp.log(k)), z[:: n // k][:k], factor, inverse)


def improved(mixture: Mixture, z: Array) -> Mixture:
    """Return the mixture after one step of expectation and maximisation towards points `(n, d)`.

    Each component's covariance is mixed with the mean one, which counts for `dim + 1` points: few
    points span less than the space.
    """
    n, dim = z.shape
    share = jax.nn.softmax(_components(mixture, z), 1)  # (n, k)
    offset = z[None] - mixture.centre[:, None]  # (k, n, d)
    weighted = share.T[:, :, None] * offset
    count = jnp.sum(share, 0)
    shift = jnp.sum(weighted, 1) / (count + _FLOOR)[:, None]
    spread = jnp.sum(weighted[:, :, :, None] * offset[:, :, None, :], 1)
    spread = spread - count[:, None, None] * shift[:, :, None] * shift[:, None, :]
    mean = jnp.sum(spread, 0) / n + _floor(z - jnp.mean(z, 0, keepdims=True))
    few = dim + 1
    factor, inverse = cholesky_and_inverse(
        (spread + few * mean[None]) / (count + few)[:, None, None]
    )
    # A component that has lost its points keeps half a point's weight.
    k = count.shape[0]
    log_weight = jnp.log((count + 0.5) / (n + 0.5 * k))
    return Mixture(log_weight, mixture.centre + shift, factor, inverse)


def sample(key: Key, mixture: Mixture, n: int) -> Array:
    """Return `n` draws."""
    key_pick, key_noise = jax.random.split(key)
    total = jnp.cumsum(jnp.exp(mixture.log_weight))
    number = total[-1] * jax.random.uniform(key_pick, (n, 1))
    pick = jnp.sum(number > total[None, :-1], 1)
    noise = student.sample(key_noise, (n, mixture.centre.shape[-1]))
    return mixture.centre[pick] + _times(mixture.factor[pick], noise)


def log_prob(mixture: Mixture, z: Array) -> Array:
    """Return the log-density at points `(n, d)`, up to a constant."""
    return logsumexp(_components(mixture, z), 1)


def _components(mixture: Mixture, z: Array) -> Array:
    """Return each component's part of the log-density, `(n, k)`."""
    u = _times(mixture.inverse[None], z[:, None] - mixture.centre[None])
    size = jnp.sum(jnp.log(jnp.diagonal(mixture.inverse, axis1=1, axis2=2)), 1)
    return student.log_prob(u) + (size + mixture.log_weight)[None]


def _times(matrix: Array, vector: Array) -> Array:
    """Return products of small matrices `(…, d, d)` and vectors `(…, d)`, as one fused loop."""
    return jnp.sum(matrix * vector[..., None, :], -1)


def _floor(centred: Array) -> Array:
    """Return the least covariance `(d, d)` that is told from none."""
    return jnp.diag(_FLOOR * jnp.mean(centred**2, 0) + _FLOOR**2)
