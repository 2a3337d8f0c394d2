"""One bin of a monotone rational-quadratic spline, and its derivatives in closed form.

Source: Durkan et al. 2019, arXiv:1906.04032, section 3.1. A bin reaches from (x0, y0) to
(x0 + w, y0 + h), with slopes d0 and d1 at its ends. At a share t of its width, with s = h / w,
q = t (1 - t) and D = s + (d0 + d1 - 2 s) q,

    y = y0 + h (s t² + d0 q) / D,    dy/dx = s² P / D²,    P = d1 t² + 2 s q + d0 (1 - t)².

Both directions of the map share one rule for their derivatives, the inverse by the theorem of
implicit functions. It is written out because automatic differentiation keeps more than twice as
many numbers of the forward pass, and leaves longer sums to repeat for each raw parameter. All
functions are elementwise, in operations that leave the batch axis of `jax.vmap` where it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array

SLOPE_FLOOR = 0.02
# A raw slope of zero stands for a slope of one, as outside of the spline.
_OFFSET = math.log(math.expm1(1.0 - SLOPE_FLOOR))


class Bin(NamedTuple):
    """Left and lower end, width, height, and the raw slopes at both ends, of one shape."""

    x0: Array
    y0: Array
    w: Array
    h: Array
    raw0: Array
    raw1: Array


def clamp(low: float, x: Array, high: float) -> Array:
    """Return `x` within two bounds, in its own precision; `jnp.clip` moves the batch axis."""
    return jax.lax.clamp(jnp.asarray(low, x.dtype), x, jnp.asarray(high, x.dtype))


def _slope(raw: Array) -> Array:
    # The softplus of `jax.nn` brings the batch axis to the front.
    raw = raw + _OFFSET
    return SLOPE_FLOOR + (jnp.maximum(raw, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(raw))))


def _log_slope(t: Array, s: Array, d0: Array, d1: Array) -> Array:
    q, rest = t * (1.0 - t), 1.0 - t
    D = s + (d0 + d1 - 2.0 * s) * q
    P = d1 * t * t + 2.0 * s * q + d0 * rest * rest
    return jnp.log(s * s * P / (D * D))


@jax.custom_jvp
def forward(x: Array, bin: Bin) -> tuple[Array, Array]:
    """Return y at `x` in a bin, and log(dy/dx)."""
    x0, y0, w, h, *raw = bin
    d0, d1 = map(_slope, raw)
    t, s = clamp(0.0, (x - x0) / w, 1.0), h / w
    q = t * (1.0 - t)
    y = y0 + h * (s * t * t + d0 * q) / (s + (d0 + d1 - 2.0 * s) * q)
    return y, _log_slope(t, s, d0, d1)


@jax.custom_jvp
def inverse(y: Array, bin: Bin) -> tuple[Array, Array]:
    """Return x at `y` in a bin, and log(dy/dx)."""
    x0, y0, w, h, *raw = bin
    d0, d1 = map(_slope, raw)
    s, y = h / w, y - y0
    curve = d0 + d1 - 2.0 * s
    a = h * (s - d0) + y * curve
    b = h * d0 - y * curve
    c = -s * y
    # The root without cancellation; the discriminant is positive up to rounding.
    t = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4.0 * a * c, 0.0)))
    t = clamp(0.0, t, 1.0)
    return x0 + t * w, _log_slope(t, s, d0, d1)


def _partials(x: Array, bin: Bin) -> tuple[Array, Array, Bin, Bin]:
    """Return the derivatives of y and log(dy/dx) by x, and by each end, size and raw slope."""
    x0, _, w, h, *raw = bin
    d0, d1 = map(_slope, raw)
    k0, k1 = (jax.lax.logistic(r + _OFFSET) for r in raw)
    t, s = clamp(0.0, (x - x0) / w, 1.0), h / w
    rest = 1.0 - t
    q, dq = t * rest, 1.0 - 2.0 * t
    curve = d0 + d1 - 2.0 * s
    over_w, over_D = 1.0 / w, 1.0 / (s + curve * q)
    P = d1 * t * t + 2.0 * s * q + d0 * rest * rest
    over_P = 1.0 / P
    g = (s * t * t + d0 * q) * over_D  # y = y0 + h g
    g_s = (t * t - g * (1.0 - 2.0 * q)) * over_D
    y_x = s * s * P * over_D * over_D
    l_x = 2.0 * ((d1 * t + s * dq - d0 * rest) * over_P - curve * dq * over_D) * over_w
    l_s = 2.0 * (1.0 / s + q * over_P - (1.0 - 2.0 * q) * over_D)
    of_y = Bin(
        x0=-y_x,
        y0=jnp.ones_like(y_x),
        w=-t * y_x - s * s * g_s,
        h=g + s * g_s,
        raw0=h * q * (1.0 - g) * over_D * k0,
        raw1=-h * q * g * over_D * k1,
    )
    of_l = Bin(
        x0=-l_x,
        y0=jnp.zeros_like(l_x),
        w=-t * l_x - s * over_w * l_s,
        h=over_w * l_s,
        raw0=(rest * rest * over_P - 2.0 * q * over_D) * k0,
        raw1=(t * t * over_P - 2.0 * q * over_D) * k1,
    )
    return y_x, l_x, of_y, of_l


def _along(partials: Bin, tangents: Bin) -> Array:
    first, *rest = (p * d for p, d in zip(partials, tangents, strict=True))
    return sum(rest, start=first)


@forward.defjvp
def _forward_jvp(primals: tuple[Array, Bin], tangents: tuple[Array, Bin]) -> tuple:
    dx, moved = tangents
    y_x, l_x, of_y, of_l = _partials(*primals)
    return forward(*primals), (y_x * dx + _along(of_y, moved), l_x * dx + _along(of_l, moved))


@inverse.defjvp
def _inverse_jvp(primals: tuple[Array, Bin], tangents: tuple[Array, Bin]) -> tuple:
    dy, moved = tangents
    x, log_slope = inverse(*primals)
    y_x, l_x, of_y, of_l = _partials(x, primals[1])
    dx = (dy - _along(of_y, moved)) / y_x
    return (x, log_slope), (dx, l_x * dx + _along(of_l, moved))
