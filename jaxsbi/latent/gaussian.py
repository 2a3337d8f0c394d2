"""Vector families that are an exact, invertible image of a standard normal vector.

Gaussians go through the Cholesky factor of their covariance; the multivariate Student t through
its conditionals, each a Student t with one more degree of freedom. ``z`` and ``x`` carry any batch
dimensions in front of the event, broadcast against those of the distribution.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax

from jaxsbi.latent.solved import student_from_z, student_to_z


def _apply(matrix: Array, vector: Array) -> Array:
    return jnp.squeeze(matrix @ vector[..., None], -1)


def _solve(tril: Array, vector: Array, transpose: bool = False) -> Array:
    """``tril⁻¹ vector`` with broadcast batch dimensions."""
    batch = jnp.broadcast_shapes(tril.shape[:-2], vector.shape[:-1])
    tril = jnp.broadcast_to(tril, batch + tril.shape[-2:])
    vector = jnp.broadcast_to(vector, batch + vector.shape[-1:])
    return lax.linalg.triangular_solve(
        tril, vector[..., None], left_side=True, lower=True, transpose_a=transpose
    )[..., 0]


def _normal_from_z(d: Any, z: Array) -> Array:
    return d.loc + _apply(jnp.asarray(d.scale_tril), z)


def _normal_to_z(d: Any, x: Array) -> Array:
    return _solve(jnp.asarray(d.scale_tril), x - d.loc)


def _low_rank_tril(d: Any) -> Array:
    factor = jnp.asarray(d.cov_factor)
    covariance = factor @ jnp.swapaxes(factor, -1, -2)
    return jnp.linalg.cholesky(covariance + jnp.eye(factor.shape[-2]) * d.cov_diag[..., None, :])


def _low_rank_from_z(d: Any, z: Array) -> Array:
    return d.loc + _apply(_low_rank_tril(d), z)


def _low_rank_to_z(d: Any, x: Array) -> Array:
    return _solve(_low_rank_tril(d), x - d.loc)


def _car_tril(d: Any) -> Array:
    """Cholesky factor of the precision of a conditional autoregressive vector."""
    adjacency = jnp.asarray(d.adj_matrix)
    degree = adjacency.sum(-1)
    correlation = jnp.asarray(d.correlation)[..., None, None]
    precision = jnp.eye(degree.shape[-1]) * degree[..., None, :] - correlation * adjacency
    return jnp.linalg.cholesky(jnp.asarray(d.conditional_precision)[..., None, None] * precision)


def _car_from_z(d: Any, z: Array) -> Array:
    return d.loc + _solve(_car_tril(d), z, transpose=True)


def _car_to_z(d: Any, x: Array) -> Array:
    return _apply(jnp.swapaxes(_car_tril(d), -1, -2), x - d.loc)


def _walk_from_z(d: Any, z: Array) -> Array:
    return jnp.cumsum(z, -1) * jnp.expand_dims(d.scale, -1)


def _walk_to_z(d: Any, x: Array) -> Array:
    before = jnp.concatenate([jnp.zeros_like(x[..., :1]), x[..., :-1]], -1)
    return (x - before) / jnp.expand_dims(d.scale, -1)


def _matrix_from_z(d: Any, z: Array) -> Array:
    return d.loc + d.scale_tril_row @ z @ jnp.swapaxes(d.scale_tril_column, -1, -2)


def _matrix_to_z(d: Any, x: Array) -> Array:
    def columns(tril: Array, m: Array) -> Array:  # tril⁻¹ m, one column at a time
        m = jnp.swapaxes(m, -1, -2)
        return jnp.swapaxes(_solve(jnp.asarray(tril)[..., None, :, :], m), -1, -2)

    left = columns(d.scale_tril_row, x - d.loc)
    return jnp.swapaxes(columns(d.scale_tril_column, jnp.swapaxes(left, -1, -2)), -1, -2)


def _student_scan(d: Any, values: Array, forward: bool) -> Array:
    """Whitened Student t vector from z (forward) or back, coordinate by coordinate.

    With y the whitened vector, y_i given those before is sqrt((ν + s) / (ν + i)) times a Student t
    with ν + i degrees of freedom, s the sum of squares before it (Ding 2016, eq. 5).
    """
    df = jnp.broadcast_to(jnp.asarray(d.df, values.dtype), values.shape[:-1])

    def step(s: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        value, index = item
        scale = jnp.sqrt((df + s) / (df + index))
        if forward:
            out = scale * student_from_z(value, df + index)
            return s + jnp.square(out), out
        return s + jnp.square(value), student_to_z(value / scale, df + index)

    columns = jnp.moveaxis(values, -1, 0)
    indices = jnp.arange(columns.shape[0], dtype=values.dtype)
    _, out = lax.scan(step, jnp.zeros_like(df), (columns, indices))
    return jnp.moveaxis(out, 0, -1)


def _student_from_z(d: Any, z: Array) -> Array:
    return d.loc + _apply(jnp.asarray(d.scale_tril), _student_scan(d, z, True))


def _student_to_z(d: Any, x: Array) -> Array:
    return _student_scan(d, _solve(jnp.asarray(d.scale_tril), x - d.loc), False)


Map = Callable[[Any, Array], Array]
VECTORS: dict[type, tuple[Map, Map]] = {
    dist.MultivariateNormal: (_normal_from_z, _normal_to_z),
    dist.LowRankMultivariateNormal: (_low_rank_from_z, _low_rank_to_z),
    dist.CAR: (_car_from_z, _car_to_z),
    dist.GaussianRandomWalk: (_walk_from_z, _walk_to_z),
    dist.MatrixNormal: (_matrix_from_z, _matrix_to_z),
    dist.MultivariateStudentT: (_student_from_z, _student_to_z),
}
"""Vector families: NumPyro class to (from z, to z)."""
