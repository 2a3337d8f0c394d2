"""Learned summaries: an estimate of the posterior mean, which keeps what matters of the data.

Source: Fearnhead & Prangle 2012, arXiv:1004.1112 (semi-automatic ABC). With the posterior mean as
its summary, ABC has the smallest quadratic loss; there are only as many summaries as parameters.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxsbi.abc.regression import ridge
from jaxsbi.base import Array, Data, Key, Simulations, check_key, configuration, leaf
from jaxsbi.networks import MLP
from jaxsbi.networks.flatten import flatten
from jaxsbi.priors import Prior

CLIP = 10.0
"""Standard deviations beyond which a number no longer moves a summary."""
BATCH = 128
HELD_OUT = 0.1
RATE = 2e-3


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


@configuration
class NetworkSummary:
    """A network's estimate of the latent parameters' posterior mean: `x -> (d,)`.

    Attributes:
        network: The Flax module, which maps the standardised numbers of one data set to `(d,)`.
        params: Its parameters.
        mean: Mean of each number, shape `(p,)`.
        scale: Standard deviation of each number, shape `(p,)`.
    """

    network: nn.Module
    params: Any = leaf()
    mean: Array = leaf()
    scale: Array = leaf()

    def __call__(self, x: Data) -> Array:
        """Return the summary of one data set, shape `(d,)`."""
        return self.network.apply(self.params, _standardized(flatten(x), self.mean, self.scale))


def linear_summary(prior: Prior, simulations: Simulations) -> LinearSummary:
    """Return the posterior mean as ridge regression of the latent parameters on the data has it.

    Args:
        prior: The prior of the simulations.
        simulations: Simulations other than those to be compared; rows of weight 0 do not count.
    """
    return _linear(prior, simulations)


def network_summary(
    key: Key,
    prior: Prior,
    simulations: Simulations,
    *,
    hidden: tuple[int, ...] = (64, 64),
    epochs: int = 100,
) -> NetworkSummary:
    """Return the posterior mean as a perceptron, trained on squared errors, has it.

    The parameters are those of the epoch that did best on a tenth of the simulations, held out.
    The training is one compiled program.

    Args:
        key: A typed key.
        prior: The prior of the simulations.
        simulations: Simulations other than those to be compared; rows of weight 0 do not count.
        hidden: Width of each hidden layer.
        epochs: How often every simulation is seen.

    Raises:
        TypeError: If the key is not a typed key.
        ValueError: If there are fewer than 20 simulations.
    """
    check_key(key)
    if len(simulations) < 20:
        raise ValueError(f"simulations: expected at least 20, got {len(simulations)}.")
    network = MLP(*hidden, out=prior.dim)
    params, mean, scale = _train(network, epochs, key, prior, simulations)
    return NetworkSummary(network=network, params=params, mean=mean, scale=scale)


def _standardized(numbers: Array, mean: Array, scale: Array) -> Array:
    return jnp.clip((numbers - mean) / scale, -CLIP, CLIP)


def _prepare(prior: Prior, simulations: Simulations) -> tuple[Array, ...]:
    """Return standardised numbers, latent parameters, normalised weights, means and scales."""
    valid = simulations.weight > 0
    weight = valid / jnp.sum(valid)
    numbers = jnp.where(valid[:, None], jax.vmap(flatten)(simulations.x), 0.0)
    z = jnp.where(valid[:, None], jax.vmap(prior.to_latent)(simulations.theta), 0.0)
    mean = weight @ numbers
    scale = jnp.sqrt(weight @ (numbers - mean[None]) ** 2)
    scale = jnp.where(scale > 1e-6 * jnp.abs(mean), scale, 1.0)
    rows = jax.vmap(lambda row: _standardized(row, mean, scale))(numbers)
    return rows, z, weight, mean, scale


@jax.jit
def _linear(prior: Prior, simulations: Simulations) -> LinearSummary:
    rows, z, weight, mean, scale = _prepare(prior, simulations)
    return LinearSummary(mean=mean, scale=scale, slopes=ridge(rows, z, weight))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _train(
    network: nn.Module, epochs: int, key: Key, prior: Prior, simulations: Simulations
) -> tuple[Any, Array, Array]:
    rows, z, weight, mean, scale = _prepare(prior, simulations)
    n = len(rows)
    held_out = max(1, int(HELD_OUT * n))
    batch = min(BATCH, n - held_out)
    steps = (n - held_out) // batch
    key_init, key_epochs = jax.random.split(key)
    params = network.init(key_init, rows[0])
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, epochs * steps))

    def loss(params: Any, rows: Array, z: Array, weight: Array) -> Array:
        error = jax.vmap(lambda row: network.apply(params, row))(rows) - z
        return weight @ jnp.sum(error**2, axis=1) / jnp.maximum(jnp.sum(weight), 1e-30)

    def step(state: Any, index: Array) -> tuple[Any, None]:
        params, memory = state
        gradient = jax.grad(loss)(params, rows[index], z[index], weight[index])
        update, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(params, update), memory), None

    def epoch(carry: Any, key: Key) -> tuple[Any, None]:
        state, best, lowest = carry
        order = held_out + jax.random.permutation(key, n - held_out)
        state, _ = jax.lax.scan(step, state, order[: steps * batch].reshape(steps, batch))
        reached = loss(state[0], rows[:held_out], z[:held_out], weight[:held_out])
        best = jax.tree.map(lambda a, b: jnp.where(reached < lowest, a, b), state[0], best)
        return (state, best, jnp.minimum(reached, lowest)), None

    start = (params, optimizer.init(params)), params, jnp.array(jnp.inf)
    (_, best, _), _ = jax.lax.scan(epoch, start, jax.random.split(key_epochs, epochs))
    return best, mean, scale
