"""The integral of a density: from draws of it, by a bridge; and from two estimates of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from scipy.special import stdtrit

from jaxsbi.base import Array, Key
from jaxsbi.samplers import student
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.weights import log_mean_and_error

_PROPOSED = 256  # draws of each Student t
_ITERATIONS = 50  # they halve the error each where the two laws overlap by half
_FEWEST = 4  # populations that a slope is found from
_APART = 4.0  # standard errors between two estimates, beyond which the bridge is not believed
_LARGEST = 20.0  # nats of an estimate above the mean of the others


def log_evidence(key: Key, log_density: LogDensity, z: Array, value: Array) -> Array:
    """Return the log of the integral of a density, from each of several independent sets of draws.

    Draws of the density and of a Student t fitted to those of *another* set are joined by the
    optimal bridge (Meng & Wong 1996, Stat. Sin. 6, 831). Where the Student t overlaps with the
    density, the error is that of a few hundred independent draws, whatever the way from the prior
    was; where it does not (modes far apart, a thin banana), the sets disagree.

    Args:
        key: A typed key.
        log_density: An unnormalised log-density of one point.
        z: Draws of it, shape `(sets, n, d)`.
        value: Their log-densities, shape `(sets, n)`.

    Returns:
        Shape `(sets,)`.
    """
    count, _, dim = z.shape
    fits = jax.tree.map(lambda a: jnp.roll(a, 1, 0), jax.vmap(student.fit_to)(z))
    u = student.sample(key, (count, _PROPOSED, dim))
    proposed = jax.vmap(lambda fit, u: jax.vmap(fit.restore)(u))(fits, u)
    ratio = jax.vmap(jax.vmap(log_density))(proposed) - jax.vmap(_log_prob)(fits, proposed)
    ratio = jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)
    return jax.vmap(_bridge)(value - jax.vmap(_log_prob)(fits, z), ratio)


def combined(steps: Array, bridge: Array) -> tuple[Array, Array]:
    """Return the log-evidence from two estimates of each population, and its error.

    Both have the same mean, so that their difference is a control variate: the part of one that is
    linear in the difference is taken off (Lavenberg & Welch 1981, Manag. Sci. 27, 322), which is no
    worse than the better of the two. Its error knows how uncertain the slope is; to take the one
    with the smaller spread would not, and would be too sure. Where the bridge has no value, or is
    many errors away, or there are few populations, the steps in temperature stay alone.

    Args:
        steps: Log-evidence by the steps in temperature, shape `(populations,)`.
        bridge: The same by a bridge.

    Returns:
        The log-evidence and its error, two of which hold 95 % by Student's t.
    """
    n = steps.shape[0]
    alone, alone_error = log_mean_and_error(steps)
    alone_error = two_errors(n - 1) * alone_error
    if n < _FEWEST:
        return alone, alone_error
    base = jnp.where(jnp.isfinite(alone), alone, 0.0)
    first, second = (jnp.exp(jnp.minimum(a - base, _LARGEST)) for a in (steps, bridge))
    difference = first - second
    between = jnp.mean(difference)
    centred = difference - between
    square = jnp.sum(centred**2)
    slope = jnp.sum(centred * first) / square
    mean = jnp.mean(first) - slope * between
    left = jnp.sum((first - jnp.mean(first) - slope * centred) ** 2) / (n - 2)
    error = jnp.sqrt(left * (1.0 / n + between**2 / square)) / mean
    close = between**2 <= _APART**2 * square / (n * (n - 1))
    fine = jnp.all(jnp.isfinite(bridge)) & close & (mean > 0.0) & jnp.isfinite(error)
    log_mean = base + jnp.log(jnp.where(fine, mean, 1.0))
    error = two_errors(n - 2) * error
    return jnp.where(fine, log_mean, alone), jnp.where(fine, error, alone_error)


def two_errors(degrees: int) -> float:
    """Return by what a standard error grows, if two are to hold 95 % by Student's t."""
    return float(stdtrit(degrees, 0.975)) / 2.0


def _log_prob(fit: student.Fit, z: Array) -> Array:
    """Return a Student t's normalised log-density at points `(n, d)`."""
    standard = student.log_prob(jax.vmap(fit.standardize)(z)) - student.log_norm(z.shape[-1])
    return standard - jnp.sum(jnp.log(jnp.diagonal(fit.factor)))


def _bridge(at_draws: Array, at_proposed: Array) -> Array:
    """Return log r from log(p / q) at draws of p, and at draws of q, by fixed-point iteration."""

    def step(_: Array, log_r: Array) -> Array:
        above = logsumexp(at_proposed - jnp.logaddexp(at_proposed, log_r))
        below = logsumexp(-jnp.logaddexp(at_draws, log_r))
        return above - below + jnp.log(at_draws.shape[0] / at_proposed.shape[0])

    return jax.lax.fori_loop(0, _ITERATIONS, step, jnp.median(at_draws))
