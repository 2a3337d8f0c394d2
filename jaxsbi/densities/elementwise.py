"""Monotone maps of one number with parameters from a network, and their exact log-derivatives.

Both are written for d numbers, with one row of raw parameters `(d, p)` for each; raw parameters
of zero give the identity. They are bounded so that float32 round trips hold for any of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array
from jaxsbi.densities import quadratic
from jaxsbi.densities.quadratic import Bin, clamp

MAX_LOGIT = 30.0
"""Raw widths and heights are cut here: exp(±30) has no overflow and lies beyond every floor."""


def row_product(rows: np.ndarray, x: Array) -> Array:
    """Multiply each row of `x` `(d, n)`, or number `(d,)`, by a matrix `(m, n)`, or vector `(m,)`.

    The result, `(d, m)`, has vmap's batch axis last: a batch of products, one for each number.
    """
    matrix = jnp.asarray(np.broadcast_to(rows, (x.shape[0], *rows.shape)), x.dtype)
    contract: Any = ((2,), (1,)) if x.ndim > 1 else ((), ())
    highest = jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(matrix, x, (contract, ((0,), (0,))), precision=highest)


def ordered_sum(x: Array) -> Array:
    """Sum `(d, n)` over its last axis from the first to the last, whatever the layout in memory.

    A compiler chooses the order of a reduction by the layout, which one point and a batch of them
    do not share.
    """
    first, *rest = jax.lax.split(x, (1,) * x.shape[1], 1)
    for part in rest:
        first = first + part
    return jnp.sum(first, 1)


@dataclasses.dataclass(frozen=True)
class Affine:
    """u = (z - shift) exp(-s), with the log-scale s bounded smoothly to ±`max_log_scale`."""

    max_log_scale: float = 6.0

    @property
    def num_parameters(self) -> int:
        """Raw parameters per number."""
        return 2

    def _unpack(self, raw: Array) -> tuple[Array, Array]:
        bound = self.max_log_scale
        # Sums over an axis of one keep the batch axis last, which indexing would not.
        shift, log_scale = (jnp.sum(part, 1) for part in jax.lax.split(raw, (1, 1), 1))
        return shift, bound * jnp.tanh(log_scale / bound)

    def forward(self, raw: Array, z: Array) -> tuple[Array, Array]:
        """Map data `z` `(d,)` with raw parameters `(d, 2)` to noise; also log|du/dz| per number."""
        shift, log_scale = self._unpack(raw)
        return (z - shift) * jnp.exp(-log_scale), -log_scale

    def inverse(self, raw: Array, u: Array) -> tuple[Array, Array]:
        """Map noise to data; also log|du/dz| (of the forward map) per number."""
        shift, log_scale = self._unpack(raw)
        return u * jnp.exp(log_scale) + shift, -log_scale


@dataclasses.dataclass(frozen=True)
class AffineSpline:
    """An affine map followed by a monotone rational-quadratic spline on [-bound, bound].

    The spline is that of Durkan et al. 2019 (arXiv:1906.04032) with identity tails. The affine
    part moves each conditional onto the spline's interval, so that few knots resolve a narrow
    posterior.

    The bin is chosen by comparisons and sums instead of gathers: on CPU and GPU alike a gather
    per number costs more than the whole spline. Only operations are used that leave the batch axis
    of `jax.vmap` in the last place, where compilers vectorise: sums, products, splits, and
    arithmetic of equal shapes or with plain numbers.

    Attributes:
        knots: Number of bins.
        bound: Half-width of the spline's interval.
        max_log_scale: Bound of the affine log-scale.
    """

    knots: int = 8
    bound: float = 4.0
    max_log_scale: float = 6.0

    @property
    def num_parameters(self) -> int:
        """Raw parameters per number: shift, scale, widths, heights, inner slopes."""
        return 2 + 3 * self.knots - 1

    # Floors keep slopes within about [0.02, 60]: a float32 round trip then loses at most two
    # digits per layer (with floors of 1e-4 it can lose all of them).
    @property
    def _step(self) -> float:
        # The least width of a bin, in few enough bits that its multiples are exact.
        return round(0.3 * self.bound / self.knots * 2**16) / 2**16

    @property
    def _room(self) -> float:
        # What the bins share beyond their least widths.
        return 2.0 * self.bound - self.knots * self._step

    def _locate(self, position: Array, logits: Array) -> tuple[Array, Array]:
        """Return, as zeros and ones `(d, k)`, the bins before `position` and the one it is in."""
        k, step = self.knots, self._step
        along, position = jax.lax.stop_gradient((_relative(logits), position))
        # Knots in units of 1 / total are linear in the relative widths: the left end is zero, and
        # the right end lies out of reach, so that every position has a bin.
        index = np.arange(k + 1)
        knots = self._room * (np.arange(k) < index[:, None]) + step * index[:, None]
        knots[k] = 4.0 * self.bound
        reach = row_product(knots, along)
        where = row_product(np.ones(k), (position + self.bound) * ordered_sum(along))
        passed = (where >= reach[:, 1:]).astype(along.dtype)
        return passed, (where >= reach[:, :-1]).astype(along.dtype) - passed

    def _bin(self, raw: Sequence[Array], position: Array, *, inverted: bool) -> Bin:
        """Return the bin of `position`, on the axis of widths or, inverted, that of heights."""
        width, height, slope = raw
        passed, here = self._locate(position, height if inverted else width)
        before = self._step * jnp.sum(passed, 1) - self.bound
        # Both directions must find the same knots to the last bit, or a round trip through a flat
        # place multiplies the difference. Compilers may round a product that is added once or
        # twice, so there is none here that is not exact: quotients are added instead.
        (left, w), (lower, h) = (_shares(a, passed, here, self._room) for a in (width, height))
        zero = np.zeros((), slope.dtype)
        raw0, raw1 = (
            jnp.sum(jax.lax.pad(slope, zero, ((0, 0, 0), ends)) * here, 1)
            for ends in ((1, 0, 0), (0, 1, 0))
        )
        step = self._step
        return Bin(before + left, before + lower, step + w, step + h, raw0, raw1)

    def forward(self, raw: Array, z: Array) -> tuple[Array, Array]:
        """Map data `z` `(d,)` with raw parameters `(d, p)` to noise; also log|du/dz| per number."""
        affine, *bins = jax.lax.split(raw, (2, k := self.knots, k, k - 1), 1)
        v, log_affine = Affine(self.max_log_scale).forward(affine, z)
        inside = jnp.abs(v) < self.bound
        safe = clamp(-self.bound, v, self.bound)
        u, log_slope = quadratic.forward(safe, self._bin(bins, safe, inverted=False))
        return jax.lax.select(inside, u, v), log_affine + inside.astype(u.dtype) * log_slope

    def inverse(self, raw: Array, u: Array) -> tuple[Array, Array]:
        """Map noise to data; also log|du/dz| (of the forward map) per number."""
        affine, *bins = jax.lax.split(raw, (2, k := self.knots, k, k - 1), 1)
        inside = jnp.abs(u) < self.bound
        safe = clamp(-self.bound, u, self.bound)
        v, log_slope = quadratic.inverse(safe, self._bin(bins, safe, inverted=True))
        z, log_affine = Affine(self.max_log_scale).inverse(affine, jax.lax.select(inside, v, u))
        return z, log_affine + inside.astype(v.dtype) * log_slope


def _relative(logits: Array) -> Array:
    return jnp.exp(clamp(-MAX_LOGIT, logits, MAX_LOGIT))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _shares(logits: Array, passed: Array, here: Array, room: float) -> tuple[Array, Array]:
    """Return the room that passed bins and this bin take of `room`, given logits `(d, k)`."""
    relative = _relative(logits)
    unit = ordered_sum(relative) / room
    return ordered_sum(relative * passed) / unit, jnp.sum(relative * here, 1) / unit


@_shares.defjvp
def _shares_jvp(room: float, primals: tuple, tangents: tuple) -> tuple:
    # Divided by the unit last, each sum's cotangent is one finished number per row before it is
    # spread over k logits: compilers repeat there whatever else is left to do.
    logits, passed, here = primals
    before, share = _shares(logits, passed, here, room)
    relative = _relative(logits)
    unit = ordered_sum(relative) / room
    free = (jnp.abs(logits) < MAX_LOGIT).astype(logits.dtype)
    change = tangents[0] * (relative * free)
    total = jnp.sum(change, 1) / unit
    return (before, share), (
        jnp.sum(change * passed, 1) / unit - total * (before / room),
        jnp.sum(change * here, 1) / unit - total * (share / room),
    )
