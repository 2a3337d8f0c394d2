"""A mixture of Student t's that follows points: proposals that lead wherever the points are."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxsbi.base import Array, Key
from jaxsbi.samplers import student

_COMPONENTS = 16  # at most
_PER_COMPONENT = 4  # points for each number of a component's centre and its spread, at least
_FIRST_STEPS = 2
_FLOOR = 1e-6  # of the points' variance


class Mixture(NamedTuple):
    """Log-weights `(k,)`, centres `(k, d)`, factors of scales `(k, d, d)`, and their inverses."""

    log_weight: Array
    centre: Array
    factor: Array
    inverse: Array


def first_mixture(z: Array) -> Mixture:
    """Return a mixture for points `(n, d)`, of as many components as they can tell apart."""
    n, dim = z.shape
    k = max(1, min(_COMPONENTS, n // (_PER_COMPONENT * (dim + 1))))
    centred = z - jnp.mean(z, 0, keepdims=True)
    scale = k ** (-2.0 / dim) * (centred.T @ centred / n) + _floor(centred)
    factor, inverse = _factors(jnp.broadcast_to(scale, (k, dim, dim)))
    mixture = Mixture(jnp.full(k, -jnp.log(k)), z[:: n // k][:k], factor, inverse)
    for _ in range(_FIRST_STEPS):
        mixture = improved(mixture, z)
    return mixture


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
    spread = jnp.swapaxes(weighted, 1, 2) @ offset
    spread = spread - count[:, None, None] * shift[:, :, None] * shift[:, None, :]
    mean = jnp.sum(spread, 0) / n + _floor(z - jnp.mean(z, 0, keepdims=True))
    few = dim + 1
    factor, inverse = _factors((spread + few * mean[None]) / (count + few)[:, None, None])
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
    return mixture.centre[pick] + jnp.einsum("nij,nj->ni", mixture.factor[pick], noise)


def log_prob(mixture: Mixture, z: Array) -> Array:
    """Return the log-density at points `(n, d)`, up to a constant."""
    return logsumexp(_components(mixture, z), 1)


def _components(mixture: Mixture, z: Array) -> Array:
    """Return each component's part of the log-density, `(n, k)`."""
    k, dim = mixture.centre.shape
    # One product for all components.
    u = (z @ mixture.inverse.reshape(k * dim, dim).T).reshape(-1, k, dim)
    u = u - jnp.einsum("kij,kj->ki", mixture.inverse, mixture.centre)[None]
    size = jnp.sum(jnp.log(jnp.diagonal(mixture.inverse, axis1=1, axis2=2)), 1)
    return student.log_prob(u) + (size + mixture.log_weight)[None]


def _floor(centred: Array) -> Array:
    """Return the least covariance `(d, d)` that is told from none."""
    return jnp.diag(_FLOOR * jnp.mean(centred**2, 0) + _FLOOR**2)


def _factors(a: Array) -> tuple[Array, Array]:
    """Return the Cholesky factors of small matrices `(k, d, d)`, and their inverses.

    Column by column for all matrices at once: LAPACK takes them one by one, which costs more than
    the densities at what is proposed by them.
    """
    dim = a.shape[-1]
    columns: list[Array] = []
    rows: list[Array] = []
    for j in range(dim):
        root = jnp.sqrt(jnp.maximum(a[:, j, j], _FLOOR**2))
        columns.append(jnp.where(jnp.arange(dim)[None] >= j, a[:, :, j] / root[:, None], 0.0))
        a = a - columns[j][:, :, None] * columns[j][:, None, :]
    factor = jnp.stack(columns, -1)
    identity = jnp.eye(dim, dtype=a.dtype)
    for i in range(dim):
        known = sum((factor[:, i, j, None] * rows[j] for j in range(i)), jnp.zeros_like(a[:, 0]))
        rows.append((identity[None, i] - known) / factor[:, i, i, None])
    return factor, jnp.stack(rows, 1)
