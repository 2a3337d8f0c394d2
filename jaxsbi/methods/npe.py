"""Neural posterior estimation: a conditional density of the parameters given the data."""

from __future__ import annotations

import functools
from typing import ClassVar, NamedTuple

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
)
from jaxsbi.batching import over_draws
from jaxsbi.densities import SplineCoupling
from jaxsbi.densities.base import check_density
from jaxsbi.methods import gradients
from jaxsbi.methods.features import init_context, read_context
from jaxsbi.methods.regression import colour, fit_linear, whiten
from jaxsbi.priors import Prior


class DirectInfo(NamedTuple):
    """What a road that samples directly reports.

    Attributes:
        log_prob: Log-density of each draw, shape `(n,)`, as `posterior.log_prob` would give it.
    """

    log_prob: Array


@configuration
class NPE:
    """Neural posterior estimation (Papamakarios & Murray 2016, arXiv:1605.06376).

    Attributes:
        density: A conditional density over the latent parameters (`jaxsbi.densities`).
        summary: A Flax module from one data set to a vector, trained jointly; `None` flattens.
        score: Weight of the joint-score term (`methods/gradients.py`).
        ratio: Weight of the joint-ratio term.
    """

    latent: ClassVar[bool] = True
    density: nn.Module = SplineCoupling()
    summary: nn.Module | None = None
    score: float = 0.0
    ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            TypeError: If the density is none.
            ValueError: If a weight is negative.
        """
        check_density("npe", self.density)
        gradients.check(self.score)
        gradients.check(self.ratio, "ratio")

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, the data's mean and scale, and what is linear in z given x."""
        if self.ratio:
            gradients.ratios_of(self.ratio, simulations)
        key_summary, key_density = jax.random.split(key)
        stats, summary, context = init_context(key_summary, self.summary, simulations.x)
        density = self._density(prior).init(
            key_density, jnp.zeros(prior.dim, context.dtype), context, method="log_prob"
        )
        if not summary:
            read = functools.partial(read_context, self.summary, stats, summary)
            z = jax.vmap(prior.to_latent)(simulations.theta)
            stats = {**stats, "linear": fit_linear(jax.vmap(read)(simulations.x), z)}
        return {
            "params": {"summary": summary, "density": density.get("params", {})},
            "statistics": {**stats, **self._scores(simulations)},
        }

    def _scores(self, simulations: Simulations) -> Variables:
        kept = gradients.measure(self.score, "posterior", simulations)
        return {"score": kept} if kept else {}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return -log q(z | x) per row, shape `(n,)`, in nats of the latent space.

        With `score`, the weighted squared distance of the posterior's scores is added; with
        `ratio`, the weighted cross-entropy of which of the contrasts is the row's parameter set.
        """
        del key
        loss = self._scored_loss(variables, prior, batch)
        if not self.ratio:
            return loss

        def choice(row: Simulations) -> Array:
            def gain(theta: Theta) -> Array:
                z = prior.to_latent(theta)
                log_prob = self._latent_log_prob(variables, prior, z, row.x)
                return log_prob - prior.latent_log_prob(z)

            return gradients.choice_by(self.ratio, gain, row)

        return loss + jax.vmap(choice)(batch)

    def _scored_loss(self, variables: Variables, prior: Prior, batch: Simulations) -> Array:
        """Return the loss without the joint-ratio term."""

        def plain(theta: Theta, x: Data) -> Array:
            return -self._latent_log_prob(variables, prior, prior.to_latent(theta), x)

        if not self.score:
            return jax.vmap(plain)(batch.theta, batch.x)
        target = gradients.target_of(self.score, "posterior", batch)
        kept = variables["statistics"]["score"]

        def one(theta: Theta, x: Data, target: Array) -> Array:
            log_prob = functools.partial(self._latent_log_prob, variables, prior, x=x)
            value, found = jax.value_and_grad(log_prob)(prior.to_latent(theta))
            return -value + self.score * gradients.distance(kept, found, target)

        return jax.vmap(one)(batch.theta, batch.x, target)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, DirectInfo]:
        """Return `n` draws; none is ever rejected, for every latent point is in the support."""
        context = self._context(variables, x)
        density, params = self._density(prior), {"params": variables["params"]["density"]}

        linear = variables["statistics"].get("linear")

        def one(key: Key) -> tuple[Theta, Array]:
            z, log_prob = density.apply(params, key, context, method="sample_and_log_prob")
            if linear is not None:
                z, log_det = colour(linear, z, context)
                log_prob = log_prob + log_det
            return prior.from_latent(z), log_prob - prior.log_abs_det_jacobian(z)

        draws, log_prob = over_draws(one, jax.random.split(key, n))
        return draws, DirectInfo(log_prob)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return log q(theta | x), normalised; -inf outside the prior's support."""
        inside = jnp.isfinite(prior.log_prob(theta))
        z = prior.to_latent(theta)
        z = jnp.where(inside & jnp.all(jnp.isfinite(z)), z, 0.0)
        log_prob = self._latent_log_prob(variables, prior, z, x) - prior.log_abs_det_jacobian(z)
        return jnp.where(inside, log_prob, -jnp.inf)

    def _latent_log_prob(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        context = self._context(variables, x)
        params = {"params": variables["params"]["density"]}
        linear, log_det = variables["statistics"].get("linear"), jnp.zeros((), z.dtype)
        if linear is not None:
            z, log_det = whiten(linear, z, context)
        return self._density(prior).apply(params, z, context, method="log_prob") + log_det

    def _context(self, variables: Variables, x: Data) -> Array:
        params = variables["params"]["summary"]
        return read_context(self.summary, variables["statistics"], params, x)

    def _density(self, prior: Prior) -> nn.Module:
        return self.density.clone(dim=prior.dim)


def npe(
    *,
    density: nn.Module | None = None,
    summary: nn.Module | None = None,
    score: float = 0.0,
    ratio: float = 0.0,
) -> NPE:
    """Return the configuration of neural posterior estimation.

    Args:
        density: A conditional density (`jaxsbi.densities`); a spline coupling flow by default.
        summary: A Flax module called as `summary(x)` on one data set that returns a vector; it is
            trained jointly with the density. By default the data are flattened.
        score: Weight of the squared distance between the density's score by z and the joint score
            of simulations that have one (`jaxsbi.simulate_scored`), in units of its mean square
            (Zeghal et al. 2022, arXiv:2207.05636). Take a density with smooth scores: a
            `MaskedAutoregressive` or a Gaussian mixture, no splines.
        ratio: Weight of the cross-entropy of a choice by q(theta | x) / p(theta) among a row's
            parameter set and its contrasts, with probabilities by joint ratios as labels, of
            simulations that have some (`jaxsbi.simulate_scored(…, contrasts=64)`): the choice
            of arXiv:1905.07488 with the labels of arXiv:1808.00973. A step evaluates the density
            at each contrast.

    Raises:
        TypeError: If the density is none.
        ValueError: If a weight is negative.
    """
    density = density if density is not None else SplineCoupling()
    return NPE(density=density, summary=summary, score=score, ratio=ratio)
