"""Networks that read a set: their result does not depend on the order of its members."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxsbi.base import Array, Data
from jaxsbi.networks import activations
from jaxsbi.networks.masks import members, moments, pool


class DeepSet(nn.Module):
    """Permutation-invariant summary of a set (Zaheer et al. 2017, arXiv:1703.06114).

    A masked set, `{"values": (n, features), "mask": (n,)}`, gives the same whatever the padding,
    and its summary knows how many members there are; with none it is finite, always the same. The
    members' mean and log-deviation also reach the summary directly.

    Attributes:
        out: Width of the summary.
        hidden: Width of the two-layer networks before and after pooling.
        activation: A registered name.
    """

    out: int = 16
    hidden: int = 64
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one set, `(members, features)` or a masked one, to `(out,)`.

        Raises:
            TypeError: If a mask is not boolean.
            ValueError: If `x` is no such set.
        """
        given = members("DeepSet", x, "members, features")
        activation = activations.get(self.activation)
        h = activation(nn.Dense(self.hidden)(given.values))
        h = activation(nn.Dense(self.hidden)(h))
        h = activation(nn.Dense(self.hidden)(pool(h, given.mask)))
        # What most sets are read for passes by the network, which would have to learn it to a part
        # in a thousand where members are many.
        return nn.Dense(self.out)(jnp.concatenate([h, moments(given.values, given.mask)]))


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
        if getattr(x, "ndim", None) != 2:
            got = getattr(x, "shape", type(x).__name__)
            raise ValueError(f"SortedSet: expected x of shape (members, features), got {got}.")
        return jnp.ravel(x[jnp.argsort(x[:, 0])])
