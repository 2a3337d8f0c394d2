"""The standard normal in log space: what every latent map is written with.

A probability close to 1 carries no digits in float32 (Φ(5.42) is exactly 1), so a point of a
distribution is described by *two* log probabilities, ``log F`` and ``log S = log(1 - F)``, each
computed on its own. Whichever is smaller has the digits.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erfc

LOG_2 = 0.6931471805599453
LOG_SQRT_2PI = 0.9189385332046727
_SQRT_HALF = 0.7071067811865476
# |z| beyond which log Φ is a series: before Φ underflows, after 8 terms are exact (by float bits).
_SERIES = {16: 3.0, 32: 10.0, 64: 25.0}
# Stands in for an infinite bound in z: log Φ(-40) = -804 is finite in float32 and counts as zero.
FAR = 40.0
# log F below this is read as this, so that a point on the boundary keeps a finite z (-141).
_LOG_FLOOR = -1e4


def log_normal_density(z: Array) -> Array:
    """Log density of N(0, 1) at ``z``, elementwise."""
    return -0.5 * jnp.square(z) - LOG_SQRT_2PI


def log1mexp(x: Array) -> Array:
    """``log(1 - exp(-x))`` for x > 0 without cancellation (Mächler 2012, eq. 7)."""
    x = jnp.maximum(x, jnp.finfo(jnp.result_type(x)).tiny)
    near = x < LOG_2
    small = jnp.where(near, x, LOG_2)
    large = jnp.where(near, LOG_2, x)
    return jnp.where(near, jnp.log(-jnp.expm1(-small)), jnp.log1p(-jnp.exp(-large)))


def safe_log(x: Array) -> Array:
    """``log(x)``, x read as the smallest normal number where below it: finite, like its slope."""
    return jnp.log(jnp.maximum(x, jnp.finfo(jnp.result_type(x)).tiny))


@jax.custom_jvp
def log_ndtr(z: Array) -> Array:
    """``log Φ(z)`` to the last digits everywhere, also where Φ is next to 1.

    ``jax.scipy.special.log_ndtr`` takes ``log(Φ(z))`` up to z = 5 in float32: at z = 4 that leaves
    three digits of ``-Φ(-4)``, and it compiles into a program several times larger.
    """
    tail = 0.5 * erfc(jnp.abs(z) * _SQRT_HALF)
    return jnp.where(z > 0, jnp.log1p(-tail), _log_lower_tail(z, tail))


def _log_lower_tail(z: Array, tail: Array) -> Array:
    """``log Φ(-|z|)`` given ``tail = Φ(-|z|)``, which underflows: 8 terms of the Mills series."""
    far = jnp.abs(z) > _SERIES[jnp.finfo(tail.dtype).bits]
    square = jnp.square(jnp.where(far, z, 20.0))
    series = jnp.zeros_like(square)
    for odd in range(15, 0, -2):  # 1 - 1/z² (1 - 3/z² (1 - 5/z² ...))
        series = 1.0 - odd / square * series if odd < 15 else 1.0 - odd / square
    log_mills = jnp.log(series) - 0.5 * jnp.log(square)
    return jnp.where(
        far, -0.5 * square - LOG_SQRT_2PI + log_mills, jnp.log(jnp.where(far, 0.5, tail))
    )


@log_ndtr.defjvp
def _log_ndtr_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (tangent,) = primals, tangents
    value = log_ndtr(z)
    return value, tangent * jnp.exp(log_normal_density(z) - value)


@jax.custom_jvp
def ndtri_exp(log_p: Array) -> Array:
    """The z with ``log Φ(z) = log_p``, for ``log_p <= log(1/2)``, far beyond where Φ underflows.

    Args:
        log_p: log probabilities; values above log(1/2) are read as log(1/2).

    Returns:
        z <= 0, of the same shape.
    """
    log_p = jnp.clip(log_p, _LOG_FLOOR, -LOG_2)
    # Abramowitz & Stegun 26.2.23, within 5e-4; three Newton steps on log Φ reach float64.
    t = jnp.sqrt(-2.0 * log_p)
    above = 2.515517 + t * (0.802853 + t * 0.010328)
    below = 1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    z = above / below - t
    for _ in range(3):
        tail = 0.5 * erfc(jnp.abs(z) * _SQRT_HALF)
        log_cdf = _log_lower_tail(z, tail)
        z = z - (log_cdf - log_p) * jnp.exp(log_cdf - log_normal_density(z))
    return jnp.minimum(z, 0.0)


@ndtri_exp.defjvp
def _ndtri_exp_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (log_p,), (tangent,) = primals, tangents
    z = ndtri_exp(log_p)
    log_p = jnp.clip(log_p, _LOG_FLOOR, -LOG_2)
    return z, tangent * jnp.exp(log_p - log_normal_density(z))


def tails_of(z: Array) -> tuple[Array, Array]:
    """``(log Φ(z), log Φ(-z))``: the two log tail probabilities of a latent value."""
    below, above = log_ndtr(jnp.stack([z, -z]))  # stacked: one program instead of two
    return below, above


def z_of(log_cdf: Array, log_sf: Array) -> Array:
    """The latent value with these tails, read from the smaller one.

    Args:
        log_cdf: log F, trusted where it is the smaller.
        log_sf: log(1 - F), trusted where it is the smaller.
    """
    upper = log_sf < log_cdf
    # ``where``, not ``minimum``: at a tie (z = 0) that averages two opposite slopes to zero.
    z = ndtri_exp(jnp.where(upper, log_sf, log_cdf))
    return jnp.where(upper, -z, z)
