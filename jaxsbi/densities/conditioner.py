"""The hidden layers of the networks that give a flow's maps their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array

Layer = dict[str, Array]

THIRD = 1.0 / 3.0
"""Variance of a masked network's weights, for `kernel_init`. Chosen by validation loss on two moons
and a 10-d Gaussian: masked tanh networks are smoother than a coupling's and need less restraint."""


def degrees(dim: int, hidden: int) -> np.ndarray:
    """Return the degree of each unit of a masked network (MADE), shape `(hidden,)`.

    Degrees cycle over 0 … dim - 2: a hidden unit of degree m sees inputs 0 … m only, and the
    parameters of number i see units of degree < i.
    """
    if hidden < dim - 1:  # too few units for all degrees: spread them
        return np.arange(hidden) * (dim - 1) // hidden
    return np.arange(hidden) % max(dim - 1, 1)


def hidden_stack(
    param: Callable[..., Any], init: Any, layers: int, depth: int, hidden: int, residual: bool
) -> Layer:
    """Return "middle" and "middle_bias", the square layers of each conditioner, stacked.

    Args:
        param: Makes a parameter of a name, an initialiser and a shape (`Module.param`).
        init: The initialiser of square layers.
        layers: Number of conditioners.
        depth: Hidden layers of each, or its residual blocks.
        hidden: Its width.
        residual: Whether to make residual blocks, of two square layers each.

    Returns:
        Shapes `(layers, m, hidden, hidden)` and `(layers, m, hidden)` with m = depth - 1, or
        m = 2 depth for residual blocks.
    """
    zeros = nn.initializers.zeros
    square = (layers, hidden, hidden)
    if not residual:
        shape = (layers, depth - 1, hidden, hidden)
        return {
            "middle": param("middle", init, shape),
            "middle_bias": param("middle_bias", zeros, shape[:-1]),
        }
    # The second layer of a block starts at zero, so that a block starts as the identity.
    first = param("middle", init, (layers, depth, *square[1:]))
    second = param("middle_last", zeros, (layers, depth, *square[1:]))
    pairs = jnp.reshape(jnp.stack([first, second], 2), (layers, 2 * depth, *square[1:]))
    return {
        "middle": pairs,
        "middle_bias": param("middle_bias", zeros, (layers, 2 * depth, hidden)),
    }


def hidden_features(
    layer: Layer, h: Array, activation: Callable[[Array], Array], dtype: str | None
) -> Array:
    """Return the last features `(hidden,)` of one conditioner, given its first ones.

    They are computed in `dtype` and returned in that of `h`, which stands for a dtype of `None`.

    With a "gate" `(depth, hidden)` in the layer, blocks are residual and a gate read from the
    context scales what each adds, as in Durkan et al. 2019 (arXiv:1906.04032).
    """
    given = h.dtype
    h, middle, bias = (a.astype(dtype or given) for a in (h, layer["middle"], layer["middle_bias"]))
    if "gate" not in layer:
        for i in range(middle.shape[0]):
            h = activation(h) @ middle[i] + bias[i]
        return activation(h).astype(given)
    gate = layer["gate"].astype(h.dtype)
    for i in range(middle.shape[0] // 2):
        added = activation(h) @ middle[2 * i] + bias[2 * i]
        added = activation(added) @ middle[2 * i + 1] + bias[2 * i + 1]
        h = h + gate[i] * added
    return activation(h).astype(given)
