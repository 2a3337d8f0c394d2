"""One field of several independent observations, from the fields of each."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Array
from jaxsbi.fields.ode import Rotation


def compose(rotation: Rotation, precision: Array) -> Rotation:
    """Return the field of p(z | x_1, …, x_m), proportional to N(z; 0, I)^(1-m) Π p(z | x_j).

    Diffused scores do not simply add up (Geffner et al. 2022, arXiv:2209.14249); what composes
    are the backward kernels p(z | z_t, x_j), here taken to be normal with the covariance that a
    normal posterior of precision `precision[j]` gives them (Linhart et al. 2024,
    arXiv:2404.07593). In the coordinates of `fields/paths.py` the prior's field is zero, and

        F = (Σ_j P_j + (1 - m) I)⁻¹ Σ_j P_j F_j,    P_j = sin²(phi) precision_j + cos²(phi) I,

    which is exact where all p(z | x_j) are normal, and right at the data for any.

    Args:
        rotation: The fields of all observations: noise level, `u` `(d,)` → F, shape `(m, d)`.
        precision: The posteriors' precision matrices, shape `(m, d, d)`, none below the prior's I.
    """
    m, d, _ = precision.shape
    identity = jnp.eye(d, dtype=precision.dtype)

    def composed(noise: Array, u: Array) -> Array:
        sin2, cos2 = jax.nn.sigmoid(2.0 * noise), jax.nn.sigmoid(-2.0 * noise)
        P = sin2 * precision + cos2 * identity[None]
        total = jnp.sum(P, 0) + (1.0 - m) * identity
        # The weights depend on the noise alone: all draws share their solution.
        weights = jnp.linalg.solve(total[None], P)
        return jnp.einsum("jab,jb->a", weights, rotation(noise, u))

    return composed


def precision_of(z: Array) -> Array:
    """Return the inverse covariance of draws `(n, d)`, at least the prior's: shape `(d, d)`."""
    centred = z - jnp.mean(z, 0, keepdims=True)
    values, vectors = jnp.linalg.eigh(centred.T @ centred / (z.shape[0] - 1))
    # A posterior that is wider than the prior somewhere would make the sum indefinite.
    values = jnp.clip(values, 1e-8, 1.0)
    return (vectors / values[None]) @ vectors.T
