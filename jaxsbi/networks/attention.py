"""Networks of attention: for sets, and for sequences with positions; both with masks."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxsbi.base import Array, Data
from jaxsbi.networks import activations
from jaxsbi.networks.masks import members

LONGEST = 10_000.0
"""Longest wavelength of the positions, in members."""


class SetTransformer(nn.Module):
    """Permutation-invariant summary of a set by attention (Lee et al. 2019, arXiv:1810.00825).

    A masked set, `{"values": (n, features), "mask": (n,)}`, gives the same whatever the padding;
    a set of which nothing is there has a finite summary, too, always the same.

    Attributes:
        out: Width of the summary.
        hidden: Width of a member; a multiple of `heads`.
        heads: Attention heads.
        blocks: Rounds of attention before pooling.
        inducing: Learned points through which the members hear of each other, at a cost of n ×
            inducing instead of n²; `None` lets each attend to each.
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    out: int = 16
    hidden: int = 64
    heads: int = 4
    blocks: int = 2
    inducing: int | None = 16
    activation: str = "silu"

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If `hidden` is no multiple of `heads`.
        """
        super().__post_init__()
        _check(self)

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one set, `(members, features)` or a masked one, to `(out,)`.

        Raises:
            TypeError: If a mask is not boolean.
            ValueError: If `x` is no such set.
        """
        given = members("SetTransformer", x, "members, features")
        h, start = nn.Dense(self.hidden)(given.values), nn.initializers.lecun_normal()
        for i in range(self.blocks):
            if self.inducing is None:
                h = self._attend()(h, h, given.mask)
            else:
                points = self.param(f"inducing_{i}", start, (self.inducing, self.hidden))
                h = self._attend()(h, self._attend()(points, h, given.mask), None)
        asking = self.param("pool", start, (1, self.hidden))
        h = nn.LayerNorm()(self._attend()(asking, h, given.mask)[0])
        return nn.Dense(self.out)(_counted(h, given.mask))

    def _attend(self) -> _Attend:
        return _Attend(self.hidden, self.heads, self.activation)


class Transformer(nn.Module):
    """Transformer encoder of a sequence (Vaswani et al. 2017, arXiv:1706.03762), pooled.

    Members are told apart by their place in the sequence or, where the data say at which times,
    wavelengths or points they were taken, by Fourier features of these (Tancik et al. 2020,
    arXiv:2006.10739): `{"values": (n, features), "positions": (n, k)}`. With these, order says
    nothing. A "mask" of shape `(n,)` gives the same whatever the padding behind the members.

    Attributes:
        out: Width of the summary.
        hidden: Width of a member; a multiple of `heads`.
        heads: Attention heads.
        blocks: Encoder blocks.
        bands: Octaves of the Fourier features, from a period of 8 standard deviations of the
            positions down to 8 / 2**(bands - 1).
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    out: int = 16
    hidden: int = 64
    heads: int = 4
    blocks: int = 2
    bands: int = 8
    activation: str = "silu"

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If `hidden` is no multiple of `heads`.
        """
        super().__post_init__()
        _check(self)

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one sequence, `(members, features)` or a dict, to `(out,)`.

        Raises:
            TypeError: If a mask is not boolean.
            ValueError: If `x` is no such sequence.
        """
        given = members("Transformer", x, "members, features", extra=("positions",))
        positions = given.extra.get("positions")
        if positions is None:
            places = index_features(given.values.shape[0], self.hidden).astype(given.values.dtype)
        else:
            places = fourier_features(positions, self.bands)
        h = nn.Dense(self.hidden)(given.values) + nn.Dense(self.hidden)(places)
        for _ in range(self.blocks):
            h = _Attend(self.hidden, self.heads, self.activation)(h, h, given.mask)
        asking = self.param("pool", nn.initializers.lecun_normal(), (1, self.hidden))
        h = _Attend(self.hidden, self.heads, self.activation)(asking, h, given.mask)[0]
        return nn.Dense(self.out)(_counted(nn.LayerNorm()(h), given.mask))


class _Attend(nn.Module):
    """Members `(q, c)` that hear those `(k, c)` of a mask `(k,)`, and a perceptron on each."""

    hidden: int
    heads: int
    activation: str

    @nn.compact
    def __call__(self, h: Array, keys: Array, mask: Array | None) -> Array:
        queries = nn.LayerNorm()(h)
        keys = queries if keys is h else nn.LayerNorm()(keys)
        allowed = None if mask is None else jnp.broadcast_to(mask, (1, len(h), len(keys)))
        r = nn.MultiHeadDotProductAttention(self.heads)(queries, keys, mask=allowed)
        # Where there is nobody to hear, softmax would listen to the padding.
        h = h + (r if mask is None else jnp.where(jnp.any(mask), r, 0.0))
        r = activations.get(self.activation)(nn.Dense(2 * self.hidden)(nn.LayerNorm()(h)))
        return h + nn.Dense(self.hidden)(r)


def index_features(length: int, width: int) -> Array:
    """Return sines and cosines of each member's place, `(length, 2 * (width // 2))`."""
    half = max(width // 2, 1)
    frequency = LONGEST ** (-jnp.arange(half) / half)
    phase = jnp.arange(length)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)


def fourier_features(positions: Array, bands: int) -> Array:
    """Return positions `(n, k)` with their sines and cosines, `(n, k * (1 + 2 * bands))`."""
    frequency = 2.0 ** jnp.arange(bands, dtype=positions.dtype) * (jnp.pi / 4)
    phase = (positions[..., None] * frequency[None, None]).reshape(len(positions), -1)
    return jnp.concatenate([positions, jnp.sin(phase), jnp.cos(phase)], -1)


def _counted(h: Array, mask: Array | None) -> Array:
    """Return `h` and, with a mask, how many members there are: attention averages."""
    if mask is None:
        return h
    return jnp.concatenate([h, jnp.log1p(jnp.sum(mask).astype(h.dtype))[None]])


def _check(module: SetTransformer | Transformer) -> None:
    if module.heads < 1 or module.hidden % module.heads:
        raise ValueError(
            f"{type(module).__name__}: expected hidden to be a multiple of heads, got "
            f"hidden={module.hidden} and heads={module.heads}."
        )
