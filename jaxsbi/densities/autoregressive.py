"""Masked autoregressive flows: each number is mapped given the ones before it and the context."""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Key
from jaxsbi.densities.base import (
    UNROLL,
    View,
    kernel_init,
    require_dim,
    standard_normal_log_prob,
)
from jaxsbi.densities.elementwise import Affine, AffineSpline, add_shift
from jaxsbi.networks import activations

# Chosen by validation loss on two moons and a 10-d Gaussian; masked tanh networks are smoother
# than a coupling's, and need less restraint (see `kernel_init` and the coupling's gain).
THIRD = 1.0 / 3.0
SHIFT_GAIN = 3.0

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
    dim: int

    def setup(self) -> None:
        dim, layers, hidden = self.dim, self.layers, self.hidden
        outputs = dim * self.transform.num_parameters
        normal = kernel_init(THIRD, batch_axes=1)
        square = kernel_init(THIRD, batch_axes=2)
        zeros = nn.initializers.zeros
        self.read_context = nn.Dense(layers * hidden, kernel_init=kernel_init(THIRD))
        # Masks leave nothing for the first number to see, so the context also reaches the
        # outputs directly.
        self.read_outputs = nn.Dense(layers * outputs, kernel_init=zeros)
        # Linear paths to the shifts make linear regression easy to learn from few examples.
        self.shift_context = nn.Dense(layers * dim, kernel_init=zeros)
        middle = self.param("middle", square, (layers, self.depth - 1, hidden, hidden))
        # Degrees cycle over 0 … d-2: a hidden unit of degree m sees inputs 0 … m only, and the
        # parameters of number i see units of degree < i.
        inputs = np.arange(dim)
        units = np.arange(hidden) % max(dim - 1, 1)
        if hidden < dim - 1:  # too few units for all degrees: spread them
            units = np.arange(hidden) * (dim - 1) // hidden
        targets = np.repeat(inputs, self.transform.num_parameters)
        self.stack = {
            "first": self.param("first", normal, (layers, dim, hidden))
            * (units >= inputs[:, None])[None],
            "middle": middle * (units >= units[:, None])[None, None],
            "middle_bias": self.param("middle_bias", zeros, (layers, self.depth - 1, hidden)),
            "last": self.param("last", zeros, (layers, hidden, outputs))
            * (targets > units[:, None])[None],
            "shift": self.param("shift", zeros, (layers, dim, dim))
            * (inputs > inputs[:, None])[None],
        }

    def _layers(self, context: Array) -> Layer:
        read = activations.get(self.activation)(h := self.read_context(context))
        return {
            **self.stack,
            "context": jnp.reshape(h, (self.layers, -1)),
            "outputs": jnp.reshape(self.read_outputs(read), (self.layers, -1)),
            "shift_context": jnp.reshape(self.shift_context(context), (self.layers, -1)),
        }

    def _raw(self, layer: Layer, z: Array) -> Array:
        activation = activations.get(self.activation)
        h = layer["context"] + z @ layer["first"]
        for i in range(self.depth - 1):
            h = activation(h) @ layer["middle"][i] + layer["middle_bias"][i]
        raw = activation(h) @ layer["last"] + layer["outputs"]
        raw = jnp.reshape(raw, (self.dim, self.transform.num_parameters))
        shift = layer["shift_context"] + z @ layer["shift"]
        return add_shift(raw, SHIFT_GAIN * shift)

    def log_prob(self, z: Array, context: Array) -> Array:
        def forward(carry: Carry, layer: Layer) -> tuple[Carry, None]:
            z, total = carry
            z, log_det = self.transform.forward(self._raw(layer, z), z)
            # Reversing makes the last number of one layer the first of the next.
            return (z[::-1], total + jnp.sum(log_det)), None

        start = (z, jnp.zeros((), z.dtype))
        (u, total), _ = jax.lax.scan(forward, start, self._layers(context), unroll=UNROLL)
        return standard_normal_log_prob(u) + total

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        def inverse(carry: Carry, layer: Layer) -> tuple[Carry, None]:
            u, total = carry
            u = u[::-1]

            # Pass i has the first i numbers right, and fixes the next.
            def one_pass(_: Array, state: Carry) -> Carry:
                return self.transform.inverse(self._raw(layer, state[0]), u)

            z, log_det = jax.lax.fori_loop(0, self.dim, one_pass, (u, jnp.zeros_like(u)))
            return (z, total + jnp.sum(log_det)), None

        u = jax.random.normal(key, (self.dim,), context.dtype)
        start = (u, standard_normal_log_prob(u))
        (z, total), _ = jax.lax.scan(inverse, start, self._layers(context), reverse=True)
        return z, total


class MaskedAutoregressive(nn.Module):
    """Affine masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057).

    Fast to evaluate; a draw costs one pass per dimension.

    Attributes:
        layers: Number of autoregressive layers, with reversals between them.
        hidden: Width of each conditioner.
        depth: Hidden layers of each conditioner.
        activation: A registered name.
        dim: Number of dimensions; set by the method.
    """

    layers: int = 5
    hidden: int = 64
    depth: int = 2
    activation: str = "tanh"
    dim: int | None = None

    def setup(self) -> None:
        """Create the layers."""
        self.flow = _Autoregressive(
            self.layers, self.hidden, self.depth, self.activation, Affine(), require_dim(self)
        )

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
        dim: Number of dimensions; set by the method.
    """

    layers: int = 5
    hidden: int = 50
    depth: int = 2
    knots: int = 8
    bound: float = 4.0
    activation: str = "silu"
    dim: int | None = None

    def setup(self) -> None:
        """Create the layers."""
        transform = AffineSpline(self.knots, self.bound)
        self.flow = _Autoregressive(
            self.layers, self.hidden, self.depth, self.activation, transform, require_dim(self)
        )

    def log_prob(self, z: Array, context: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, given a context `(c,)`."""
        return self.flow.log_prob(z, context)

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        """Return one draw, shape `(d,)`, and its log-density."""
        return self.flow.sample_and_log_prob(key, context)

    def distribution(self, context: Array) -> distrax.Distribution:
        """Return a distrax view; it must not leave the trace it was made in."""
        return View(self, context)
