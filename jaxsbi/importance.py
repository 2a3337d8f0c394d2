"""Importance sampling: correct a learned posterior by a likelihood, and weigh the evidence."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Posterior,
    Theta,
    check_key,
    is_concrete,
    positive,
    warn,
)
from jaxsbi.methods import likelihood
from jaxsbi.methods.fixed import fixed
from jaxsbi.priors import Prior
from jaxsbi.samplers.pareto import pareto_k
from jaxsbi.samplers.weights import effective_size, log_mean_and_error, systematic
from jaxsbi.support import warn_beyond
from jaxsbi.workarounds import register_dataclass

LogLikelihood = Callable[[Theta, Data], Array]
MIN_EFFICIENCY = 0.01
"""Below this share of effective draws a warning is given, as by a Pareto k above `MAX_PARETO_K`."""
MAX_PARETO_K = 0.7
NOTICEABLE = 10.0
"""Weights of which none is so many times the mean have no tail that could matter."""
BATCH = 1024


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Weighted:
    """Draws with weights: what `importance` returns.

    Attributes:
        draws: Named draws of the proposal, each of shape `(n, *shape)`.
        log_weights: log of likelihood x prior / proposal, shape `(n,)`; -inf where the target
            vanishes. Their mean weight is the evidence.
        ess: Effective sample size, `(sum w)² / sum w²`, between 1 and n.
        efficiency: `ess / n`.
        pareto_k: Shape of the weights' upper tail (Vehtari et al. 2015, arXiv:1507.02646): below
            0.5 the evidence has a finite error, above 0.7 nothing here can be trusted.
        log_evidence: log p(x), up to what the log-likelihood leaves out.
        log_evidence_error: Its standard error.
        num_undefined: Draws at which the target or the proposal was NaN, or the weight infinite:
            they have weight 0.
    """

    draws: Theta
    log_weights: Array
    ess: Array
    efficiency: Array
    pareto_k: Array
    log_evidence: Array
    log_evidence_error: Array
    num_undefined: Array

    def resample(self, key: Key, n: int) -> Theta:
        """Return `n` draws of equal weight, chosen (with repetitions) in proportion to the weights.

        Raises:
            TypeError: If the key is not a typed key.
            ValueError: If `n` is no positive integer.
        """
        check_key(key)
        positive("n", n)
        key_pick, key_order = jax.random.split(key)
        index = systematic(key_pick, jax.nn.softmax(self.log_weights), n)
        index = jax.random.permutation(key_order, index)
        return jax.tree.map(lambda a: a[index], self.draws)

    def warn(self) -> None:
        """Warn (on the host) when the weights should not be trusted."""
        efficiency, k = float(self.efficiency), float(self.pareto_k)
        undefined, n = int(self.num_undefined), self.log_weights.shape[0]
        if undefined:
            warn(
                f"importance: {undefined} of {n} draws have weight 0 because the log-likelihood, "
                "or a density, is NaN or infinite there: draws and evidence are those of the rest. "
                "Evaluate log_likelihood at result.draws where result.log_weights is -inf."
            )
        largest = float(jnp.exp(jnp.max(self.log_weights) - self.log_evidence))
        tail = not k <= MAX_PARETO_K and largest > NOTICEABLE
        if not efficiency >= MIN_EFFICIENCY or tail:
            warn(
                f"importance: the proposal covers the target badly: efficiency {efficiency:.2%} "
                f"(expected >= {MIN_EFFICIENCY:.0%}), Pareto k {k:.2f} (expected <= "
                f"{MAX_PARETO_K}). Train the proposal on more simulations, widen it, or run MCMC "
                "on the likelihood."
            )


def importance(
    key: Key,
    posterior: Posterior,
    log_likelihood: LogLikelihood | Posterior,
    prior: Prior,
    x: Data,
    n: int,
) -> Weighted:
    """Draw from a learned posterior and weigh the draws by likelihood x prior / posterior.

    With exact likelihoods the weighted draws are exact however the posterior was learned; what it
    missed shows as a low efficiency (DINGO-IS, Dax et al. 2023, arXiv:2210.05686).

    Args:
        key: A typed key.
        posterior: The proposal: of a road with a normalised density (`npe`, `fmpe`, `npse`).
        log_likelihood: `log_likelihood(theta, x) -> scalar` of one parameter set; or the posterior
            of `nle`, `nre` or `emulator`, whose learned likelihood is then used.
        prior: The prior of the target (the posterior's own may be another, with the same names).
        x: One data set.
        n: The number of draws.

    Returns:
        Draws, log-weights, their effective number and the log-evidence. It warns of an efficiency
        that is too low, of undefined weights, and of a prior beyond the proposal's; not under
        `jax.jit` or `jax.vmap` (over keys and observations): look at `efficiency` there.

    Raises:
        TypeError: If the key is not a typed key, `posterior` is not one, or `log_likelihood`
            cannot be called or `prior` is none.
        ValueError: If `n` is no positive integer, the posterior's density is not normalised, the
            priors' parameters differ, or the target vanishes at every draw.
    """
    check_key(key)
    positive("n", n)
    _check(posterior, log_likelihood, prior)
    x = posterior.conform(x)
    posterior.warn_beyond(x)
    if isinstance(log_likelihood, Posterior):
        result = _by_posterior(posterior, prior, log_likelihood, key, x, int(n))
    else:
        result = _by_function(fixed(log_likelihood), posterior, prior, key, x, int(n))
    if is_concrete(result):
        if not np.isfinite(float(result.log_evidence)):
            raise ValueError(
                f"importance: the target vanishes (or is NaN, or infinite) at all {n} draws of the "
                "proposal: none of it is covered. Evaluate log_likelihood and prior.log_prob at a "
                "draw of the posterior."
            )
        result.warn()
        if prior is not posterior.prior:
            warn_beyond(posterior.prior, prior, "importance")
    return result


def _check(posterior: Any, target: Any, prior: Prior) -> None:
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"importance: expected a posterior as proposal, got {type(posterior).__name__}. Pass "
            "fitted.posterior."
        )
    if likelihood.is_learned_by(posterior.method):
        raise ValueError(
            f"importance: the density of {type(posterior.method).__name__} is not normalised over "
            "theta, so it is no proposal. Propose with npe, fmpe or npse; a learned likelihood "
            "can be the target: importance(key, npe_posterior, nle_posterior, ...)."
        )
    if isinstance(target, Posterior) and not likelihood.is_learned_by(target.method):
        raise ValueError(
            f"importance: {type(target.method).__name__} has no likelihood to weigh with. Pass the "
            "posterior of nle, nre or emulator, or a function (theta, x) -> scalar."
        )
    if not isinstance(target, Posterior) and not callable(target):
        raise TypeError(
            "log_likelihood: expected a function (theta, x) -> scalar or a posterior, got "
            f"{type(target).__name__}."
        )
    if not isinstance(prior, Prior):
        raise TypeError(
            f"prior: expected a jaxsbi.Prior of named parameters, got {type(prior).__name__}."
        )
    if (prior.names, prior.shapes) != (posterior.prior.names, posterior.prior.shapes):
        raise ValueError(
            f"prior: expected the proposal's parameters {posterior.prior.shapes}, got "
            f"{prior.shapes}."
        )


@functools.partial(jax.jit, static_argnames="n")
def _by_function(
    log_likelihood: LogLikelihood, posterior: Posterior, prior: Prior, key: Key, x: Data, n: int
) -> Weighted:
    return _weigh(lambda theta: log_likelihood(theta, x), posterior, prior, key, x, n)


@functools.partial(jax.jit, static_argnames="n")
def _by_posterior(
    posterior: Posterior, prior: Prior, target: Posterior, key: Key, x: Data, n: int
) -> Weighted:
    method = cast(likelihood.LikelihoodMethod, target.method)

    def learned(theta: Theta) -> Array:
        return likelihood.at_theta(method, target.variables, target.prior, theta, x)

    return _weigh(learned, posterior, prior, key, x, n)


def _proposal(method: Any) -> Any:
    """Return the method, with a field's draws as exact as its density."""
    if hasattr(method, "method"):  # an ensemble's, or of summaries
        return dataclasses.replace(method, method=_proposal(method.method))
    solver = getattr(getattr(method, "sampler", None), "as_density", None)
    return method if solver is None else dataclasses.replace(method, sampler=solver)


def _weigh(
    log_likelihood: Callable[[Theta], Array],
    posterior: Posterior,
    prior: Prior,
    key: Key,
    x: Data,
    n: int,
) -> Weighted:
    method, variables = _proposal(posterior.method), posterior.variables
    draws, info = method.sample(variables, posterior.prior, key, x, n)

    def one(theta: Theta) -> Array:
        value = jnp.asarray(log_likelihood(theta))
        if value.shape:
            raise ValueError(
                f"log_likelihood: expected a scalar, got shape {value.shape}. Return the sum over "
                "the data, of one parameter set."
            )
        return prior.log_prob(theta) + value

    def proposed(theta: Theta) -> Array:
        return method.log_prob(variables, posterior.prior, theta, x)

    target = jax.lax.map(one, draws, batch_size=min(BATCH, n))
    log_q = getattr(info, "log_prob", None)
    if log_q is None:
        log_q = jax.lax.map(proposed, draws, batch_size=min(BATCH, n))
    return weigh(draws, target - log_q)


def weigh(draws: Theta, log_weights: Array) -> Weighted:
    """Return draws with their log-weights, shape `(n,)`, and what these say of themselves."""
    undefined = jnp.isnan(log_weights) | (log_weights == jnp.inf)
    log_weights = jnp.where(undefined, -jnp.inf, log_weights)
    ess = effective_size(log_weights)
    log_evidence, error = log_mean_and_error(log_weights)
    return Weighted(
        draws=draws,
        log_weights=log_weights,
        ess=ess,
        efficiency=ess / log_weights.shape[0],
        pareto_k=pareto_k(log_weights),
        log_evidence=log_evidence,
        log_evidence_error=error,
        num_undefined=jnp.sum(undefined),
    )
