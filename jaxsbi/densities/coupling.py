"""Coupling flows: half of the numbers are mapped given the other half and the context."""

from __future__ import annotations

import math
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
from jaxsbi.densities.conditioner import hidden_features, hidden_stack
from jaxsbi.densities.elementwise import AffineSpline
from jaxsbi.densities.mixing import mix, mixing_stack, product, unmix
from jaxsbi.networks import activations

SHIFT_GAIN = 10.0
"""How much faster than the network the linear path to a shift learns: the linear part of a problem
is then found before the network starts to fit noise (10-d Gaussian posterior, 10,000 simulations,
excess over the exact loss: 0.10 nat with a gain of 1, 0.08 with 4, 0.03 with 10)."""

Layer = dict[str, Array]
Carry = tuple[Array, Array]


class SplineCoupling(nn.Module):
    """Coupling flow of affine-plus-spline maps, equally fast to sample and to evaluate.

    Sources: Dinh et al. 2017, arXiv:1605.08803 (coupling); Durkan et al. 2019, arXiv:1906.04032
    (splines).

    Attributes:
        layers: Number of coupling layers.
        hidden: Width of each conditioner.
        depth: Hidden layers of each conditioner.
        knots: Bins of each spline.
        bound: Half-width of the splines' interval.
        activation: A registered name.
        mixing: What happens between layers: fixed permutations ("permute"), or learned linear maps
            that start there ("linear").
        residual: Whether conditioners have `depth` residual blocks gated by the context, in place
            of `depth` hidden layers.
        dtype: What the conditioners' hidden layers are computed in, such as "bfloat16" for a wide
            flow on a GPU; by default as the data. Weights and maps are never rounded to it.
        dim: Number of dimensions; set by the method.
    """

    layers: int = 6
    hidden: int = 50
    depth: int = 2
    knots: int = 8
    bound: float = 4.0
    activation: str = "relu"
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
        """Create the parameters, stacked over layers: few arrays compile and update fast."""
        dim, layers, hidden = require_dim(self), self.layers, self.hidden
        self.split = dim // 2
        self.transform = AffineSpline(self.knots, self.bound)
        outputs = (dim - self.split) * self.transform.num_parameters
        normal = kernel_init(batch_axes=1)
        zeros = nn.initializers.zeros
        # One product reads the context for all layers at once; a linear path to the shifts makes
        # linear regression, the commonest part of a posterior, easy to learn from few examples.
        self.read_context = nn.Dense(layers * hidden, kernel_init=kernel_init())
        self.shift_context = nn.Dense(layers * (dim - self.split), kernel_init=zeros)
        hidden_init = kernel_init(batch_axes=2)
        stack = hidden_stack(self.param, hidden_init, layers, self.depth, hidden, self.residual)
        if self.residual:
            self.read_gate = nn.Dense(layers * self.depth * hidden, kernel_init=kernel_init())
        last = self.param("last", zeros, (layers, hidden, outputs))
        bias = self.param("last_bias", zeros, (layers, outputs))
        # A product with a constant feature adds the bias, and leaves vmap's batch axis last; so
        # does one with the identity for the context's shifts.
        moved = dim - self.split
        last = jnp.concatenate([last, bias[:, None]], 1)
        last = jnp.reshape(last, (layers, hidden + 1, moved, -1))
        stack["last"] = jnp.transpose(last, (0, 2, 3, 1))
        stack["shift"] = jnp.broadcast_to(jnp.eye(moved, dtype=last.dtype), (layers, moved, moved))
        if self.split:
            stack["first"] = self.param("first", normal, (layers, self.split, hidden))
            shift = self.param("shift", zeros, (layers, self.split, moved))
            stack["shift"] = jnp.concatenate([shift, stack["shift"]], 1)
        orders = _orders(layers, dim)
        self.stack = stack | mixing_stack(self.mixing, self.param, orders, last.dtype)

    def _layers(self, context: Array) -> Layer:
        """Return every layer's parameters and its read context."""
        read = jnp.reshape(self.read_context(context), (self.layers, self.hidden))
        # Every step moves every weight alike: the more numbers, the more their sum moves.
        gain = min(1.0, math.sqrt(10.0 / max(context.size, 1)))
        shift = gain * jnp.reshape(self.shift_context(context), (self.layers, -1))
        layers = {**self.stack, "context": read, "shift_context": shift}
        if self.residual:
            gate = jax.nn.sigmoid(self.read_gate(context))
            layers["gate"] = jnp.reshape(gate, (self.layers, self.depth, self.hidden))
        return layers

    def _raw(self, layer: Layer, fixed: Array) -> tuple[Array, Array]:
        """Return raw parameters `(m, p)` and linear shifts `(m,)` of the m numbers to move."""
        h = layer["context"] + (fixed @ layer["first"] if self.split else 0.0)
        h = hidden_features(layer, h, activations.get(self.activation), self.dtype)
        raw = _per_number(layer["last"], jnp.concatenate([h, jnp.ones(1, h.dtype)]))
        shift = product(layer["shift"].T, jnp.concatenate([fixed, layer["shift_context"]]))
        return raw, SHIFT_GAIN * shift

    def _join(self, fixed: Array, moved: Array) -> Array:
        """Concatenate; products leave vmap's batch axis last, and stay out of the next fusion."""
        place = jnp.eye(require_dim(self), dtype=moved.dtype)
        return product(place[:, : self.split], fixed) + product(place[:, self.split :], moved)

    def to_noise(self, z: Array, context: Array) -> tuple[Array, Array]:
        """Map data `(d,)` to noise `(d,)`; also the log-determinant of the map (a scalar)."""

        def forward(carry: Carry, layer: Layer) -> tuple[Carry, None]:
            z, total = carry
            z, mixed = mix(layer, z)
            fixed, moved = z[: self.split], z[self.split :]
            raw, shift = self._raw(layer, fixed)
            moved, log_det = self.transform.forward(raw, moved - shift)
            return (self._join(fixed, moved), total + (jnp.sum(log_det) + mixed)), None

        layers = self._layers(context)
        return jax.lax.scan(forward, first_carry(layers, z), layers, unroll=UNROLL)[0]

    def from_noise(self, u: Array, context: Array) -> tuple[Array, Array]:
        """Map noise `(d,)` to data `(d,)`; also the log-determinant of `to_noise` there."""
        layers = self._layers(context)
        start = first_carry(layers, u)
        # A product puts vmap's batch axis last for the spline, where a slice would not.
        keep = jnp.eye(require_dim(self), dtype=start[0].dtype)[self.split :]

        def inverse(carry: Carry, layer: Layer) -> tuple[Carry, None]:
            u, total = carry
            fixed = u[: self.split]
            raw, shift = self._raw(layer, fixed)
            moved, log_det = self.transform.inverse(raw, product(keep, u))
            u, mixed = unmix(layer, self._join(fixed, moved + shift))
            return (u, total + (jnp.sum(log_det) + mixed)), None

        return jax.lax.scan(inverse, start, layers, reverse=True, unroll=UNROLL)[0]

    def log_prob(self, z: Array, context: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, given a context `(c,)`."""
        u, log_det = self.to_noise(z, context)
        return standard_normal_log_prob(u) + log_det

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        """Return one draw, shape `(d,)`, and its log-density."""
        u = jax.random.normal(key, (require_dim(self),), context.dtype)
        z, log_det = self.from_noise(u, context)
        return z, standard_normal_log_prob(u) + log_det

    def distribution(self, context: Array) -> distrax.Distribution:
        """Return a distrax view; it must not leave the trace it was made in."""
        return View(self, context)


@jax.custom_jvp
def _per_number(weights: Array, h: Array) -> Array:
    """Multiply features `(n,)` by weights `(m, p, n)`: raw parameters `(m, p)`.

    Its derivative by the features is a batch of products, one per number. In reverse, that of a
    single product would sum over two axes at once, for which XLA brings the batch axis of
    `jax.vmap` to the front, through the whole derivative of the spline.
    """
    return jax.lax.dot_general(weights, h, (((2,), (0,)), ((), ())))


@_per_number.defjvp
def _per_number_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple:
    (weights, h), (dweights, dh) = primals, tangents
    dh = jnp.broadcast_to(dh, (weights.shape[0], *dh.shape))
    one_each: Any = (((2,), (1,)), ((0,), (0,)))
    moved = jax.lax.dot_general(weights, dh, one_each)
    return _per_number(weights, h), _per_number(dweights, h) + moved


def _orders(layers: int, dim: int) -> Any:
    """Fixed permutation matrices, shape `(layers, d, d)`.

    Every second layer moves what the one before it kept; each pair starts from a new random
    order, so that all numbers come to see one another.
    """
    rng = np.random.default_rng(dim)
    orders = []
    for layer in range(layers):
        if layer % 2 or dim == 2:
            order = np.roll(np.arange(dim), dim // 2) if layer else np.arange(dim)
        else:
            order = rng.permutation(dim)
        orders.append(np.eye(dim)[order])
    return np.stack(orders)
