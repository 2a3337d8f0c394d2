"""A network that reads long series by linear recurrences."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key
from jaxsbi.missing import widen
from jaxsbi.networks import activations
from jaxsbi.networks.masks import members, pool

SLOWEST, FASTEST = 0.999, 0.9
"""Moduli of the states' factors per step at the start: memories of about 10 to 1,000 steps."""


class StateSpace(nn.Module):
    """Diagonal linear recurrences and perceptrons (LRU, Orvieto et al. 2023, arXiv:2303.06349).

    Unlike a gated recurrent network's, its steps are an associative scan: 10,000 of them are 14
    rounds of parallel work, in training, too, and no gradient is passed through a step more than
    once. A masked step, `{"values": (n, features), "mask": (n,)}`, leaves the states as they are,
    wherever it stands in the series: it takes no time.

    Attributes:
        out: Width of the summary.
        hidden: Width of the series between blocks.
        states: Complex states of each recurrence.
        blocks: Recurrences, each followed by a perceptron.
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    out: int = 16
    hidden: int = 32
    states: int = 32
    blocks: int = 2
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one series, `(steps, features)` or a masked one, to `(out,)`.

        Raises:
            TypeError: If a mask is not boolean.
            ValueError: If `x` is no such series.
        """
        given = members("StateSpace", x, "steps, features")
        activation = activations.get(self.activation)
        h = nn.Dense(self.hidden)(given.values)
        for _ in range(self.blocks):
            r = _Recurrence(self.hidden, self.states)(nn.LayerNorm()(h), given.mask)
            # A gate, as in the paper: the recurrence itself is linear.
            h = h + nn.Dense(self.hidden)(activation(r)) * nn.sigmoid(nn.Dense(self.hidden)(r))
        h = nn.LayerNorm()(h)
        last = h[-1] if given.mask is None else _last(h, given.mask)
        h = jnp.concatenate([last, pool(h, given.mask)])
        return nn.Dense(self.out)(activation(nn.Dense(2 * self.hidden)(h)))


class _Recurrence(nn.Module):
    """s_k = a s_{k-1} + B u_k, read as Re(C s_k) + D u_k: a series `(n, c)` to another."""

    hidden: int
    states: int

    @nn.compact
    def __call__(self, u: Array, mask: Array | None) -> Array:
        n, m = u.shape[0], self.states
        # |a| = exp(-exp(decay)) < 1 whatever is learned: no recurrence can explode.
        decay = jnp.exp(self.param("decay", _decays, (m,)))
        phase = self.param("phase", nn.initializers.uniform(jnp.pi / 5), (m,))
        modulus = jnp.exp(-decay)
        # Keeps the states' variance near that of the input, for white noise.
        gain = jnp.sqrt(-jnp.expm1(-2.0 * decay))
        v = nn.Dense(2 * m, use_bias=False, name="enter")(u) * jnp.tile(gain, 2)[None]
        # Real and imaginary parts apart, so that every array has the data's dtype.
        factors = jnp.stack([modulus * jnp.cos(phase), modulus * jnp.sin(phase)])
        factors = jnp.broadcast_to(factors[:, None], (2, n, m))
        terms = jnp.moveaxis(v.reshape(n, 2, m), 1, 0)
        if mask is not None:
            there = widen(mask, 2)[None]
            one = jnp.array([1.0, 0.0], v.dtype).reshape(2, 1, 1)
            factors, terms = jnp.where(there, factors, one), jnp.where(there, terms, 0.0)
        factor, term = (factors[0], factors[1]), (terms[0], terms[1])
        _, s = jax.lax.associative_scan(_compose, (factor, term))
        both = jnp.concatenate(s, -1)
        return nn.Dense(self.hidden, name="leave")(both) + nn.Dense(self.hidden, name="skip")(u)


Complex = tuple[Array, Array]


def _compose(first: tuple[Complex, Complex], then: tuple[Complex, Complex]) -> Any:
    """Return the affine map that is `first`, then `then`."""
    moved = _times(then[0], first[1])
    return _times(first[0], then[0]), (moved[0] + then[1][0], moved[1] + then[1][1])


def _times(a: Complex, b: Complex) -> Complex:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _decays(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Return logarithms of decay rates whose moduli lie between the fastest and the slowest."""
    low, high = (-jnp.log(jnp.asarray(m, dtype)) for m in (SLOWEST, FASTEST))
    return jax.random.uniform(key, shape, dtype, jnp.log(low), jnp.log(high))


def _last(h: Array, mask: Array) -> Array:
    """Return the last step that is there, 0 if none is."""
    n = len(mask)
    place = jnp.max(jnp.where(mask, jnp.arange(n), 0))
    return jnp.where(jnp.any(mask), h[place], 0.0)
