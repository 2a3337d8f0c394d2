"""Summaries that keep the Fisher information at one parameter set."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulations,
    Simulator,
    Theta,
    Variables,
    check_key,
    configuration,
    positive,
)
from jaxsbi.compression.objective import Objective
from jaxsbi.methods.features import init_context, read_context
from jaxsbi.priors import Prior
from jaxsbi.simulate import simulate_at

NAMES = {"data", "derivatives"}
JITTER = 1e-4
"""Added to the covariance's diagonal, which is held near 1: a dead summary must not end it all."""


@configuration
class IMNN(Objective):
    """Information-maximising network (Charnock, Lavaux & Wandelt 2018, arXiv:1802.03537).

    Trained on simulations at a fiducial parameter set and their derivatives. The loss is
    -½ log det F, with F = J C⁻¹ Jᵀ from the mean derivative J of the summaries and their covariance
    C over the batch; F does not depend on the summaries' scale, so C and its inverse are held near
    the identity. A batch should have many more rows than there are summaries.

    Attributes:
        summary: A Flax module from one data set to a vector, at least as long as the parameters.
        strength: Weight of ½ (|C - 1|² + |C⁻¹ - 1|²).
    """

    summary: nn.Module
    strength: float = 0.1

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean and scale.

        Raises:
            ValueError: If the simulations have no derivatives, or there are too few summaries.
        """
        del prior
        x = simulations.x
        if not isinstance(x, dict) or set(x) != NAMES:
            got = sorted(x) if isinstance(x, dict) else type(x).__name__
            raise ValueError(
                "imnn: expected simulations with derivatives, from "
                f"jaxsbi.compression.at_fiducial(key, simulator, theta, n), got x of {got}."
            )
        stats, params, context = init_context(key, self.summary, x["data"])
        dim = jax.tree.leaves(x["derivatives"])[0].shape[1]
        if context.size < dim:
            raise ValueError(
                f"imnn: expected at least {dim} summaries for {dim} parameters, got "
                f"{context.size}. Set the network's out."
            )
        return {"params": {"summary": params}, "statistics": stats}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the batch's loss, in nats, once for each row, shape `(n,)`."""
        del prior, key
        params, stats = variables["params"]["summary"], variables["statistics"]

        def one(x: Data) -> tuple[Array, Array]:
            value, along = jax.linearize(
                lambda data: read_context(self.summary, stats, params, data), x["data"]
            )
            return value, jax.vmap(along)(x["derivatives"])

        values, derivatives = jax.vmap(one)(batch.x)
        counts = batch.weight > 0
        total = jnp.maximum(jnp.sum(counts), 2).astype(values.dtype)

        def mean(a: Array, less: float = 0.0) -> Array:
            kept = jnp.where(counts.reshape(-1, *(1,) * (a.ndim - 1)), a, 0.0)
            return jnp.sum(kept, 0) / (total - less)

        centred = values - mean(values)[None]
        covariance = mean(centred[:, :, None] * centred[:, None, :], 1.0)
        eye = jnp.eye(len(covariance), dtype=values.dtype)
        inverse = jnp.linalg.inv(covariance + JITTER * eye)
        jacobian = mean(derivatives)
        fisher = jacobian @ inverse @ jacobian.T
        # Its scale is the parameters' own; only the sum of logarithms matters.
        scale = jnp.sqrt(jnp.diagonal(fisher)) + 1e-12
        correlation = fisher / (scale[:, None] * scale[None]) + 1e-6 * jnp.eye(len(fisher))
        information = jnp.sum(jnp.log(scale)) + 0.5 * jnp.linalg.slogdet(correlation)[1]
        spread = 0.5 * (jnp.sum((covariance - eye) ** 2) + jnp.sum((inverse - eye) ** 2))
        return jnp.broadcast_to(self.strength * spread - information, counts.shape)


def imnn(summary: nn.Module, *, strength: float = 0.1) -> IMNN:
    """Return the configuration of an information-maximising network.

    Train it on `at_fiducial(key, simulator, theta, n)`, in batches of 200 or more. What it keeps
    is best near that parameter set.

    Args:
        summary: A Flax module called on one data set; `out` at least the number of parameters.
        strength: Weight of the penalty that holds the summaries' covariance near the identity.

    Raises:
        ValueError: If `strength` is not positive.
    """
    if strength <= 0:
        raise ValueError(f"strength: expected a positive weight, got {strength}.")
    return IMNN(summary=summary, strength=strength)


def at_fiducial(
    key: Key, simulator: Simulator, theta: Theta, n: int, *, progress: bool = True
) -> Simulations:
    """Simulate `n` data sets at one parameter set, with their derivatives by the parameters.

    Args:
        key: A typed key.
        simulator: `simulator(key, theta) -> x`, floats that are differentiable by theta for a
            fixed key (random numbers that are scaled and moved, not accepted or rejected).
        theta: The parameter set, named.
        n: The number of data sets.
        progress: Show a progress bar.

    Returns:
        Simulations whose x is `{"data": x, "derivatives": dx/dtheta}`; the derivatives have an
        axis of parameters before those of the data, in the order in which JAX flattens theta.
    """
    check_key(key)
    positive("n", n)
    theta = {name: jnp.asarray(a, float) for name, a in theta.items()}
    rows = {name: jnp.broadcast_to(a, (n, *a.shape)) for name, a in theta.items()}

    def both(key: Key, theta: Theta) -> Data:
        flat, unravel = ravel_pytree(theta)
        data, along = jax.linearize(lambda v: simulator(key, unravel(v)), flat)
        return {"data": data, "derivatives": jax.vmap(along)(jnp.eye(flat.size, dtype=flat.dtype))}

    return simulate_at(key, both, rows, progress=progress)
