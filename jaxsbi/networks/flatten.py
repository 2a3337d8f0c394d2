"""From a pytree of arrays to one vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data


def flatten(x: Data) -> Array:
    """Return all numbers of one data set as a floating-point vector, in the pytree's order.

    A complex array is its real parts followed by its imaginary parts.
    """
    leaves = [_real(jnp.ravel(a)) for a in jax.tree.leaves(x)]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)


def _real(a: Array) -> Array:
    if jnp.issubdtype(a.dtype, jnp.complexfloating):
        return jnp.concatenate([a.real, a.imag])
    return a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float)
