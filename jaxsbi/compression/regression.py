"""Summaries by regression: an estimate of the posterior mean of every latent parameter."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Simulations, Theta, Variables, configuration
from jaxsbi.compression.objective import Objective
from jaxsbi.methods.features import init_context, read_context
from jaxsbi.priors import Prior


@configuration
class Regression(Objective):
    """The posterior mean of the latent parameters, by squared errors.

    As many numbers as parameters: enough where the posterior is normal with one covariance, and
    where only means are asked for (Fearnhead & Prangle 2012, arXiv:1004.1112).

    Attributes:
        summary: A Flax module from one data set to `(d,)`, d the number of parameters.
    """

    latent: ClassVar[bool] = True
    summary: nn.Module

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean and scale.

        Raises:
            ValueError: If the summary has another width than the parameters.
        """
        stats, params, context = init_context(key, self.summary, simulations.x)
        if context.shape != (prior.dim,):
            raise ValueError(
                f"regression: expected a summary of {prior.dim} numbers, one for each of "
                f"{prior.shapes}, got {context.shape[0]}. Set the network's out={prior.dim}."
            )
        return {"params": {"summary": params}, "statistics": stats}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return half the squared error of the latent parameters per row, shape `(n,)`."""
        del key
        params, stats = variables["params"]["summary"], variables["statistics"]

        def one(theta: Theta, x: Data) -> Array:
            estimate = read_context(self.summary, stats, params, x)
            return 0.5 * jnp.sum((estimate - prior.to_latent(theta)) ** 2)

        return jax.vmap(one)(batch.theta, batch.x)


def regression(summary: nn.Module) -> Regression:
    """Return the configuration of a summary that estimates the posterior mean.

    Args:
        summary: A Flax module called on one data set; `out` is the number of parameters.
    """
    return Regression(summary=summary)
