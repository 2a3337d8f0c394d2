"""Monotone maps of one number with parameters from a network, and their exact log-derivatives.

Both are written for arrays of numbers with one vector of raw parameters each; raw parameters of
zero give the identity. They are bounded so that float32 round trips hold for any raw parameters.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array


def add_shift(raw: Array, shift: Array) -> Array:
    """Add `(d,)` to the first raw parameter of each number, its shift; `raw` is `(d, p)`."""
    return jnp.concatenate([raw[:, :1] + shift[:, None], raw[:, 1:]], axis=1)


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
        return raw[..., 0], bound * jnp.tanh(raw[..., 1] / bound)

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
    posterior. The bin is chosen by comparisons and sums instead of gathers: on CPU and GPU alike
    a gather per number costs more than the whole spline.

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
    def _floor(self) -> float:
        return 0.15 / self.knots

    _slope_floor = 0.02

    def _unpack(self, raw: Array) -> tuple[Array, Array, Array]:
        k = self.knots
        width, height, slope = (
            raw[..., 2 : 2 + k],
            raw[..., 2 + k : 2 + 2 * k],
            raw[..., 2 + 2 * k :],
        )
        scale = 2.0 * self.bound * (1.0 - self.knots * self._floor)
        width = 2.0 * self.bound * self._floor + scale * jax.nn.softmax(width)
        height = 2.0 * self.bound * self._floor + scale * jax.nn.softmax(height)
        # softplus(slope + offset) + floor is 1 at slope = 0.
        offset = math.log(math.expm1(1.0 - self._slope_floor))
        slope = self._slope_floor + jax.nn.softplus(slope + offset)
        one = jnp.ones_like(slope[..., :1])
        return width, height, jnp.concatenate([one, slope, one], -1)

    def _select(self, position: Array, along: Array, other: Array, slope: Array) -> tuple:
        """Return the bin of `position`: its two left knots, widths and end slopes."""
        # Interior knots by a triangular matrix product: faster than cumsum for a few knots.
        inner = along[..., :-1] @ jnp.asarray(np.triu(np.ones((self.knots - 1,) * 2)), along.dtype)
        right = (position[..., None] >= inner - self.bound).astype(along.dtype)
        one, zero = jnp.ones_like(right[..., :1]), jnp.zeros_like(right[..., :1])
        chosen = jnp.concatenate([one, right], -1) - jnp.concatenate([right, zero], -1)
        left = jnp.sum(along[..., :-1] * right, -1) - self.bound
        left_other = jnp.sum(other[..., :-1] * right, -1) - self.bound

        def pick(values: Array) -> Array:
            return jnp.sum(values * chosen, -1)

        return (
            left,
            left_other,
            pick(along),
            pick(other),
            pick(slope[..., :-1]),
            pick(slope[..., 1:]),
        )

    def forward(self, raw: Array, z: Array) -> tuple[Array, Array]:
        """Map data `z` `(d,)` with raw parameters `(d, p)` to noise; also log|du/dz| per number."""
        v, log_affine = Affine(self.max_log_scale).forward(raw, z)
        width, height, slopes = self._unpack(raw)
        inside = jnp.abs(v) < self.bound
        safe = jnp.clip(v, -self.bound, self.bound)
        x0, y0, w, h, d0, d1 = self._select(safe, width, height, slopes)
        t = jnp.clip((safe - x0) / w, 0.0, 1.0)
        s = h / w
        tt = t * (1.0 - t)
        denominator = s + (d0 + d1 - 2.0 * s) * tt
        u = y0 + h * (s * t * t + d0 * tt) / denominator
        log_slope = self._log_slope(s, d0, d1, t, tt, denominator)
        return jnp.where(inside, u, v), log_affine + jnp.where(inside, log_slope, 0.0)

    def inverse(self, raw: Array, u: Array) -> tuple[Array, Array]:
        """Map noise to data; also log|du/dz| (of the forward map) per number."""
        width, height, slopes = self._unpack(raw)
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
        z, log_affine = Affine(self.max_log_scale).inverse(raw, v)
        return z, log_affine + jnp.where(inside, log_slope, 0.0)

    @staticmethod
    def _log_slope(
        s: Array, d0: Array, d1: Array, t: Array, tt: Array, denominator: Array
    ) -> Array:
        one = 1.0 - t
        numerator = s * s * (d1 * t * t + 2.0 * s * tt + d0 * one * one)
        return jnp.log(numerator) - 2.0 * jnp.log(denominator)
