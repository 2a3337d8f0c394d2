"""Truncation, carried out in the latent space of the base distribution.

The base maps its bounds to a < b, a truncated standard normal t in (a, b) is mapped from z, and the
base maps t to θ. One function is therefore enough for every base that has a latent map. A base
whose distribution function is a long series needs more beside a bound (`sides`): there z hangs on
the distance to it, of which t keeps few digits.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxsbi.latent.implicit import dense, implicit_pair
from jaxsbi.latent.special import (
    FAR,
    log1mexp,
    log_ndtr,
    log_normal_density,
    ndtri_exp,
    safe_log,
    z_of,
)

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_BESIDE = 0.02  # of the base's latent space: beside a bound


def log_mass(low: Array, high: Array) -> Array:
    """``log(Φ(high) - Φ(low))`` for low < high, without cancellation.

    Close bounds are integrated (8 Gauss-Legendre nodes, exact in float64 for a width of 1/2),
    others subtracted in the tail that they share.
    """
    width = high - low
    near = width < 0.5
    safe_width = jnp.where(near, width, 0.5)
    # Broadcast in full: derivatives are traced under the user's rules for rank promotion.
    positions = jnp.asarray(0.5 + 0.5 * _NODES, low.dtype).reshape((1,) * low.ndim + (-1,))
    nodes = low[..., None] + safe_width[..., None] * positions
    # Factor the density at the bound closest to zero out of the sum: it may underflow.
    peak = log_normal_density(jnp.clip(0.0, low, low + safe_width))
    heights = jnp.exp(log_normal_density(nodes) - peak[..., None])
    integral = heights @ jnp.asarray(_WEIGHTS / 2, low.dtype)
    tiny = jnp.finfo(low.dtype).tiny
    by_sum = jnp.log(jnp.maximum(safe_width, tiny)) + peak + jnp.log(integral)

    mirrored = low + high > 0  # measure in the lower tail
    a = jnp.where(mirrored, -high, low)
    b = jnp.where(mirrored, -low, high)
    b = jnp.where(near, a + 0.5, b)
    lower, upper = log_ndtr(jnp.stack([a, b]))
    by_difference = upper + log1mexp(upper - lower)
    return jnp.where(near, by_sum, by_difference)


def _log_tails(t: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """``(log F, log S)`` of t; the three masses stacked, for they are one large program each."""
    total, below, above = log_mass(jnp.stack([low, low, t]), jnp.stack([high, t, high]))
    return below - total, above - total


def _to_z(t: Array, low: Array, high: Array) -> Array:
    return z_of(*_log_tails(t, low, high))


def _from_z(z: Array, low: Array, high: Array) -> Array:
    """A sum of two tails, then a Newton step: the sum forgets a small mass beside a large tail."""
    total = log_mass(low, high)
    below, above, outside_low, outside_high = log_ndtr(jnp.stack([z, -z, low, -high]))
    log_cdf = jnp.logaddexp(outside_low, below + total)
    log_sf = jnp.logaddexp(outside_high, above + total)
    t = jnp.clip(z_of(log_cdf, log_sf), low, high)
    slope = jnp.exp(log_normal_density(t) - log_normal_density(z) - total)
    change = jnp.clip((_to_z(t, low, high) - z) / slope, -0.1, 0.1)
    return jnp.clip(t - jnp.where(jnp.isfinite(change), change, 0.0), low, high)


def _log_density(t: Array, low: Array, high: Array) -> Array:
    return log_normal_density(t) - log_mass(low, high)


def _cdf_slope(t: Array, params: Any, tangents: Any) -> Array:
    """dF at fixed t: F = (Φ(t) - Φ(low)) / (Φ(high) - Φ(low))."""
    low, high = params
    total = log_mass(low, high)
    log_cdf, log_sf = _log_tails(t, low, high)
    by_low = jnp.exp(log_normal_density(low) - total + log_sf) * dense(tangents[0], t)
    by_high = jnp.exp(log_normal_density(high) - total + log_cdf) * dense(tangents[1], t)
    return -by_low - by_high


_to_z_smooth, _from_z_smooth = implicit_pair(_to_z, _from_z, _log_density, _cdf_slope)


def truncated_to_z(t: Array, low: Array, high: Array) -> Array:
    """Latent value of a standard normal t truncated to (low, high), elementwise."""
    low, high = jnp.clip(low, -FAR, FAR), jnp.clip(high, -FAR, FAR)
    return _to_z_smooth(jnp.clip(t, low, high), low, high)


def truncated_from_z(z: Array, low: Array, high: Array) -> Array:
    """Inverse of `truncated_to_z`."""
    return _from_z_smooth(z, jnp.clip(low, -FAR, FAR), jnp.clip(high, -FAR, FAR))


Side = tuple[float, Array, Array, Array]


def sides(d: Any, z: Array, x: Array, t: Array, low: Array, high: Array) -> list[Side]:
    """What is needed beside each bound of the truncated ``d`` to go by the distance from it.

    A step of the last digit in t beside a bound may be a hundredth of z; the distance of x from the
    bound is exact and the density over it smooth: mass = distance x mean density.

    Args:
        d: a truncated distribution.
        z: latent values, good enough to tell the upper half from the lower.
        x: the points, between the bounds, roughly.
        t: their base latent values, roughly.
        low: the lower bounds of t.
        high: the upper bounds of t.

    Returns:
        For each bound there is: 1 or -1 (upper), the bound, which points are beside it, and the log
        of the mean density from there to the bound.
    """
    found = []
    for name, sign, end in (("low", 1.0, low), ("high", -1.0, high)):
        bound = getattr(d, name, None)
        if bound is None:
            continue
        beside = (jnp.abs(t - end) < _BESIDE) & (jnp.abs(end) < FAR) & (sign * z < 0)
        positions = jnp.asarray(0.5 + 0.5 * _NODES, x.dtype).reshape((-1,) + (1,) * x.ndim)
        points = bound + jnp.where(beside, x - bound, sign) * positions
        heights = jnp.exp(d.base_dist.log_prob(points))
        mean = jnp.tensordot(jnp.asarray(_WEIGHTS / 2, x.dtype), heights, 1)
        found.append((sign, bound, beside, safe_log(mean) - log_mass(low, high)))
    return found


def truncated_z(d: Any, z: Array, x: Array, sides: list[Side]) -> Array:
    """z of x: ``z``, and beside a bound to the last digits; derivatives stay those of ``z``."""
    exact = z
    for sign, bound, beside, log_mean in sides:
        log_mass_beside = safe_log(jnp.abs(x - bound)) + log_mean
        exact = jnp.where(beside, sign * ndtri_exp(log_mass_beside), exact)
    return z + lax.stop_gradient(exact - z)


def truncated_x(d: Any, z: Array, x: Array, sides: list[Side]) -> Array:
    """x of z: ``x``, and beside a bound to the last digits; derivatives stay those of ``x``."""
    exact = x
    for sign, bound, beside, log_mean in sides:
        exact = jnp.where(beside, bound + sign * jnp.exp(log_ndtr(sign * z) - log_mean), exact)
    return x + lax.stop_gradient(exact - x)
