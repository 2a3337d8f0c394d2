"""Masked autoregressive flows: each number is mapped given the ones before it and the context."""

from __future__ import annotations

from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Key
from jaxsbi.densities.base import (
    UNROLL,
    View,
    check_some,
    first_carry,
    kernel_init,
    require_dim,
    standard_normal_log_prob,
)
from jaxsbi.densities.conditioner import THIRD, degrees, hidden_features, hidden_stack
from jaxsbi.densities.elementwise import Affine, AffineSpline
from jaxsbi.densities.mixing import mix, mixing_stack, unmix
from jaxsbi.networks import activations

SHIFT_GAIN = 3.0  # chosen by validation loss, as the coupling's and THIRD

Layer = dict[str, Array]
Carry = tuple[Array, Array]


class _Autoregressive(nn.Module):
    """What affine and spline flows share: masked networks (MADE, Germain et al. 2015,
    arXiv:1502.03509) with an unmasked context, stacked over layers.
    """  # noqa: D205

    layers: int
    hidden: int
    depth: int
    activation: str
    transform: Affine | AffineSpline
    mixing: str
    residual: bool
    dtype: str | None
    dim: int

    def setup(self) -> None:
        dim, layers, hidden = self.dim, self.layers, self.hidden
        parameters = self.transform.num_parameters
        outputs = dim * parameters
        normal = kernel_init(THIRD, batch_axes=1)
        square = kernel_init(THIRD, batch_axes=2)
        zeros = nn.initializers.zeros
        self.read_context = nn.Dense(layers * hidden, kernel_init=kernel_init(THIRD))
        # Masks leave nothing for the first number to see, so the context also reaches the
        # outputs directly.
        self.read_outputs = nn.Dense(layers * outputs, kernel_init=zeros)
        # Linear paths to the shifts make linear regression easy to learn from few examples.
        self.shift_context = nn.Dense(layers * dim, kernel_init=zeros)
        stack = hidden_stack(self.param, square, layers, self.depth, hidden, self.residual)
        if self.residual:
            gate = layers * self.depth * hidden
            self.read_gate = nn.Dense(gate, kernel_init=kernel_init(THIRD))
        inputs, units = np.arange(dim), degrees(dim, hidden)
        targets = np.repeat(inputs, parameters)
        last = self.param("last", zeros, (layers, hidden, outputs))
        first = self.param("first", normal, (layers, dim, hidden))
        shift = self.param("shift", zeros, (layers, dim, dim))
        # Reversing makes the last number of one layer the first of the next.
        orders = np.broadcast_to(np.eye(dim)[::-1], (layers, dim, dim))
        self.stack = {
            "middle": stack["middle"] * (units >= units[:, None])[None, None],
            "middle_bias": stack["middle_bias"],
            "first": first * (units >= inputs[:, None])[None],
            "last": last * (targets > units[:, None])[None],
            "shift": shift * (inputs > inputs[:, None])[None],
            **mixing_stack(self.mixing, self.param, orders, first.dtype),
        }

    def _layers(self, context: Array) -> Layer:
        read = activations.get(self.activation)(h := self.read_context(context))
        layers = {
            **self.stack,
            "context": jnp.reshape(h, (self.layers, -1)),
            "outputs": jnp.reshape(self.read_outputs(read), (self.layers, -1)),
            "shift_context": jnp.reshape(self.shift_context(context), (self.layers, -1)),
        }
        if self.residual:
            gate = jax.nn.sigmoid(self.read_gate(context))
            layers["gate"] = jnp.reshape(gate, (self.layers, self.depth, self.hidden))
        return layers

    def _raw(self, layer: Layer, z: Array) -> tuple[Array, Array]:
        """Return raw parameters `(d, p)` and linear shifts `(d,)`."""
        h = layer["context"] + z @ layer["first"]
        h = hidden_features(layer, h, activations.get(self.activation), self.dtype)
        raw = h @ layer["last"] + layer["outputs"]
        shift = layer["shift_context"] + z @ layer["shift"]
        return jnp.reshape(raw, (self.dim, -1)), SHIFT_GAIN * shift

    def to_noise(self, z: Array, context: Array) -> tuple[Array, Array]:
        """Map data `(d,)` to noise `(d,)`; also the log-determinant of the map (a scalar)."""

        def forward(carry: Carry, layer: Layer) -> tuple[Carry, None]:
            z, total = carry
            raw, shift = self._raw(layer, z)
            z, log_det = self.transform.forward(raw, z - shift)
            z, mixed = mix(layer, z)
            return (z, total + (jnp.sum(log_det) + mixed)), None

        layers = self._layers(context)
        return jax.lax.scan(forward, first_carry(layers, z), layers, unroll=UNROLL)[0]

    def from_noise(self, u: Array, context: Array) -> tuple[Array, Array]:
        """Map noise `(d,)` to data `(d,)`; also the log-determinant of `to_noise` there."""

        def inverse(carry: Carry, layer: Layer) -> tuple[Carry, None]:
            u, total = carry
            u, mixed = unmix(layer, u)

            # Pass i has the first i numbers right, and fixes the next.
            def one_pass(_: Array, state: Carry) -> Carry:
                raw, shift = self._raw(layer, state[0])
                z, log_det = self.transform.inverse(raw, u)
                return z + shift, log_det

            z, log_det = jax.lax.fori_loop(0, self.dim, one_pass, (u, jnp.zeros_like(u)))
            return (z, total + (jnp.sum(log_det) + mixed)), None

        layers = self._layers(context)
        return jax.lax.scan(inverse, first_carry(layers, u), layers, reverse=True)[0]

    def log_prob(self, z: Array, context: Array) -> Array:
        u, log_det = self.to_noise(z, context)
        return standard_normal_log_prob(u) + log_det

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        u = jax.random.normal(key, (self.dim,), context.dtype)
        z, log_det = self.from_noise(u, context)
        return z, standard_normal_log_prob(u) + log_det


