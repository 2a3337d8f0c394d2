"""f-divergences of two densities that can be evaluated, by Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array


class Estimate(NamedTuple):
    """A mean over draws, and its standard error."""

    value: float
    error: float


class Divergences(NamedTuple):
    """How far q is from p, in nats except for the last two.

    Attributes:
        kl: KL(p‖q) = E_p log(p / q): large where q misses a part of p.
        reverse_kl: KL(q‖p): large where q puts what p does not have.
        js: The Jensen-Shannon divergence, at most log 2.
        hellinger: The squared Hellinger distance, 1 - E_p sqrt(q / p), at most 1.
        total_variation: At most 1; the best classifier of draws is right in a share of
            (1 + total_variation) / 2, which a C2ST estimates from below.
    """

    kl: Estimate
    reverse_kl: Estimate
    js: Estimate
    hellinger: Estimate
    total_variation: Estimate


def divergences(
    log_p: Callable[[Array], Array],
    log_q: Callable[[Array], Array],
    draws_p: Array,
    draws_q: Array,
) -> Divergences:
    """Return f-divergences of two normalised densities from draws of both.

    Args:
        log_p: The log-density of one point; -inf where there is none.
        log_q: Of the other law.
        draws_p: Draws of the first law, shape `(n, …)`.
        draws_q: Draws of the second, shape `(m, …)`.

    Returns:
        Each with its standard error. A divergence is infinite if a draw of one law has no density
        under the other where it counts.

    Raises:
        ValueError: If there are fewer than 2 draws of a law, or a law gives no density to one of
            its own draws.
    """
    for name, draws in (("draws_p", draws_p), ("draws_q", draws_q)):
        if jnp.ndim(draws) < 1 or draws.shape[0] < 2:
            raise ValueError(f"{name}: expected at least 2 draws, got shape {jnp.shape(draws)}.")
    # log(q / p) at draws of p, and log(p / q) at draws of q.
    at_p = jax.vmap(lambda z: log_q(z) - log_p(z))(draws_p)
    at_q = jax.vmap(lambda z: log_p(z) - log_q(z))(draws_q)
    for name, ratio in (("draws_p", at_p), ("draws_q", at_q)):
        bad = int(jnp.sum(jnp.isnan(ratio) | (ratio == jnp.inf)))
        if bad:
            raise ValueError(
                f"{name}: {bad} of {ratio.shape[0]} draws have no density under the law they are "
                "said to be of. Check that draws and densities belong together."
            )
    half = math.log(2.0)
    js_p, js_q = half - jnp.logaddexp(0.0, at_p), half - jnp.logaddexp(0.0, at_q)
    js = [_mean(a) for a in (js_p, js_q)]
    variation = [_mean(jnp.maximum(0.0, -jnp.expm1(a))) for a in (at_p, at_q)]
    root = [_mean(-jnp.expm1(0.5 * a)) for a in (at_p, at_q)]
    return Divergences(
        _mean(-at_p), _mean(-at_q), *(_both(*pair) for pair in (js, root, variation))
    )


def _mean(values: Array) -> Estimate:
    error = jnp.std(values, ddof=1) / math.sqrt(values.shape[0])
    return Estimate(float(jnp.mean(values)), float(error))


def _both(first: Estimate, second: Estimate) -> Estimate:
    """Return the mean of two independent estimates."""
    return Estimate(0.5 * (first.value + second.value), 0.5 * math.hypot(first.error, second.error))
