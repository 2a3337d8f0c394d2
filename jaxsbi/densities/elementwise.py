"""Monotone maps of one number with parameters from a network, and their exact log-derivatives.

Both are written for d numbers, with one row of raw parameters `(d, p)` for each; raw parameters
of zero give the identity. They are bounded so that float32 round trips hold for any of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array

MAX_LOGIT = 30.0
"""Raw widths and heights are cut here: exp(±30) has no overflow and lies beyond every floor."""


def spread(x: Array, m: int) -> Array:
    """Repeat `(n,)` along a new leading axis of `m`, as an outer product.

    Under `jax.vmap` a product leaves the batch axis where it is, where a broadcast would move it
    to the front; see `AffineSpline`.
    """
    none: tuple[int, ...] = ()
    highest = jax.lax.Precision.HIGHEST
    ones = jnp.ones(m, x.dtype)
    return jax.lax.dot_general(ones, x, ((none, none), (none, none)), precision=highest)


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

    _slope_floor = 0.02

    def _unpack(self, raw: Array) -> tuple[Array, Array, Array, Array]:
        """Return the affine part (d, 2), relative widths and heights (d, k), raw slopes."""
        k = self.knots
        affine, width, height, slope = jax.lax.split(raw, (2, k, k, k - 1), 1)
        width = jnp.exp(jnp.clip(width, -MAX_LOGIT, MAX_LOGIT))
        height = jnp.exp(jnp.clip(height, -MAX_LOGIT, MAX_LOGIT))
        return affine, width, height, slope

    def _select(self, position: Array, along: Array, other: Array, slope: Array) -> tuple:
        """Return the bin of `position`: its two left knots, widths and end slopes, each `(d,)`."""
        k, step = self.knots, self._step
        room = 2.0 * self.bound - k * step
        total, total_other = ordered_sum(along), ordered_sum(other)
        # Knots in units of 1 / total are linear in the relative widths: the left end is zero, and
        # the right end lies out of reach, so that every position has a bin.
        index = np.arange(k + 1)
        knots = room * (np.arange(k) < index[:, None]) + step * index[:, None]
        knots[k] = 4.0 * self.bound
        reach = row_product(knots, jax.lax.stop_gradient(along))
        where = (position + self.bound) * total
        where = row_product(np.ones(k), jax.lax.stop_gradient(where))
        passed = (where >= reach[:, 1:]).astype(along.dtype)
        here = (where >= reach[:, :-1]).astype(along.dtype) - passed
        before = step * jnp.sum(passed, 1) - self.bound

        # Both directions must find the same knots to the last bit, or a round trip through a flat
        # place multiplies the difference. Compilers may round a product that is added once or
        # twice, so there is none here that is not exact: quotients are added instead.
        def knot(relative: Array, total: Array) -> tuple[Array, Array]:
            unit = total / room
            left = before + ordered_sum(relative * passed) / unit
            return left, step + jnp.sum(relative * here, 1) / unit

        # softplus(raw + offset) + floor is 1 at raw = 0, as at both ends.
        offset = math.log(math.expm1(1.0 - self._slope_floor))

        def pick(here: Array) -> Array:
            return self._slope_floor + jax.nn.softplus(jnp.sum(slope * here, 1) + offset)

        left, width = knot(along, total)
        left_other, width_other = knot(other, total_other)
        return left, left_other, width, width_other, pick(here[:, 1:]), pick(here[:, :-1])

    def forward(self, raw: Array, z: Array) -> tuple[Array, Array]:
        """Map data `z` `(d,)` with raw parameters `(d, p)` to noise; also log|du/dz| per number."""
        affine, width, height, slopes = self._unpack(raw)
        v, log_affine = Affine(self.max_log_scale).forward(affine, z)
        inside = jnp.abs(v) < self.bound
        safe = jnp.clip(v, -self.bound, self.bound)
        x0, y0, w, h, d0, d1 = self._select(safe, width, height, slopes)
        t = jnp.clip((safe - x0) / w, 0.0, 1.0)
        s = h / w
        tt = t * (1.0 - t)
        denominator = s + (d0 + d1 - 2.0 * s) * tt
        u = y0 + h * (s * t * t + d0 * tt) / denominator
        log_slope = self._log_slope(s, d0, d1, t, tt, denominator)
        return jnp.where(inside, u, v), log_affine + inside.astype(u.dtype) * log_slope

    def inverse(self, raw: Array, u: Array) -> tuple[Array, Array]:
        """Map noise to data; also log|du/dz| (of the forward map) per number."""
        affine, width, height, slopes = self._unpack(raw)
        inside = jnp.abs(u) < self.bound
        safe = jnp.clip(u, -self.bound, self.bound)
        y0, x0, h, w, d0, d1 = self._select(safe, height, width, slopes)
        s = h / w
        y = safe - y0
        curve = d0 + d1 - 2.0 * s
        a = h * (s - d0) + y * curve
        b = h * d0 - y * curve
        c = -s * y
        # The root without cancellation; the discriminant is positive up to rounding.
        t = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4.0 * a * c, 0.0)))
        t = jnp.clip(t, 0.0, 1.0)
        tt = t * (1.0 - t)
        log_slope = self._log_slope(s, d0, d1, t, tt, s + curve * tt)
        v = jnp.where(inside, x0 + t * w, u)
        z, log_affine = Affine(self.max_log_scale).inverse(affine, v)
        return z, log_affine + inside.astype(v.dtype) * log_slope

    @staticmethod
    def _log_slope(
        s: Array, d0: Array, d1: Array, t: Array, tt: Array, denominator: Array
    ) -> Array:
        one = 1.0 - t
        numerator = s * s * (d1 * t * t + 2.0 * s * tt + d0 * one * one)
        return jnp.log(numerator / (denominator * denominator))
