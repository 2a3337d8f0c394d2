"""Summaries by contrast: what two views of one object have in common, without any parameters."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Simulations, Variables, configuration
from jaxsbi.compression.objective import Objective
from jaxsbi.methods.features import init_context, read_context
from jaxsbi.networks.fuse import Parts, check_parts, seed_parts
from jaxsbi.priors import Prior

TEMPERATURE = 0.1
"""Where the learned temperature starts."""


class Views(nn.Module):
    """The summaries of two views, one after the other; see `contrast`.

    Attributes:
        parts: Two names in the data's dict, each with the network that reads what it names.
    """

    parts: Parts = ()

    def seed(self, x: Data) -> None:
        """Let the networks that keep statistics of the data see their view of a batch."""
        self._check(x)
        seed_parts(self.parts, x)

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one data set, a dict with the names of the views, to `(2 * out,)`.

        Raises:
            ValueError: If `x` has other names, or the views' summaries differ in width.
        """
        self._check(x)
        first, second = (network(x[name]) for name, network in self.parts)
        if first.ndim != 1 or first.shape != second.shape:
            raise ValueError(
                "contrast: expected one vector of each view, equally long, got shapes "
                f"{first.shape} and {second.shape}. Give the networks the same out."
            )
        return jnp.concatenate([first, second])

    def _check(self, x: Data) -> None:
        check_parts("contrast: expected x to be a dict of the views", self.parts, x, "")


@configuration
class Contrast(Objective):
    """Two views of an object find each other among those of other objects (InfoNCE).

    The loss is the mean of both directions' cross-entropies over the batch, with the cosine of two
    summaries over a learned temperature as the logit (van den Oord et al. 2018, arXiv:1807.03748;
    Radford et al. 2021, arXiv:2103.00020). What the views do not share is not kept: their noise,
    and what only one of them can see.

    Attributes:
        summary: The views' networks.
    """

    summary: Views

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean and scale."""
        del prior
        stats, params, _ = init_context(key, self.summary, simulations.x)
        start = -jnp.log(jnp.asarray(TEMPERATURE, float))
        return {"params": {"summary": params, "log_gain": start}, "statistics": stats}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the mean cross-entropy of both directions per row, shape `(n,)`, in nats.

        Rows of weight 0 are never among the others.
        """
        del prior, key
        params, stats = variables["params"], variables["statistics"]
        both = jax.vmap(lambda x: read_context(self.summary, stats, params["summary"], x))(batch.x)
        first, second = (_unit(half) for half in jnp.split(both, 2, axis=1))
        # Beyond a gain of 100 the gradients of single pairs take over (Radford et al.).
        logits = jnp.minimum(jnp.exp(params["log_gain"]), 100.0) * (first @ second.T)
        valid = (batch.weight > 0)[None] | jnp.eye(len(first), dtype=bool)

        def cross_entropy(logits: Array) -> Array:
            total = jax.nn.logsumexp(jnp.where(valid, logits, -jnp.inf), axis=1)
            return total - jnp.diagonal(logits)

        return 0.5 * (cross_entropy(logits) + cross_entropy(logits.T))


def _unit(rows: Array) -> Array:
    """Return rows of unit length; the gradient at zero is finite."""
    return rows / jnp.sqrt(jnp.sum(rows**2, axis=1, keepdims=True) + 1e-12)


def contrast(views: Mapping[str, nn.Module]) -> Contrast:
    """Return the configuration of summaries of two views of one object.

    `compression.summary(posterior)` joins both summaries, `summary(posterior, view="image")` reads
    one view alone, and then only that one: `summary(x["image"])`.

    Args:
        views: Two names in the data's dict, each with its network; both have the same `out`.

    Raises:
        ValueError: If there are not two views.
    """
    if len(views) != 2:
        raise ValueError(
            'contrast: expected two views, as in {"image": Conv(), "spectrum": MLP(64, out=16)}, '
            f"got {sorted(views)}."
        )
    return Contrast(summary=Views(parts=tuple(sorted(views.items()))))
