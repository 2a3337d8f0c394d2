"""Data sets that are several independent draws given the parameters: their leading axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Data


def count_members(name: str, x: Data) -> int:
    """Return how many independent draws one data set holds.

    Args:
        name: The method's name, for the message.
        x: One data set.

    Raises:
        ValueError: If its arrays have no leading axis, or not one of equal length.
    """
    lengths = {jnp.shape(a)[:1] for a in jax.tree.leaves(x)}
    if len(lengths) != 1 or lengths == {()}:
        shapes = jax.tree.map(jnp.shape, x)
        raise ValueError(
            f"{name}(iid=True): expected arrays whose leading axis counts independent draws, of "
            f"one length, got a data set of shapes {shapes}. Return shape (draws, ...) from "
            "the simulator, or leave iid out."
        )
    return int(*lengths.pop())


def all_members(x: Data) -> Data:
    """Return the members of many data sets as rows: `(n, m, *shape)` becomes `(n m, *shape)`."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), x)
