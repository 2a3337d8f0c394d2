"""The method of model comparison: a classifier whose one parameter is the index of a simulator."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Simulations, Theta, Variables, configuration
from jaxsbi.methods.features import init_context, read_context
from jaxsbi.networks import ResNet
from jaxsbi.priors import Prior


class Logits(nn.Module):
    """A network that reads a summary of the data, and a linear head with one logit per model."""

    network: nn.Module
    size: int

    @nn.compact
    def __call__(self, summary: Array) -> Array:
        """Return logits `(size,)` from a summary `(c,)`."""
        # A zero head: untrained, models are as probable as they are frequent.
        return nn.Dense(self.size, kernel_init=nn.initializers.zeros)(self.network(summary))


@configuration
class ModelClassifier:
    """A method whose one parameter, "model", is the index of a model (`jaxsbi.compare`).

    Parameters are floating-point numbers, so model k is the interval (k - 1/2, k + 1/2) of a
    uniform prior, and the posterior a histogram with these bins.

    Attributes:
        size: The number of models.
        classifier: A Flax module that reads the vector of data, or its summary.
        summary: A Flax module from one data set to a vector, trained jointly; `None` flattens.
    """

    size: int
    classifier: nn.Module = ResNet(hidden=64)
    summary: nn.Module | None = None

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's statistics and the models' frequencies."""
        del prior
        key_summary, key_classifier = jax.random.split(key)
        stats, summary, s = init_context(key_summary, self.summary, simulations.x)
        classifier = self._logits.init(key_classifier, s)
        return {
            "params": {"summary": summary, "classifier": classifier["params"]},
            "statistics": {"data": stats, "log_frequency": self._log_frequency(simulations)},
        }

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the cross-entropy of each row, shape `(n,)`, in nats."""
        return -jax.vmap(lambda t, x: self.log_prob(variables, prior, t, x))(batch.theta, batch.x)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws of the index, spread evenly over their intervals."""
        del prior
        key_model, key_place = jax.random.split(key)
        log_p = self.log_probabilities(variables, x)
        model = jax.random.categorical(key_model, log_p, shape=(n,))
        return {"model": model + jax.random.uniform(key_place, (n,), minval=-0.5, maxval=0.5)}, ()

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return the log-probability of the model that an index rounds to, or else -inf."""
        del prior
        this = jnp.round(theta["model"]) == jnp.arange(self.size)
        log_p = self.log_probabilities(variables, x)
        return jnp.where(jnp.any(this), jnp.sum(jnp.where(this, log_p, 0.0)), -jnp.inf)

    def log_probabilities(self, variables: Variables, x: Data) -> Array:
        """Return the log-probability of each model `(size,)`, if as many of each were simulated."""
        params, stats = variables["params"], variables["statistics"]
        context = read_context(self.summary, stats["data"], params["summary"], x)
        logits = self._logits.apply({"params": params["classifier"]}, context)
        return jax.nn.log_softmax(logits + stats["log_frequency"])

    def _log_frequency(self, simulations: Simulations) -> Array:
        """Return the log of the models' numbers of valid simulations, shape `(size,)`.

        Where training starts: what these numbers say of the evidence need not be learned.
        """
        label = jnp.round(simulations.theta["model"])[:, None] == jnp.arange(self.size)[None]
        counts = jnp.sum(jnp.where(label, simulations.weight[:, None], 0.0), axis=0)
        return jnp.log(jnp.maximum(counts, 0.5))

    @property
    def _logits(self) -> Logits:
        return Logits(self.classifier, self.size)
