"""Activations by registered name, so that a configuration can be printed, compared and saved."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
}


def get(name: str) -> Callable[[jax.Array], jax.Array]:
    """Return the activation registered under `name`.

    Raises:
        ValueError: If there is none; the message lists the known names.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {sorted(ACTIVATIONS)}, got {name!r}.")
    return ACTIVATIONS[name]
