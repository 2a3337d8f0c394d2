"""From a pytree of arrays to one vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data


def flatten(x: Data) -> Array:
    """Return all numbers of one data set as a floating-point vector, in the pytree's order."""
    leaves = [jnp.ravel(a) for a in jax.tree.leaves(x)]
    leaves = [a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float) for a in leaves]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)
