"""The integral of a density from draws of it, by a bridge to a fitted Student t; its error."""

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


def log_evidence(key: Key, log_density: LogDensity, z: Array, value: Array) -> Array:
    """Return the log of the integral of a density, from each of several independent sets of draws.

    Draws of the density and of a Student t fitted to those of *another* set are joined by the
    bridge of Meng & Wong (1996, Stat. Sin. 6, 831), which weighs both laws alike here: draws of
    chains are worth far fewer than they are. Where the Student t overlaps with the
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


def two_errors(populations: int) -> float:
    """Return by what a standard error grows, if two are to hold 95 % by Student's t."""
    return float(stdtrit(populations - 1, 0.975)) / 2.0


def more_exact(steps: Array, bridge: Array) -> tuple[Array, Array]:
    """Return the evidence and its error from the steps in temperature, or by a bridge.

    The second adds no error on the way from the prior, but needs a posterior like a Student t: it
    is taken where its populations agree better. Shares of the draws follow the first, whose errors
    are those of the weights of modes.
    """
    (first, first_error), (second, second_error) = map(log_mean_and_error, (steps, bridge))
    better = second_error < first_error
    return jnp.where(better, second, first), jnp.where(better, second_error, first_error)


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
