"""Networks that read a set: their result does not depend on the order of its members."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxsbi.base import Array
from jaxsbi.networks import activations


class DeepSet(nn.Module):
    """Permutation-invariant summary of a set (Zaheer et al. 2017, arXiv:1703.06114).

    Attributes:
        out: Width of the summary.
        hidden: Width of the two-layer networks before and after pooling.
        activation: A registered name.
    """

    out: int = 16
    hidden: int = 64
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map one set of shape `(members, features)` to `(out,)`.

        Raises:
            ValueError: If `x` is not one array of two axes.
        """
        _check(self, x)
        activation = activations.get(self.activation)
        h = activation(nn.Dense(self.hidden)(x))
        h = activation(nn.Dense(self.hidden)(h))
        # Mean and maximum: the mean alone cannot count extremes, the maximum alone cannot average.
        h = jnp.concatenate([jnp.mean(h, 0), jnp.max(h, 0)])
        h = activation(nn.Dense(self.hidden)(h))
        return nn.Dense(self.out)(h)


class SortedSet(nn.Module):
    """A small set as one vector, in the order of its members' first feature.

    It has no parameters and loses nothing but the order: with m members, each simulation is worth
    m! of a network that would have to learn that the order says nothing. Good for a handful of
    members; a `DeepSet` for many.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map one set of shape `(members, features)` to `(members * features,)`.

        Raises:
            ValueError: If `x` is not one array of two axes.
        """
        _check(self, x)
        return jnp.ravel(x[jnp.argsort(x[:, 0])])


def _check(module: nn.Module, x: Any) -> None:
    if getattr(x, "ndim", None) != 2:
        got = getattr(x, "shape", type(x).__name__)
        raise ValueError(
            f"{type(module).__name__}: expected x of shape (members, features), got {got}."
        )
