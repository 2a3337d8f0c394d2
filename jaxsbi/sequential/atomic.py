"""Atomic proposals: a posterior from draws of any proposal, by telling the true θ from others."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulations,
    Simulator,
    Theta,
    Variables,
    configuration,
    leaf,
)
from jaxsbi.compression import Frozen
from jaxsbi.methods.npe import NPE
from jaxsbi.priors import Prior
from jaxsbi.sequential.proposal import at_draws
from jaxsbi.sequential.rounds import Result, run


@configuration
class Atomic:
    """NPE whose loss does not see where its parameter sets were drawn from.

    Source: automatic posterior transformation, Greenberg et al. 2019, arXiv:1905.07488.

    Attributes:
        method: The NPE.
        atoms: Parameter sets of the batch among which the true one must be found.
    """

    method: Any = leaf()
    atoms: int = 10

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return the method's variables."""
        return self.method.init(key, prior, simulations)

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return -log of the probability given to each row's own parameter set, shape `(n,)`.

        Atom k has the weight q(z_k | x) / p(z_k): with equal chances for all atoms that is its
        posterior probability, whatever law they were drawn from.
        """
        n = batch.weight.shape[0]
        key_others, key_loss = jax.random.split(key)
        # Distances 1 … n-1 without repetition: no row meets itself, nor the same row twice.
        others = jax.random.choice(key_others, n - 1, (min(self.atoms, n) - 1,), replace=False)
        shifts = jnp.concatenate([jnp.zeros(1, others.dtype), others + 1])
        log_prior = jax.vmap(lambda t: prior.latent_log_prob(prior.to_latent(t)))(batch.theta)

        def log_weight(shift: Array) -> Array:
            at = (jnp.arange(n) + shift) % n
            moved = Simulations(
                jax.tree.map(lambda a: a[at], batch.theta), batch.x, batch.weight[at]
            )
            value = -self.method.loss(variables, prior, key_loss, moved) - log_prior[at]
            return jnp.where(moved.weight > 0, value, -jnp.inf)

        weights = jax.vmap(log_weight)(shifts)
        own = jnp.where(batch.weight > 0, weights[0], 0.0)
        total = jax.nn.logsumexp(weights.at[0].set(own), axis=0)
        return total - own

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws, as the method's."""
        return self.method.sample(variables, prior, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return the method's log-density."""
        return self.method.log_prob(variables, prior, theta, x)


def atomic(
    key: Key,
    method: NPE | Frozen,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    *,
    num_rounds: int,
    simulations_per_round: int,
    previous: Result | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Result:
    """Learn a posterior from rounds of simulations at draws of the last one (APT, or SNPE-C).

    Args:
        key: A typed key.
        method: `npe`, or `compression.frozen` of it.
        prior: The prior; the first round is simulated from it, with the plain loss.
        simulator: `simulator(key, theta) -> x`.
        x: The observation; the result holds for it alone.
        num_rounds: How many rounds to run.
        simulations_per_round: Simulations of each; all rounds' are trained on.
        previous: What an earlier call returned: its rounds are kept, and these are added. Rounds of
            any function and observation will do, under the same prior.
        checkpoint: A folder in which every round is written down, as for `sequential.truncated`.
        progress: Show progress bars.

    Returns:
        Every round, and the last posterior. Ctrl-C loses the round that is being run.

    Raises:
        TypeError: If the key is not typed, or the method is not NPE.
        ValueError: If a number is out of range, `previous` cannot be used here, or the checkpoint
            is damaged or of another call.
    """
    trained = method.method if isinstance(method, Frozen) else method
    if not isinstance(trained, NPE):
        raise TypeError(
            f"sequential.atomic: expected npe, whose loss is a normalised density, got "
            f"{type(trained).__name__}. Use sequential.truncated or sequential.likelihood."
        )
    later: Any = Atomic(method=trained)
    if isinstance(method, Frozen):
        later = dataclasses.replace(method, method=later)
    return run(
        key,
        method,
        prior,
        simulator,
        x,
        at_draws,
        later=later,
        num_rounds=num_rounds,
        simulations_per_round=simulations_per_round,
        previous=previous,
        checkpoint=checkpoint,
        progress=progress,
    )
