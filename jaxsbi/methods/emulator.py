"""The likelihood-based road: an emulator of the forward model, a noise model, and MCMC."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulations,
    Theta,
    Variables,
    configuration,
    leaf,
)
from jaxsbi.methods import likelihood
from jaxsbi.methods.features import standardize, statistics
from jaxsbi.networks import MLP, flatten
from jaxsbi.noise import EstimatedNoise
from jaxsbi.priors import Prior
from jaxsbi.samplers import smc


class Components(nn.Module):
    """A network that reads parameters, with a linear head and a linear path beside it."""

    network: nn.Module
    components: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Return amplitudes `(components,)` from latent parameters `(d,)`."""
        linear = nn.Dense(self.components, use_bias=False, kernel_init=nn.initializers.zeros)
        return nn.Dense(self.components)(self.network(z)) + linear(z)


@configuration
class Emulator:
    """Principal components whose amplitudes a network predicts, with a Gaussian likelihood.

    As CosmoPower does it (Spurio Mancini et al. 2022, arXiv:2106.03846).

    Attributes:
        network: A Flax module from the latent parameters to a vector; a linear head is added.
        components: Principal components kept; at most the number of data.
        noise: A noise model (`jaxsbi.noise`).
        sampler: The sampler that draws from the posterior.
        target: Set by `posterior.with_prior`.
    """

    latent: ClassVar[bool] = True
    network: nn.Module = MLP(128, 128)
    components: int = 32
    noise: Any = leaf(default=EstimatedNoise())
    sampler: Any = smc()
    target: Prior | None = leaf(default=None)

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean, scale and principal components."""
        stats = statistics(simulations.x)
        x = jax.vmap(lambda x: flatten(standardize(stats, x)))(simulations.x)
        _, singular, basis = jnp.linalg.svd(x, full_matrices=False)
        count = min(self.components, *x.shape)
        # Amplitudes in units of their own scatter: the network's targets are of order one.
        amplitude = jnp.maximum(singular[:count] / jnp.sqrt(x.shape[0]), 1e-6)
        network = Components(self.network, count).init(key, jnp.zeros(prior.dim, x.dtype))
        scale = flatten(stats["scale"])
        return {
            "params": {"network": network["params"], "noise": self.noise.init(scale)},
            "statistics": {**stats, "basis": amplitude[:, None] * basis[:count]},
        }

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return -log p(x | theta) per row, shape `(n,)`, in nats of the standardised data."""
        del key
        constant = jnp.sum(jnp.log(flatten(variables["statistics"]["scale"])))

        def one(theta: Theta, x: Data) -> Array:
            z = prior.to_latent(theta)
            return -self.log_likelihood(variables, prior, z, x) - constant

        return jax.vmap(one)(batch.theta, batch.x)

    def mean(self, variables: Variables, z: Array) -> Array:
        """Return the emulated, flattened data `(d,)` at a latent point, in the data's units."""
        stats = variables["statistics"]
        network = Components(self.network, stats["basis"].shape[0])
        amplitude = network.apply({"params": variables["params"]["network"]}, z)
        return flatten(stats["mean"]) + flatten(stats["scale"]) * (amplitude @ stats["basis"])

    def log_likelihood(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        """Return log p(x | theta(z)) under the noise model (a scalar)."""
        del prior
        residual = flatten(x) - self.mean(variables, z)
        scale = flatten(variables["statistics"]["scale"])
        return self.noise.log_prob(variables["params"]["noise"], residual, scale)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws of the emulated likelihood times the prior, and the chains' report."""
        return likelihood.sample(self, variables, prior, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return log p(x | theta) + log p(theta), not normalised over theta."""
        return likelihood.log_prob(self, variables, prior, theta, x)

    def with_prior(self, new: Prior) -> Emulator:
        """Return the same road under another prior."""
        return dataclasses.replace(self, target=new)


def emulator(
    *,
    network: nn.Module | None = None,
    components: int = 32,
    noise: Any = None,
    sampler: Any = None,
) -> Emulator:
    """Return the configuration of the emulator road.

    Args:
        network: A Flax module called on the latent parameters; an MLP by default.
        components: Principal components kept; at most the number of data.
        noise: A noise model (`jaxsbi.noise`): `gaussian(covariance)` where it is known, by
            default `estimated()`, a covariance learned from the residuals.
        sampler: A sampler (`jaxsbi.samplers`).
    """
    given = {"network": network, "noise": noise, "sampler": sampler}
    given = {name: value for name, value in given.items() if value is not None}
    return Emulator(components=components, **given)
