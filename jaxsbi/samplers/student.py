"""A Student t fitted to points, and the ellipses of its normals through a point."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key
from jaxsbi.samplers.weights import cholesky_and_inverse, covariance

_DEGREES = 5  # tails heavier than most; odd, for `sample`


class Fit(NamedTuple):
    """A Student t: its centre `(d,)`, a factor `(d, d)` of its scale, and the factor's inverse."""

    centre: Array
    factor: Array
    inverse: Array

    def standardize(self, z: Array) -> Array:
        """Return z in the coordinates in which the fit is standard."""
        return self.inverse @ (z - self.centre)

    def restore(self, u: Array) -> Array:
        """Return standard coordinates as z."""
        return self.centre + self.factor @ u


def fit_to(z: Array) -> Fit:
    """Return the Student t fitted to points `(n, d)`."""
    return Fit(jnp.mean(z, 0), *cholesky_and_inverse(covariance(z)))


def log_prob(u: Array) -> Array:
    """Return the standard Student t's log-density over the last axis, up to a constant."""
    return -0.5 * (_DEGREES + u.shape[-1]) * jnp.log1p(jnp.sum(u**2, -1) / _DEGREES)


def log_norm(dim: int) -> float:
    """Return the log of the integral of exp(log_prob) over R^dim."""
    ends = math.lgamma(0.5 * _DEGREES) - math.lgamma(0.5 * (_DEGREES + dim))
    return ends + 0.5 * dim * math.log(_DEGREES * math.pi)


def sample(key: Key, shape: tuple[int, ...]) -> Array:
    """Return draws of the standard Student t over the last axis."""
    key_pairs, key_last, key_normal = jax.random.split(key, 3)
    # A sum of five squares of normals: two of them are an exponential number, doubled, and cheaper.
    pairs = jax.random.exponential(key_pairs, (*shape[:-1], _DEGREES // 2))
    squares = 2.0 * jnp.sum(pairs, -1) + jax.random.normal(key_last, shape[:-1]) ** 2
    width = jnp.sqrt(_DEGREES / squares)
    return width[..., None] * jax.random.normal(key_normal, shape)


def opposite(key_width: Key, key_normal: Key, u: Array) -> Array:
    """Return, for points in standard coordinates `(…, d)`, a second one on an ellipse of theirs.

    A Student t is a normal of random width: given the width, drawn by where a point is, the ellipse
    is that of a normal, and moving along it leaves the Student t as it is (Nishihara, Murray &
    Adams 2014, arXiv:1210.7477).
    """
    *shape, dim = u.shape
    # Half a sum of squares of this many normals is the Gamma number that is needed.
    squares = jax.random.normal(key_width, (*shape, _DEGREES + dim)) ** 2
    gamma = 0.5 * jnp.sum(squares, -1)
    width = jnp.sqrt(0.5 * (_DEGREES + jnp.sum(u**2, -1)) / gamma)
    return width[..., None] * jax.random.normal(key_normal, u.shape)