def _flow(density: Any, transform: Affine | AffineSpline) -> _Autoregressive:
    """Return the flow that a public density configures."""
    return _Autoregressive(
        layers=density.layers,
        hidden=density.hidden,
        depth=density.depth,
        activation=density.activation,
        transform=transform,
        mixing=density.mixing,
        residual=density.residual,
        dtype=density.dtype,
        dim=require_dim(density),
    )


class MaskedAutoregressive(nn.Module):
    """Affine masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057).

    Fast to evaluate; a draw costs one pass per dimension.

    Attributes:
        layers: Number of autoregressive layers, with reversals between them.
        hidden: Width of each conditioner.
        depth: Hidden layers of each conditioner.
        activation: A registered name.
        mixing: What happens between layers: reversals ("permute"), or learned linear maps that
            start there ("linear").
        residual: Whether conditioners have `depth` residual blocks gated by the context, in place
            of `depth` hidden layers.
        dtype: What the conditioners' hidden layers are computed in, such as "bfloat16" for a wide
            flow on a GPU; by default as the data. Weights and maps are never rounded to it.
        dim: Number of dimensions; set by the method.
    """

    layers: int = 5
    hidden: int = 64
    depth: int = 2
    activation: str = "tanh"
    mixing: str = "permute"
    residual: bool = False
    dtype: str | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there is none of what a number counts.
        """
        super().__post_init__()
        check_some(self, "layers", "hidden", "depth")

    def setup(self) -> None:
        """Create the layers."""
        self.flow = _flow(self, Affine())

    def log_prob(self, z: Array, context: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, given a context `(c,)`."""
        return self.flow.log_prob(z, context)

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        """Return one draw, shape `(d,)`, and its log-density."""
        return self.flow.sample_and_log_prob(key, context)

    def distribution(self, context: Array) -> distrax.Distribution:
        """Return a distrax view; it must not leave the trace it was made in."""
        return View(self, context)


class SplineAutoregressive(nn.Module):
    """Masked autoregressive flow of affine-plus-spline maps (Durkan et al. 2019, 1906.04032).

    Attributes:
        layers: Number of autoregressive layers, with reversals between them.
        hidden: Width of each conditioner.
        depth: Hidden layers of each conditioner.
        knots: Bins of each spline.
        bound: Half-width of the splines' interval.
        activation: A registered name.
        mixing: What happens between layers: reversals ("permute"), or learned linear maps that
            start there ("linear").
        residual: Whether conditioners have `depth` residual blocks gated by the context, in place
            of `depth` hidden layers.
        dtype: What the conditioners' hidden layers are computed in, such as "bfloat16" for a wide
            flow on a GPU; by default as the data. Weights and maps are never rounded to it.
        dim: Number of dimensions; set by the method.
    """

    layers: int = 5
    hidden: int = 50
    depth: int = 2
    knots: int = 8
    bound: float = 4.0
    activation: str = "silu"
    mixing: str = "permute"
    residual: bool = False
    dtype: str | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there is none of what a number counts.
        """
        super().__post_init__()
        check_some(self, "layers", "hidden", "depth", "knots")

    def setup(self) -> None:
        """Create the layers."""
        self.flow = _flow(self, AffineSpline(self.knots, self.bound))

    def log_prob(self, z: Array, context: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, given a context `(c,)`."""
        return self.flow.log_prob(z, context)

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        """Return one draw, shape `(d,)`, and its log-density."""
        return self.flow.sample_and_log_prob(key, context)

    def distribution(self, context: Array) -> distrax.Distribution:
        """Return a distrax view; it must not leave the trace it was made in."""
        return View(self, context)
