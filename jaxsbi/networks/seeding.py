"""How a network starts: from a key and one data set, or also from what the data are like."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxsbi.base import Data, Key, Variables


def initialize(key: Key, network: nn.Module, x: Data) -> tuple[Any, Variables]:
    """Return a network's output for the first data set, and its variables.

    A network that keeps statistics of the data (a basis, say) has a method `seed(x)`. It sees the
    whole batch, and puts what it keeps into a collection other than "params", which is not
    trained; to those in a network of networks, each `seed` passes its part of the data on.

    Args:
        key: A typed key.
        network: A Flax module, called on one data set.
        x: Training data as the network reads them, every leaf of shape `(n, *shape)`.
    """
    one = jax.tree.map(lambda a: a[0], x)
    # NNX's bridge returns FrozenDicts' contents as they are, Linen plain dicts.
    out, variables = network.init_with_output(key, one)
    variables = dict(variables)
    if getattr(type(network), "seed", None) is not None:
        _, seeded = network.apply({}, x, method="seed", mutable=True)
        variables |= seeded
        out = network.apply(variables, one)
    return out, variables
