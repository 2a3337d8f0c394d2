"""How a network starts: from a key and one data set, or also from what the data are like."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from jaxsbi.base import Data, Key, Variables


def check_modules(part: Any, place: str = "method") -> None:
    """Look for what stands where a Flax Linen module has to, in a configuration and within it.

    Raises:
        TypeError: If a field that is declared as a module, or as named modules, is something else.
    """
    if isinstance(part, type) or not dataclasses.is_dataclass(part):
        return
    for field in dataclasses.fields(part):
        declared = str(field.type)
        value: Any = getattr(part, field.name, None)
        if field.name == "parent":  # a Flax module's place in another one
            continue
        named = dict(value) if declared == "Parts" else {field.name: value}
        for name, one in named.items():
            module = declared == "Parts" or declared.startswith("nn.Module")
            if module and one is not None and not isinstance(one, nn.Module):
                kind = f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__
                raise TypeError(
                    f"{place}.{name}: expected a Flax Linen module such as jaxsbi.networks.MLP(64),"
                    f" got {kind}. Wrap the class of an NNX module: "
                    "flax.nnx.bridge.ToLinen(MyModule, args=(…)); write a function as a Linen "
                    "module's __call__."
                )
            check_modules(one, f"{place}.{name}")


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
