"""Where a round is simulated, and which of all simulations are trained on after that."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, DataSpec, Key, Posterior, Simulations, Simulator, Theta
from jaxsbi.priors import Prior
from jaxsbi.recentred import Recentred, latents
from jaxsbi.sequential.journal import Drawn
from jaxsbi.sequential.outside import missed, warn_outside
from jaxsbi.simulate import simulate_at

MIN_KEPT = 20
"""Simulations below which a round is trained on all of them, not on a part."""


class Proposal(NamedTuple):
    """Where the next round is simulated.

    Attributes:
        theta: Named parameter sets, each of shape `(n, *shape)`.
        log_prob: The proposal's log-density at each, shape `(n,)`.
        prior_mass: The share of the prior it covers.
        keeps: `keeps(theta) -> (n,) bool`: which simulations, of all rounds, to train on.
        free: Whether all may be trained on, where the new ones are unlike the observation.
    """

    theta: Theta
    log_prob: Array
    prior_mass: float
    keeps: Callable[[Theta], np.ndarray]
    free: bool = False


Propose = Callable[[Key, Posterior, Recentred, Data, int], Proposal]
REACH = 6.0


def at_draws(key: Key, posterior: Posterior, centred: Recentred, x: Data, n: int) -> Proposal:
    """Propose draws of the last posterior; train on what lies within `REACH` deviations of them.

    For what learns the law of x given θ, a choice among simulations by θ is no bias.
    """
    theta = posterior.sample(key, x, n)
    z = latents(centred.prior, theta)
    mean, scale = jnp.mean(z, 0), jnp.std(z, 0)

    def keeps(theta: Theta) -> np.ndarray:
        away = jnp.abs(latents(centred.prior, theta) - mean[None]) / (scale[None] + 1e-6)
        return np.asarray(jnp.all(away < REACH, axis=1))

    log_prob = jax.vmap(lambda theta: posterior.log_prob(theta, x))(theta)
    # Simulations without noise need not be like the observation, however right the posterior is.
    free = not getattr(posterior.method, "noiseless", False)
    return Proposal(theta, log_prob, 1.0, keeps, free)


def from_prior(key: Key, prior: Prior, n: int) -> Proposal:
    """Return the first round's proposal: the prior itself."""
    theta = jax.vmap(prior.sample)(jax.random.split(key, n))
    log_prob = jax.vmap(prior.log_prob)(theta)
    return Proposal(theta, log_prob, 1.0, lambda theta: np.ones(_rows(theta), bool))


def drawn(
    key: Key,
    proposal: Proposal,
    simulator: Simulator,
    x: Data,
    together: Callable[[Simulations], list[Simulations]],
    *,
    first: bool,
    progress: bool,
) -> Drawn:
    """Simulate where it is proposed, and say which of all simulations the proposal keeps.

    All of them where what is simulated there is unlike the observation, if that is no bias: a
    posterior that went astray would be learned from nothing but its own mistake, again and again.

    Args:
        key: A typed key.
        proposal: Where.
        simulator: The simulator.
        x: The observation; it must be one of the simulator's.
        together: Returns the simulations that there are with the new ones, in parts.
        first: Whether it is the prior: its simulations tell whether the observation is far off.
        progress: Whether to show a progress bar.
    """
    new = simulate_at(key, simulator, proposal.theta, progress=progress)
    observed = DataSpec.of(new.x, batched=True).conform(x)
    if first:
        warn_outside(observed, new)
    # Part by part: for arrays of one shape one program is compiled.
    parts = together(new)
    keep = np.concatenate([proposal.keeps(part.theta) for part in parts])
    valid = np.concatenate([np.asarray(part.weight) > 0 for part in parts])
    astray = proposal.free and not first and missed(observed, new)
    keep = keep & valid if np.sum(keep & valid) >= MIN_KEPT and not astray else valid
    return Drawn(new, np.asarray(proposal.log_prob), proposal.prior_mass, keep, astray)


def proposed(
    key: Key, posterior: Posterior | None, prior: Prior, x: Data, propose: Propose, n: int
) -> Proposal:
    """Return what is proposed after a posterior, or the prior where there is none yet."""
    if posterior is None:
        return from_prior(key, prior, n)
    assert isinstance(posterior.prior, Recentred)
    return propose(key, posterior, posterior.prior, x, n)


def _rows(theta: Theta) -> int:
    return int(next(iter(theta.values())).shape[0])
