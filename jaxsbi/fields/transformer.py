"""A transformer whose tokens are numbers: any of them may be given, asked for or left out."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array
from jaxsbi.fields.residual import cosines

EXPANSION = 2
"""Hidden units of each token's perceptron, in units of the width."""
EPSILON = 1e-5
"""Keeps the normalisation of a token of equal numbers finite."""

Layer = dict[str, Array]


class JointTransformer(nn.Module):
    """The field of any conditional of a joint law (Simformer, Gloeckler et al. 2024).

    Source: arXiv:2404.09636. One token per number: what the number is (learned), its value in a
    learned direction, and whether it is given. Each layer is attention and a perceptron, both
    before-normalised and modulated by the noise level with a zero start (Peebles & Xie 2022,
    arXiv:2212.09748); layers are stacked in one array each and scanned. The last layer starts at
    zero: an untrained field is N(0, I) for every question. A token that is absent is no key of any
    attention: nothing depends on its value.

    The default is sized for a few CPU cores and ten to twenty numbers. A GPU affords
    `JointTransformer(width=128, layers=6, heads=8)`; attention costs the square of the tokens.

    Attributes:
        width: Numbers per token; a multiple of `heads`.
        layers: Transformer layers.
        heads: Attention heads.
    """

    width: int = 48
    layers: int = 3
    heads: int = 4

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If the width is no multiple of the heads, or there are no layers.
        """
        super().__post_init__()
        if min(self.heads, self.layers) < 1 or self.width % self.heads:
            raise ValueError(
                "width: expected a multiple of heads, and at least one head and layer, got "
                f"width={self.width}, heads={self.heads} and layers={self.layers}."
            )

    @nn.compact
    def __call__(self, noise: Array, u: Array, given: Array, present: Array) -> Array:
        """Return F, shape `(t,)`; only its free entries (present and not given) mean anything.

        Args:
            noise: log(sigma / alpha), a scalar (`jaxsbi.fields.log_ratio`).
            u: One number per token, shape `(t,)`: noisy and scaled to unit variance where free
                (`fields/paths.py`), without noise where given.
            given: Which numbers are conditioned on, booleans of shape `(t,)`.
            present: Which numbers there are at all, booleans of shape `(t,)`.
        """
        # Not a product: what is missing may be NaN.
        u = jnp.where(present, u, 0.0)
        level = nn.silu(nn.Dense(self.width, name="noise")(cosines(noise).astype(u.dtype)))
        zeros = nn.initializers.zeros
        modulation = nn.Dense(
            (6 * self.layers + 2) * self.width, name="modulation", kernel_init=zeros
        )(level)
        last, modulation = modulation[: 2 * self.width], modulation[2 * self.width :]
        stack = self._stack()
        stack["modulation"] = modulation.reshape(self.layers, 6, 1, self.width)

        def layer(h: Array, layer: Layer) -> tuple[Array, None]:
            return _layer(h, layer, present, self.heads), None

        h, _ = jax.lax.scan(layer, self._embed(u, given), stack)
        readout = self.param("readout", zeros, (u.shape[0], self.width))
        scale, shift = last.reshape(2, 1, self.width)
        return jnp.sum(readout * (h * (1.0 + scale) + shift), -1)

    def _embed(self, u: Array, given: Array) -> Array:
        """Return the tokens, shape `(t, width)`."""
        normal = nn.initializers.normal(1.0)
        shape = (2, u.shape[0], self.width)
        # Of two rows, the first is for numbers that are free, the second for those given.
        identity = self.param("identity", normal, shape)
        value = self.param("value", normal, shape)
        role = given[:, None]
        return jnp.where(role, identity[1], identity[0]) + u[:, None] * jnp.where(
            role, value[1], value[0]
        )

    def _stack(self) -> Layer:
        """Return the layers' parameters, each with a leading axis of layers."""
        kernel = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
        wide = EXPANSION * self.width
        shapes = {
            "attend": (self.width, 3 * self.width),
            "mix": (self.width, self.width),
            "expand": (self.width, wide),
            "contract": (wide, self.width),
        }
        layers = {n: self.param(n, kernel, (self.layers, *s)) for n, s in shapes.items()}
        layers["bias"] = self.param("bias", nn.initializers.zeros, (self.layers, 1, wide))
        return layers


def _layer(h: Array, layer: Layer, present: Array, heads: int) -> Array:
    """Return the tokens `(t, width)` after one layer."""
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = layer["modulation"]
    r = _normalize(h) * (1.0 + scale) + shift
    h = h + gate * (_attention(r @ layer["attend"], present, heads) @ layer["mix"])
    r = _normalize(h) * (1.0 + scale_mlp) + shift_mlp
    return h + gate_mlp * (nn.silu(r @ layer["expand"] + layer["bias"]) @ layer["contract"])


def _attention(qkv: Array, present: Array, heads: int) -> Array:
    """Return what each token hears from those present, shape `(t, width)`."""
    tokens = qkv.shape[0]
    q, k, v = jnp.moveaxis(qkv.reshape(tokens, 3, heads, -1), 1, 0)
    scores = jnp.einsum("ihc,jhc->hij", q, k) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(present[None, None], scores, -jnp.inf), -1)
    return jnp.einsum("hij,jhc->ihc", weights, v).reshape(tokens, -1)


def _normalize(h: Array) -> Array:
    centred = h - jnp.mean(h, -1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + EPSILON)
