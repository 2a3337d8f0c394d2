"""A learned summary: a linear estimate of the posterior mean, which keeps what matters of the data.

Source: Fearnhead & Prangle 2012, arXiv:1004.1112 (semi-automatic ABC). With the posterior mean as
its summary, ABC has the smallest quadratic loss; there are only as many summaries as parameters. A
network's estimate is a training of `jaxsbi.compression.regression`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.abc.regression import ridge
from jaxsbi.base import Array, Data, Simulations, configuration, leaf, varies
from jaxsbi.networks.flatten import flatten
from jaxsbi.priors import Prior

CLIP = 10.0
"""Standard deviations beyond which a number no longer moves a summary."""


@configuration
class LinearSummary:
    """The linear estimate of the latent parameters' posterior mean: `x -> (d,)`.

    Attributes:
        mean: Mean of each number, shape `(p,)`.
        scale: Standard deviation of each number, shape `(p,)`.
        slopes: Shape `(p, d)`.
    """

    mean: Array = leaf()
    scale: Array = leaf()
    slopes: Array = leaf()

    def __call__(self, x: Data) -> Array:
        """Return the summary of one data set, shape `(d,)`."""
        return _standardized(flatten(x), self.mean, self.scale) @ self.slopes


def linear_summary(prior: Prior, simulations: Simulations) -> LinearSummary:
    """Return the posterior mean as ridge regression of the latent parameters on the data has it.

    For one that is not linear, train a network, and pass what it has learned as `summary=`:

        fitted = jaxsbi.fit(key, jaxsbi.compression.regression(network), prior, simulations)
        summary = jaxsbi.compression.summary(fitted.posterior)

    Args:
        prior: The prior of the simulations.
        simulations: Simulations other than those to be compared; rows of weight 0 do not count.
    """
    return _linear(prior, simulations)


def _standardized(numbers: Array, mean: Array, scale: Array) -> Array:
    return jnp.clip((numbers - mean) / scale, -CLIP, CLIP)


@jax.jit
def _linear(prior: Prior, simulations: Simulations) -> LinearSummary:
    valid = simulations.weight > 0
    weight = valid / jnp.sum(valid)
    numbers = jnp.where(valid[:, None], jax.vmap(flatten)(simulations.x), 0.0)
    z = jnp.where(valid[:, None], jax.vmap(prior.to_latent)(simulations.theta), 0.0)
    mean = weight @ numbers
    scale = jnp.sqrt(weight @ (numbers - mean[None]) ** 2)
    scale = jnp.where(varies(scale, mean), scale, 1.0)
    rows = jax.vmap(lambda row: _standardized(row, mean, scale))(numbers)
    return LinearSummary(mean=mean, scale=scale, slopes=ridge(rows, z, weight))
