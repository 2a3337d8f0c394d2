"""Neural likelihood estimation: a conditional density of the data given the parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Simulations, Theta, Variables, configuration, leaf
from jaxsbi.densities import MaskedAutoregressive
from jaxsbi.methods import likelihood
from jaxsbi.methods.features import first, standardize, statistics
from jaxsbi.networks import flatten
from jaxsbi.priors import Prior
from jaxsbi.samplers import nuts


@configuration
class NLE:
    """Neural likelihood estimation (Papamakarios et al. 2019, arXiv:1805.07226).

    Attributes:
        density: A conditional density over the flattened, standardised data.
        sampler: The sampler that draws from the posterior (`jaxsbi.samplers`).
        target: Set by `posterior.with_prior`.
    """

    density: nn.Module = MaskedAutoregressive()
    sampler: Any = nuts()
    target: Prior | None = leaf(default=None)

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean and scale."""
        stats = statistics(simulations.x)
        x = flatten(standardize(stats, first(simulations.x)))
        z = jnp.zeros(prior.dim, x.dtype)
        density = self.density.clone(dim=x.size).init(key, x, z, method="log_prob")
        return {"params": density.get("params", {}), "statistics": stats}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return -log q(x | theta) per row, shape `(n,)`, in nats of the standardised data."""
        del key

        def one(theta: Theta, x: Data) -> Array:
            return -self._standardized(variables, prior.to_latent(theta), x)

        return jax.vmap(one)(batch.theta, batch.x)

    def log_likelihood(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        """Return log q(x | theta(z)), normalised over x (a scalar)."""
        del prior
        scale = flatten(variables["statistics"]["scale"])
        return self._standardized(variables, z, x) - jnp.sum(jnp.log(scale))

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws of the learned likelihood times the prior, and the chains' report."""
        return likelihood.sample(self, variables, prior, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return log q(x | theta) + log p(theta), not normalised over theta."""
        return likelihood.log_prob(self, variables, prior, theta, x)

    def with_prior(self, new: Prior) -> NLE:
        """Return the same road under another prior."""
        return dataclasses.replace(self, target=new)

    def _standardized(self, variables: Variables, z: Array, x: Data) -> Array:
        x = flatten(standardize(variables["statistics"], x))
        params = {"params": variables["params"]}
        return self.density.clone(dim=x.size).apply(params, x, z, method="log_prob")


def nle(*, density: nn.Module | None = None, sampler: Any = None) -> NLE:
    """Return the configuration of neural likelihood estimation.

    Args:
        density: A conditional density of the data (`jaxsbi.densities`).
        sampler: A sampler (`jaxsbi.samplers`); NumPyro's NUTS in many short chains by default.
    """
    given = {"density": density, "sampler": sampler}
    return NLE(**{name: value for name, value in given.items() if value is not None})
