"""Learned invertible linear maps between the layers of a flow, which start at a permutation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array

MIXINGS = ("permute", "linear")
MAX_LOG_DIAGONAL = 2.0
"""Bound of the log-diagonal: with entries below one in size beside it, a float32 round trip through
one map loses a few digits at the most."""

Layer = dict[str, Array]


def mixing_stack(
    mixing: str, param: Callable[..., Any], orders: np.ndarray, dtype: Any
) -> dict[str, Array]:
    """Return what the layers need to mix numbers, each stacked over layers.

    A linear map is L U P (Kingma & Dhariwal 2018, arXiv:1807.03039) with a unit lower triangle L,
    an upper triangle U and the fixed permutation P. Every row of U has its diagonal as a factor, so
    that the entries of both may be bounded: exact permutations make small entries suffice, as
    pivoting does in elimination.

    Args:
        mixing: "permute" or "linear".
        param: Makes a parameter of a name, an initialiser and a shape (`Module.param`).
        orders: Permutation matrices, shape `(layers, d, d)`.
        dtype: Of the result.

    Returns:
        "order" `(layers, d, d)`, and for linear maps also "lower", "upper" `(layers, d, d)` and
        "log_diagonal" `(layers, d)`.
    """
    if mixing not in MIXINGS:
        known = ", ".join(map(repr, MIXINGS))
        raise ValueError(f"mixing: expected one of {known}, got {mixing!r}.")
    order = jnp.asarray(orders, dtype)
    if mixing == "permute":
        return {"order": order}
    layers, dim, _ = orders.shape
    zeros, eye = nn.initializers.zeros, jnp.eye(dim, dtype=dtype)[None]
    triangle = jnp.tanh(param("mixing", zeros, (layers, dim, dim)))
    raw = param("mixing_scale", zeros, (layers, dim))
    log_diagonal = MAX_LOG_DIAGONAL * jnp.tanh(raw / MAX_LOG_DIAGONAL)
    upper = jnp.exp(log_diagonal)[:, :, None] * (eye + jnp.triu(triangle, 1))
    return {
        "order": order,
        "lower": eye + jnp.tril(triangle, -1),
        "upper": upper,
        "log_diagonal": log_diagonal,
    }


def mix(layer: Layer, z: Array) -> tuple[Array, Array]:
    """Map `z` `(d,)` to L U P z; also the log-determinant (a scalar)."""
    if "lower" not in layer:
        return product(layer["order"], z), jnp.zeros((), z.dtype)
    # The factors do not depend on z: under vmap they are multiplied once.
    matrix = product(layer["lower"], product(layer["upper"], layer["order"]))
    return product(matrix, z), jnp.sum(layer["log_diagonal"])


def unmix(layer: Layer, u: Array) -> tuple[Array, Array]:
    """Invert `mix`; also the log-determinant of `mix`."""
    log_det = jnp.zeros((), u.dtype)
    if "lower" in layer:
        solve = jax.scipy.linalg.solve_triangular
        u = solve(layer["upper"], solve(layer["lower"], u, lower=True, unit_diagonal=True))
        log_det = jnp.sum(layer["log_diagonal"])
    return product(layer["order"].T, u), log_det


def product(matrix: Array, z: Array) -> Array:
    """Multiply at the highest precision.

    A product with a permutation matrix is then exact, and much faster than a gather under vmap
    (whose derivative is a scatter).
    """
    return jnp.matmul(matrix, z, precision=jax.lax.Precision.HIGHEST)
