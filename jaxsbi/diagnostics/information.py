"""How much the data say of the parameters, and how much of it a summary loses; in nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, Key, Posterior, Simulations, Theta, check_key, warn
from jaxsbi.diagnostics.divergences import Estimate
from jaxsbi.methods import likelihood
from jaxsbi.priors import Prior

CONTRASTS = 1024
"""Parameter sets, the true one among them, that a learned likelihood or ratio is averaged over."""
AT_ONCE = 16_384


class Information(NamedTuple):
    """A lower bound on the mutual information of parameters and data.

    Attributes:
        value: In nats. It falls short of the truth by what the posterior has not learned.
        error: Its standard error, from the scatter over simulations.
        limit: What the bound cannot exceed: infinite for a normalised posterior, log 1024 = 6.9
            for a learned likelihood or ratio.
    """

    value: float
    error: float
    limit: float


def mutual_information(key: Key, posterior: Posterior, simulations: Simulations) -> Information:
    """Return how much data say of the parameters on average, as far as a posterior has learned it.

    For a road with a normalised density (`npe`, `fmpe`, `npse`, `joint`) the mean of
    log q(theta | x) - log p(theta) (Barber & Agakov 2003, NIPS 16): short of the mutual information
    by the mean KL(p(theta | x) ‖ q). For one with a likelihood or a ratio (`nle`, `nre`,
    `emulator`), known up to a factor that depends on x, the mean of log f(x, theta) less the log of
    its mean over that theta and 1023 new draws of the prior (InfoNCE: van den Oord et al. 2018,
    arXiv:1807.03748; Poole et al. 2019, arXiv:1905.06922, eq. 12). Both are lower bounds in the
    mean over *fresh* simulations; on those of the training they may exceed the truth.

    A host function: it checks its values, so it cannot be put under `jax.jit`.

    Args:
        key: A typed key, for the draws of the prior; a normalised density uses none.
        posterior: The posterior, under the prior that the simulations were drawn from.
        simulations: Fresh simulations from the prior, n of them; rows of weight 0 are left out.

    Returns:
        The bound in nats with its standard error. A warning is given within 2 nats of its limit.

    Raises:
        TypeError: If the key is not typed, or `posterior` is not one.
        ValueError: If fewer than 2 simulations are valid, or a true parameter set has no density.
    """
    terms = _information_terms(key, posterior, simulations, "posterior")
    learned = likelihood.is_learned_by(posterior.method)
    result = Information(*_mean(terms), math.log(CONTRASTS) if learned else math.inf)
    if result.value > result.limit - 2.0:
        warn(
            f"mutual_information: the bound, {result.value:.2f} nats, is close to the "
            f"{result.limit:.2f} that it cannot exceed; there may be much more. Learn a normalised "
            "posterior (npe) for so informative data."
        )
    return result


def information_lost(
    key: Key,
    posterior: Posterior,
    summarized: Posterior,
    simulations: Simulations,
    *,
    summary: Callable[[Data], Data] | None = None,
) -> Estimate:
    """Return how much less the second posterior knows of the parameters, in nats.

    Two estimates by `mutual_information` on the same simulations; the error is that of the paired
    difference, smaller than that of either. A difference of two bounds is no bound: what a
    posterior has not learned counts as lost, by either.

    Args:
        key: A typed key, as for `mutual_information`.
        posterior: The posterior that reads all data.
        summarized: One that reads less, under the same prior.
        simulations: Fresh simulations from the prior, as `posterior` reads them.
        summary: From one data set to what `summarized` was trained on; `None` where it reads the
            whole data set and summarizes it within (`npe(summary=…)`).

    Raises:
        TypeError, ValueError: As `mutual_information`.
    """
    check_key(key)
    again = jax.random.clone(key)
    full = _information_terms(key, posterior, simulations, "posterior")
    if summary is not None:
        x = jax.vmap(summary)(simulations.x)
        simulations = Simulations(simulations.theta, x, simulations.weight)
    # The same draws of the prior for both, on purpose: what they add cancels in the difference.
    part = _information_terms(again, summarized, simulations, "summarized")
    return Estimate(*_mean(full - part))


def _information_terms(
    key: Key, posterior: Posterior, simulations: Simulations, name: str
) -> np.ndarray:
    """Return each valid simulation's contribution, shape `(n,)`."""
    check_key(key)
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"{name}: expected a posterior, got {type(posterior).__name__}. Pass fitted.posterior."
        )
    valid = np.asarray(simulations.weight) > 0
    if valid.sum() < 2:
        raise ValueError(
            f"simulations: expected at least 2 of positive weight, got {int(valid.sum())}. "
            "Simulate a thousand: the error falls with the root of their number."
        )
    theta, x = simulations.theta, simulations.x
    if likelihood.is_learned_by(posterior.method):
        terms = _contrastive(posterior, jax.random.split(key, len(simulations)), theta, x)
    else:
        terms = _direct(posterior, theta, x)
    values = np.asarray(terms, float)[valid]
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise ValueError(
            f"{name}: expected a finite density at every true parameter set, got NaN or infinity "
            f"at {bad} of {values.size}: the bound is -infinity. Were they drawn from the "
            "posterior's own prior? If so, its training has failed there."
        )
    return values


def _mean(terms: np.ndarray) -> tuple[float, float]:
    return float(np.mean(terms)), float(np.std(terms, ddof=1) / math.sqrt(terms.size))


def _gain(posterior: Posterior, prior: Prior, theta: Theta, x: Data) -> Array:
    """Return log q(theta | x) - log p(theta): log p(x | theta) plus, maybe, a function of x."""
    return posterior.log_prob(theta, x) - prior.log_prob(theta)


@jax.jit
def _direct(posterior: Posterior, theta: Theta, x: Data) -> Array:
    def one(row: tuple[Theta, Data]) -> Array:
        return _gain(posterior, posterior.prior, *row)

    return jax.lax.map(one, (theta, x), batch_size=CONTRASTS)


@jax.jit
def _contrastive(posterior: Posterior, keys: Array, theta: Theta, x: Data) -> Array:
    target = cast(likelihood.LikelihoodMethod, posterior.method).target
    prior = posterior.prior if target is None else target

    def one(row: tuple[Key, Theta, Data]) -> Array:
        key, theta, x = row
        # New ones for every row: the rows stay independent, and their scatter is the error.
        others = jax.vmap(prior.sample)(jax.random.split(key, CONTRASTS - 1))
        joint = _gain(posterior, prior, theta, x)
        rest = jax.vmap(lambda t: _gain(posterior, prior, t, x))(others)
        total = jax.scipy.special.logsumexp(jnp.concatenate([joint[None], rest]))
        return joint - total + math.log(CONTRASTS)

    return jax.lax.map(one, (keys, theta, x), batch_size=AT_ONCE // CONTRASTS)
