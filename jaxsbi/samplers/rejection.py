"""Rejection sampling from the latent prior, under the largest ratio seen so far."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration, warn
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.convergence import nowhere
from jaxsbi.samplers.weights import finite_log_ratio


class RejectionInfo(NamedTuple):
    """What rejection sampling reports.

    Attributes:
        r_hat: 1 if `n` independent draws were accepted, infinite otherwise, shape `(d,)`.
        ess_bulk: Different draws among those returned, shape `(d,)`.
        ess_tail: The same number.
        divergences: 0, there are no transitions.
        acceptance: Share of the proposals that was accepted.
        log_density: Log-density of each draw in the latent space, shape `(n,)`.
        log_evidence: Log of the integral of exp(log_density).
        log_evidence_error: Its standard error, from the weights of all proposals.
        proposals: How many points of the prior were tried.
    """

    r_hat: Array
    ess_bulk: Array
    ess_tail: Array
    divergences: Array
    acceptance: Array
    log_density: Array
    log_evidence: Array
    log_evidence_error: Array
    proposals: Array

    def warn(self) -> None:
        """Warn (on the host) when the draws should not be trusted."""
        accepted, n = int(self.ess_bulk[0]), self.log_density.shape[-1]
        if accepted == 0:
            warn(nowhere("rejection", "proposal drawn from the prior", "raise rounds or batch"))
        elif accepted < n:
            warn(
                f"rejection: {accepted} of the {n} draws were accepted in {int(self.proposals)} "
                "proposals, and are repeated. Raise rounds or batch, or use jaxsbi.samplers.smc()."
            )


class _State(NamedTuple):
    """The first `n` accepted proposals, in the order they came."""

    z: Array
    value: Array
    score: Array  # ratio - log(uniform): accepted if above the bound
    bound: Array
    evidence: tuple[Array, Array]  # sums of exp(ratio - bound), and of its square
    accepted: Array
    round: Array


@configuration
class Rejection:
    """Rejection sampling from N(0, I) with an empirical bound (Caffo, Booth & Davis 2002).

    The bound is the largest ratio of density to prior seen so far; when it grows, earlier proposals
    are judged again with the uniform numbers they had. Draws are independent; only for posteriors
    that fill a good part of the prior.

    Attributes:
        batch: Proposals per round.
        rounds: Rounds, at most.
    """

    batch: int = 20_000
    rounds: int = 100

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there are no rounds, or too few proposals to estimate a bound.
        """
        if self.batch < 100 or self.rounds < 1:
            raise ValueError(
                f"rejection: expected batch >= 100 and rounds >= 1, got batch={self.batch}, "
                f"rounds={self.rounds}."
            )

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, RejectionInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised log-density on the latent space.
            dim: The number of dimensions.
            n: The number of draws. If fewer are accepted in all rounds they are repeated, and if
                none is, draws of the prior are returned; the report says so.

        Returns:
            Draws of shape `(n, dim)`, and the report with the evidence.
        """
        key_start, key_rounds = jax.random.split(key)
        prior = jax.random.normal(key_start, (n, dim))
        nothing = jnp.full(n, -jnp.inf, prior.dtype)
        zero = jnp.zeros((), prior.dtype)
        start = _State(
            prior, nothing, nothing, nothing[0], (zero, zero), jnp.array(0), jnp.array(0)
        )

        def unfinished(state: _State) -> Array:
            return (state.accepted < n) & (state.round < self.rounds)

        def one_round(state: _State) -> _State:
            return self._round(jax.random.fold_in(key_rounds, state.round), log_density, state)

        state = jax.lax.while_loop(unfinished, one_round, start)
        return _report(state, self.batch)

    def _round(self, key: Key, log_density: LogDensity, state: _State) -> _State:
        key_draw, key_accept = jax.random.split(key)
        n, dim = state.z.shape
        z = jax.random.normal(key_draw, (self.batch, dim))
        value = jax.vmap(log_density)(z)
        ratio = finite_log_ratio(z, value)
        score = ratio + jax.random.exponential(key_accept, (self.batch,))
        bound = jnp.maximum(state.bound, jnp.max(ratio))
        weight = jnp.where(jnp.isfinite(bound), jnp.exp(ratio - bound), 0.0)
        shrunk = jnp.where(jnp.isfinite(state.bound), jnp.exp(state.bound - bound), 0.0)
        first, second = state.evidence
        every = jnp.concatenate([state.score, score])
        accepted = every > bound
        # Accepted ones first, in the order they came: what falls off the end came last.
        order = jnp.argsort(~accepted, stable=True)[:n]
        return _State(
            z=jnp.concatenate([state.z, z])[order],
            value=jnp.concatenate([state.value, value])[order],
            score=jnp.where(accepted, every, -jnp.inf)[order],
            bound=bound,
            evidence=(
                first * shrunk + jnp.sum(weight),
                second * shrunk**2 + jnp.sum(weight**2),
            ),
            accepted=jnp.sum(accepted[order]),
            round=state.round + 1,
        )


def _report(state: _State, batch: int) -> tuple[Array, RejectionInfo]:
    n, dim = state.z.shape
    some = state.accepted > 0
    index = jnp.where(some, jnp.arange(n) % jnp.maximum(state.accepted, 1), jnp.arange(n))
    proposals = state.round * batch
    first, second = state.evidence
    mean = first / proposals
    variance = jnp.maximum(second / proposals - mean**2, 0.0) / proposals
    different = jnp.broadcast_to(state.accepted.astype(mean.dtype), (dim,))
    info = RejectionInfo(
        r_hat=jnp.where(different < n, jnp.inf, jnp.ones(dim)),
        ess_bulk=different,
        ess_tail=different,
        divergences=jnp.array(0),
        acceptance=mean,  # the expected share under the bound, of all proposals
        log_density=state.value[index],
        log_evidence=jnp.where(some, jnp.log(mean) + state.bound, -jnp.inf),
        log_evidence_error=jnp.where(
            some, jnp.sqrt(variance) / jnp.where(some, mean, 1.0), jnp.inf
        ),
        proposals=proposals,
    )
    return state.z[index], info


def rejection(*, batch: int = 20_000, rounds: int = 100) -> Rejection:
    """Return the configuration of rejection sampling from the prior.

    Args:
        batch: Proposals per round.
        rounds: Rounds, at most.

    Raises:
        ValueError: If there are no rounds, or too few proposals to estimate a bound.
    """
    return Rejection(batch=batch, rounds=rounds)
