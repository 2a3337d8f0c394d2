"""Gamma, Beta and Student t: quantiles by Newton steps, derivatives by the implicit function.

The map from a point to its latent value, z(x), is cheap and accurate in both tails (regularised
incomplete gamma and beta functions); its inverse is found by Newton in an unconstrained
coordinate u of x, in which z(u) is nearly straight. Neither is differentiated through: with F the
distribution function, p the density and φ that of N(0, 1),

    dx/dz = φ(z) / p(x)      dx/da = -(∂F/∂a) / p(x)      dz/dx = p(x) / φ(z)

which is finite everywhere (the stock Student t quantile has a NaN slope at its median). ∂F/∂a is
``igamma_grad_a`` for the gamma and an integral of the score over the smaller tail for the others.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import betainc, betaln, digamma, gammainc, gammaincc, gammaln, polygamma

from jaxsbi.latent.implicit import Params, implicit_pair, newton, score_integral
from jaxsbi.latent.special import LOG_2, safe_log, tails_of, z_of

# Gamma(a, rate 1)


def _gamma_log_density(x: Array, a: Array) -> Array:
    return (a - 1.0) * safe_log(x) - x - gammaln(a)


def _gamma_z(x: Array, a: Array) -> Array:
    return z_of(safe_log(gammainc(a, x)), safe_log(gammaincc(a, x)))


def _gamma_solve(z: Array, a: Array) -> Array:
    # Wilson & Hilferty (1931) around the centre, the leading power x^a / Γ(a + 1) below it.
    root = 1.0 - 1.0 / (9.0 * a) + z / (3.0 * jnp.sqrt(a))
    power = (tails_of(z)[0] + gammaln(a + 1.0)) / a
    start = jnp.where(root > 0.3, jnp.log(a) + 3.0 * jnp.log(jnp.maximum(root, 0.3)), power)
    return jnp.exp(
        newton(
            z,
            start,
            lambda u: _gamma_z(jnp.exp(u), a),
            lambda u: a * u - jnp.exp(u) - gammaln(a),
        )
    )


def _gamma_cdf_slope(x: Array, params: Params, tangents: Params) -> Array:
    return lax.igamma_grad_a(params[0], x) * tangents[0]


gamma_to_z, gamma_from_z = implicit_pair(
    _gamma_z, _gamma_solve, _gamma_log_density, _gamma_cdf_slope
)


# Beta(a, b)


def _beta_log_density(x: Array, a: Array, b: Array) -> Array:
    return (a - 1.0) * safe_log(x) + (b - 1.0) * safe_log(1.0 - x) - betaln(a, b)


def _logit_log_density(u: Array, a: Array, b: Array) -> Array:
    """Log density of u = logit x."""
    return a * jax.nn.log_sigmoid(u) + b * jax.nn.log_sigmoid(-u) - betaln(a, b)


def _beta_z_split(x: Array, y: Array, a: Array, b: Array) -> Array:
    """z of x with y = 1 - x given apart, so that neither end loses digits."""
    return z_of(safe_log(betainc(a, b, x)), safe_log(betainc(b, a, y)))


def _beta_solve(z: Array, a: Array, b: Array) -> Array:
    # logit x has mean ψ(a) - ψ(b) and variance ψ'(a) + ψ'(b).
    start = digamma(a) - digamma(b) + z * jnp.sqrt(polygamma(1, a) + polygamma(1, b))
    u = newton(
        z,
        start,
        lambda u: _beta_z_split(jax.nn.sigmoid(u), jax.nn.sigmoid(-u), a, b),
        lambda u: _logit_log_density(u, a, b),
    )
    return jnp.where(u < 0, jax.nn.sigmoid(u), 1.0 - jax.nn.sigmoid(-u))


def _beta_cdf_slope(x: Array, params: Params, tangents: Params) -> Array:
    a, b = params
    u = safe_log(x) - safe_log(1.0 - x)
    lower = u < digamma(a) - digamma(b)
    spread = jnp.sqrt(polygamma(1, a) + polygamma(1, b))
    width = 8.0 * spread + 25.0 / jnp.where(lower, a, b)  # the tails of u are exp(a u), exp(-b u)
    return score_integral(_logit_log_density, u, width, lower, params, tangents)


beta_to_z, beta_from_z = implicit_pair(
    lambda x, a, b: _beta_z_split(x, 1.0 - x, a, b),
    _beta_solve,
    _beta_log_density,
    _beta_cdf_slope,
)


# Student t, loc 0, scale 1


def _t_log_density(x: Array, df: Array) -> Array:
    return -0.5 * (df + 1.0) * jnp.log1p(x * (x / df)) - 0.5 * jnp.log(df) - betaln(0.5 * df, 0.5)


def _t_z(x: Array, df: Array) -> Array:
    size = jnp.abs(x)
    ratio = size / jnp.sqrt(df)
    far = ratio > 1.0
    # S(|x|) = I_{df/(df+x²)}(df/2, 1/2) / 2, and by the complement close to the centre.
    outer = betainc(0.5 * df, 0.5, 1.0 / (1.0 + jnp.square(jnp.where(far, ratio, 1.0))))
    near = jnp.square(jnp.where(far, 1.0, ratio))
    inner = betainc(0.5, 0.5 * df, near / (1.0 + near))
    log_tail = jnp.where(far, safe_log(outer), jnp.log1p(-jnp.where(far, 0.0, inner))) - LOG_2
    return jnp.where(x < 0, 1.0, -1.0) * z_of(log_tail, jnp.zeros_like(log_tail))


def _t_solve(z: Array, df: Array) -> Array:
    # Cornish-Fisher, first term, then Newton in asinh x.
    start = jnp.arcsinh(z + z * (jnp.square(z) + 1.0) / (4.0 * df))
    u = newton(
        z,
        start,
        lambda u: _t_z(jnp.sinh(u), df),
        lambda u: _sinh_log_density(u, df),
    )
    return jnp.sinh(u)


def _sinh_log_density(u: Array, df: Array) -> Array:
    """Log density of u = asinh x."""
    return _t_log_density(jnp.sinh(u), df) + jnp.log(jnp.cosh(u))


def _t_cdf_slope(x: Array, params: Params, tangents: Params) -> Array:
    # the tails of u are exp(-df |u|) beyond sqrt(df), Gaussian before
    width = 3.0 + 25.0 / params[0]
    return score_integral(_sinh_log_density, jnp.arcsinh(x), width, x < 0, params, tangents)


student_to_z, student_from_z = implicit_pair(_t_z, _t_solve, _t_log_density, _t_cdf_slope)
