"""Univariate families whose quantile is a formula in ``log F`` and ``log S``.

Each family is two functions of a NumPyro distribution ``d``:

- ``quantile(d, log_cdf, log_sf)``: the point with these tails, written with whichever has digits;
- ``tails(d, x)``: ``(log_cdf, log_sf)`` of a point, each accurate where it is the smaller.

Both are differentiable in their inputs and in the distribution's parameters. The formulas are the
inverses of the distribution functions in NumPyro's own documentation, rearranged for the tails.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.nn import softplus
from jax.scipy.special import erf, erfinv

from jaxsbi.latent.special import LOG_2, log1mexp, log_ndtr, ndtri_exp, safe_log

Tails = tuple[Array, Array]
_HALF_PI = 1.5707963267948966
_SQRT_2 = 1.4142135623730951


def _lower(log_cdf: Array, log_sf: Array) -> Array:
    return log_cdf <= log_sf


def _only(condition: Array, log_p: Array) -> Array:
    """``log_p`` where it is used, log(1/2) elsewhere: the unused branch keeps finite slopes."""
    return jnp.where(condition, log_p, -LOG_2)


def _uniform_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    width = d.high - d.low
    return jnp.where(
        _lower(log_cdf, log_sf),
        d.low + width * jnp.exp(log_cdf),
        d.high - width * jnp.exp(log_sf),
    )


def _uniform_tails(d: Any, x: Array) -> Tails:
    width = d.high - d.low
    # A point on a bound stands for the half spacing of floats around it.
    eps = 0.25 * jnp.finfo(jnp.result_type(x)).eps
    below = jnp.maximum((x - d.low) / width, eps * jnp.abs(d.low) / width)
    above = jnp.maximum((d.high - x) / width, eps * jnp.abs(d.high) / width)
    return safe_log(below), safe_log(above)


def _exponential_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return -log_sf / d.rate


def _exponential_tails(d: Any, x: Array) -> Tails:
    hazard = d.rate * x
    return log1mexp(hazard), -hazard


def _half_normal_quantile_std(log_cdf: Array, log_sf: Array) -> Array:
    lower = _lower(log_cdf, log_sf)
    inner = _SQRT_2 * erfinv(jnp.exp(_only(lower, log_cdf)))
    return jnp.where(lower, inner, -ndtri_exp(_only(~lower, log_sf) - LOG_2))


def _half_normal_tails_std(t: Array) -> Tails:
    return safe_log(erf(t / _SQRT_2)), LOG_2 + log_ndtr(-t)


def _half_normal_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return d.scale * _half_normal_quantile_std(log_cdf, log_sf)


def _half_normal_tails(d: Any, x: Array) -> Tails:
    return _half_normal_tails_std(x / d.scale)


def _levy_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    # scale / (x - loc) is the square of a half normal, with the tails exchanged.
    return d.loc + d.scale / jnp.square(_half_normal_quantile_std(log_sf, log_cdf))


def _levy_tails(d: Any, x: Array) -> Tails:
    tiny = jnp.finfo(jnp.result_type(x)).tiny
    log_sf, log_cdf = _half_normal_tails_std(jnp.sqrt(d.scale / jnp.maximum(x - d.loc, tiny)))
    return log_cdf, log_sf


def _cotangent(log_p: Array, angle: float) -> Array:
    return 1.0 / jnp.tan(angle * jnp.exp(log_p))


def _cauchy_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    lower = _lower(log_cdf, log_sf)
    size = _cotangent(jnp.where(lower, log_cdf, log_sf), 2 * _HALF_PI)
    return d.loc + d.scale * jnp.where(lower, -size, size)


def _cauchy_tails(d: Any, x: Array) -> Tails:
    t = (x - d.loc) / d.scale
    one = jnp.ones_like(t)
    return (
        jnp.log(jnp.arctan2(one, -t) / (2 * _HALF_PI)),
        jnp.log(jnp.arctan2(one, t) / (2 * _HALF_PI)),
    )


def _half_cauchy_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    lower = _lower(log_cdf, log_sf)
    inner = jnp.tan(_HALF_PI * jnp.exp(_only(lower, log_cdf)))
    return d.scale * jnp.where(lower, inner, _cotangent(_only(~lower, log_sf), _HALF_PI))


def _half_cauchy_tails(d: Any, x: Array) -> Tails:
    t = x / d.scale
    return (
        safe_log(jnp.arctan(t) / _HALF_PI),
        jnp.log(jnp.arctan2(jnp.ones_like(t), t) / _HALF_PI),
    )


def _logistic_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return d.loc + d.scale * (log_cdf - log_sf)


def _logistic_tails(d: Any, x: Array) -> Tails:
    t = (x - d.loc) / d.scale
    return -softplus(-t), -softplus(t)


def _gumbel_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return d.loc - d.scale * jnp.log(-log_cdf)


def _gumbel_tails(d: Any, x: Array) -> Tails:
    hazard = jnp.exp(-(x - d.loc) / d.scale)
    return -hazard, log1mexp(hazard)


def _asymmetric_quantile(left: Array, right: Array, log_cdf: Array, log_sf: Array) -> Array:
    total = left + right
    log_left, log_right = jnp.log(left / total), jnp.log(right / total)
    return jnp.where(
        log_cdf <= log_left, left * (log_cdf - log_left), -right * (log_sf - log_right)
    )


def _asymmetric_tails(left: Array, right: Array, t: Array) -> Tails:
    total = left + right
    below = jnp.log(left / total) + jnp.minimum(t, 0.0) / left
    above = jnp.log(right / total) - jnp.maximum(t, 0.0) / right
    return jnp.where(t <= 0, below, log1mexp(-above)), jnp.where(t <= 0, log1mexp(-below), above)


def _laplace_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    one = jnp.ones_like(log_cdf)
    return d.loc + d.scale * _asymmetric_quantile(one, one, log_cdf, log_sf)


def _laplace_tails(d: Any, x: Array) -> Tails:
    t = (x - d.loc) / d.scale
    return _asymmetric_tails(jnp.ones_like(t), jnp.ones_like(t), t)


def _asymmetric_laplace_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return d.loc + _asymmetric_quantile(d.left_scale, d.right_scale, log_cdf, log_sf)


def _asymmetric_laplace_tails(d: Any, x: Array) -> Tails:
    return _asymmetric_tails(d.left_scale, d.right_scale, x - d.loc)


def _soft_laplace_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    lower = _lower(log_cdf, log_sf)
    # log tan(π/2 p) with the underflow of p kept out: log p + log(tan(h) / p), h = π/2 p.
    log_p = jnp.where(lower, log_cdf, log_sf)
    size = jnp.where(
        log_p > -12.0,
        jnp.log(jnp.tan(_HALF_PI * jnp.exp(jnp.maximum(log_p, -12.0)))),
        log_p + jnp.log(_HALF_PI),
    )
    return d.loc + d.scale * jnp.where(lower, size, -size)


def _soft_laplace_tails(d: Any, x: Array) -> Tails:
    def log_tail(s: Array) -> Array:
        near = jnp.log(jnp.arctan(jnp.exp(jnp.maximum(s, -12.0))))
        return jnp.where(s > -12.0, near, s) - jnp.log(_HALF_PI)

    t = (x - d.loc) / d.scale
    return log_tail(jnp.minimum(t, 50.0)), log_tail(jnp.minimum(-t, 50.0))


def _dagum_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    y = -log_cdf / d.concentration
    # log(exp(y) - 1) = y + log(1 - exp(-y))
    return d.scale * jnp.exp(-(y + log1mexp(y)) / d.sharpness)


def _dagum_tails(d: Any, x: Array) -> Tails:
    log_cdf = -d.concentration * softplus(-d.sharpness * (safe_log(x) - jnp.log(d.scale)))
    return log_cdf, log1mexp(-log_cdf)


def _gompertz_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return jnp.log1p(-log_sf / d.concentration) / d.rate


def _gompertz_tails(d: Any, x: Array) -> Tails:
    hazard = d.concentration * jnp.expm1(d.rate * x)
    return log1mexp(hazard), -hazard


def _weibull_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return d.scale * jnp.exp(safe_log(-log_sf) / d.concentration)


def _weibull_tails(d: Any, x: Array) -> Tails:
    hazard = jnp.exp(d.concentration * (safe_log(x) - jnp.log(d.scale)))
    return log1mexp(hazard), -hazard


def _kumaraswamy_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return jnp.exp(log1mexp(-log_sf / d.concentration0) / d.concentration1)


def _kumaraswamy_tails(d: Any, x: Array) -> Tails:
    log_sf = d.concentration0 * log1mexp(-d.concentration1 * safe_log(x))
    return log1mexp(-log_sf), log_sf


def _lower_power_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    return d.low * jnp.exp(log_sf / (d.alpha + 1.0))


def _lower_power_tails(d: Any, x: Array) -> Tails:
    log_sf = (d.alpha + 1.0) * jnp.log1p((x - d.low) / d.low)
    return log1mexp(-log_sf), log_sf


def _power_slope(d: Any, x: Array) -> tuple[Array, Array]:
    # The law of log(x/low) is exp(slope * y) on [0, length]; slope 0 (log uniform) is approached.
    small = 1e-5 if jnp.finfo(jnp.result_type(x)).bits <= 32 else 1e-9
    slope = d.alpha + 1.0
    slope = jnp.where(jnp.abs(slope) < small, small, slope)
    return slope, jnp.log(d.high / d.low)


def _double_power_quantile(d: Any, log_cdf: Array, log_sf: Array) -> Array:
    slope, length = _power_slope(d, log_cdf)
    lower = _lower(log_cdf, log_sf)
    up = jnp.log1p(jnp.exp(_only(lower, log_cdf)) * jnp.expm1(slope * length)) / slope
    down = jnp.log1p(jnp.exp(_only(~lower, log_sf)) * jnp.expm1(-slope * length)) / slope
    return jnp.where(lower, d.low * jnp.exp(up), d.high * jnp.exp(down))


def _double_power_tails(d: Any, x: Array) -> Tails:
    slope, length = _power_slope(d, x)
    up = jnp.log1p((x - d.low) / d.low)
    down = jnp.log1p((x - d.high) / d.high)
    return (
        safe_log(jnp.expm1(slope * up) / jnp.expm1(slope * length)),
        safe_log(jnp.expm1(slope * down) / jnp.expm1(-slope * length)),
    )


Quantile = Callable[[Any, Array, Array], Array]
TAILS: dict[type, tuple[Quantile, Callable[[Any, Array], Tails]]] = {
    dist.Uniform: (_uniform_quantile, _uniform_tails),
    dist.Exponential: (_exponential_quantile, _exponential_tails),
    dist.HalfNormal: (_half_normal_quantile, _half_normal_tails),
    dist.Levy: (_levy_quantile, _levy_tails),
    dist.Cauchy: (_cauchy_quantile, _cauchy_tails),
    dist.HalfCauchy: (_half_cauchy_quantile, _half_cauchy_tails),
    dist.Logistic: (_logistic_quantile, _logistic_tails),
    dist.Gumbel: (_gumbel_quantile, _gumbel_tails),
    dist.Laplace: (_laplace_quantile, _laplace_tails),
    dist.AsymmetricLaplace: (_asymmetric_laplace_quantile, _asymmetric_laplace_tails),
    dist.SoftLaplace: (_soft_laplace_quantile, _soft_laplace_tails),
    dist.Dagum: (_dagum_quantile, _dagum_tails),
    dist.Gompertz: (_gompertz_quantile, _gompertz_tails),
    dist.Weibull: (_weibull_quantile, _weibull_tails),
    dist.Kumaraswamy: (_kumaraswamy_quantile, _kumaraswamy_tails),
    dist.LowerTruncatedPowerLaw: (_lower_power_quantile, _lower_power_tails),
    dist.DoublyTruncatedPowerLaw: (_double_power_quantile, _double_power_tails),
}
"""Formula families: NumPyro class to (quantile, tails)."""
