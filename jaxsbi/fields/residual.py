"""A residual network that the noise level and the data modulate."""

from __future__ import annotations

from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp

from jaxsbi.base import Array
from jaxsbi.networks import activations

FREQUENCIES = 16
"""Cosines of the noise level that a field is told."""
EXTENT = 9.0
"""Range of the noise levels, log(sigma / alpha), that a network tells from one another."""

SKIP_GAIN = 3.0
"""How much faster than the network the linear part of a field learns (`densities/coupling.py`)."""


class Field(Protocol):
    """What `fmpe` and `npse` ask of a field: a Flax module that learns F (`fields/paths.py`)."""

    def apply(self, variables: Any, noise: Array, u: Array, context: Array) -> Array:
        """Return F, shape `(d,)`, at a noise level, a point `u` `(d,)` and a context `(c,)`."""
        ...


class ResidualField(nn.Module):
    """Residual perceptron, each block scaled and shifted by the noise level and the context.

    The modulation is that of Perez et al. (2017, arXiv:1709.07871) and, with its zero start,
    Peebles & Xie (2022, arXiv:2212.09748). All of it is one product per noise level and context:
    draws of one posterior share it. The last layer starts at zero: an untrained field is the prior.

    Attributes:
        hidden: Width of the residual stream.
        blocks: Residual blocks, of two dense layers each.
        activation: A registered name.
    """

    hidden: int = 64
    blocks: int = 3
    activation: str = "silu"

    @nn.compact
    def __call__(self, noise: Array, u: Array, context: Array) -> Array:
        """Return F, shape `(d,)`.

        Args:
            noise: log(sigma / alpha), a scalar (`jaxsbi.fields.log_ratio`).
            u: The noisy point, scaled to unit variance, shape `(d,)`.
            context: What the data say, shape `(c,)`.
        """
        activation = activations.get(self.activation)
        zeros = nn.initializers.zeros
        read = activation(nn.Dense(self.hidden, name="context")(context))
        level = nn.Dense(self.hidden, name="noise")(cosines(noise).astype(u.dtype))
        joint = activation(level + nn.Dense(self.hidden, name="read")(read))
        modulation = nn.Dense(2 * self.hidden * self.blocks, name="modulation")(joint)
        scales, shifts = jnp.reshape(modulation, (2, self.blocks, self.hidden))
        h = nn.Dense(self.hidden, name="first")(u) + nn.Dense(self.hidden, name="direct")(context)
        for i in range(self.blocks):
            r = activation(h * (1.0 + scales[i]) + shifts[i])
            r = activation(nn.Dense(self.hidden, name=f"in_{i}")(r))
            h = h + nn.Dense(self.hidden, name=f"out_{i}", kernel_init=zeros)(r)
        F = nn.Dense(u.shape[0], name="last", kernel_init=zeros)(activation(h))
        return F + SKIP_GAIN * self._linear(noise, u, context)

    def _linear(self, noise: Array, u: Array, context: Array) -> Array:
        """Return the field of a normal posterior whose mean is linear in the context, nearly.

        That is sin m + sin cos (S - I) (cos² S + sin² I)⁻¹ (u - cos m), with the matrix in the
        middle interpolated between its values at the data and at pure noise.
        """
        dim = u.shape[0]
        zeros = nn.initializers.zeros
        mean = nn.Dense(dim, name="linear_mean", kernel_init=zeros)(context)
        sin, cos = nn.sigmoid(2.0 * noise) ** 0.5, nn.sigmoid(-2.0 * noise) ** 0.5
        inputs = jnp.concatenate([u, cos * context])
        slopes = nn.Dense(2 * dim, name="linear_slope", kernel_init=zeros)(inputs)
        slope = cos**2 * slopes[:dim] + sin**2 * slopes[dim:]
        return sin * mean + sin * cos * slope


def cosines(noise: Array) -> Array:
    """Return smooth features of a noise level, shape `(FREQUENCIES,)`, even beyond its range."""
    position = (jnp.clip(noise, -EXTENT, EXTENT) + EXTENT) / (2.0 * EXTENT)
    return jnp.cos(jnp.pi * jnp.arange(1.0, FREQUENCIES + 1.0, dtype=noise.dtype) * position)
