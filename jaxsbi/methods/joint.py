"""One network for every conditional of (theta, x): a joint diffusion with random questions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Simulations, Theta, Variables, configuration
from jaxsbi.fields import EDM, FieldInfo, JointTransformer, Path, log_ratio, ode, widest_angle
from jaxsbi.methods import field as shared
from jaxsbi.methods.features import first, standardize, statistics
from jaxsbi.methods.scores import HEAVY_LAW, Scores, fit_scores, gather, spread
from jaxsbi.networks import flatten
from jaxsbi.priors import Prior

SHARES = (0.1, 0.4, 0.2, 0.15, 0.15)
"""How often training gives nothing, x, theta, or each number with either probability of `RATES`.
The kinds are Simformer's, which asks them equally often; most users ask the second."""
RATES = (0.3, 0.7)
ABSENT = (1 / 3, 0.3)
"""Share of the examples in which numbers may be absent, and the probability of each there."""


@configuration
class Joint:
    """A diffusion over all numbers of (theta, x), trained on random questions.

    Simformer (Gloeckler et al. 2024, arXiv:2404.09636), in the coordinates of `fields/paths.py`,
    over latent parameters and standardised data (floats of heavy tails are normal scores). Numbers
    that are given stay without noise; numbers that are absent are unseen; the loss is the mean
    squared error of the others.

    Attributes:
        network: A field over tokens, `jaxsbi.fields.JointTransformer`.
        path: The path from noise to data.
        sampler: The solver that draws.
        noises: Questions, times and noises that each example is seen with per step.
    """

    latent: ClassVar[bool] = True
    epochs: ClassVar[int] = 400
    network: nn.Module = JointTransformer()
    path: Any = EDM()
    sampler: Any = ode()
    noises: int = 8

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            TypeError: If the network, the sampler or the path is none.
            ValueError: If `noises` is not positive.
        """
        shared.check(self)
        if not isinstance(self.network, nn.Module):
            raise TypeError(
                "network: expected a field such as jaxsbi.fields.JointTransformer(), got "
                f"{getattr(self.network, '__name__', None) or repr(self.network)}."
            )
        reads = ("noise", "u", "given", "present")
        shared.check_field("network", self.network, "JointTransformer()", *reads)

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean and scale."""
        stats: dict[str, Any] = statistics(simulations.x)
        stats = {**stats, "numbers": _scores(stats, simulations.x)}
        values = tokens(
            {"statistics": stats}, prior, first(simulations.theta), first(simulations.x)
        )
        everything = jnp.ones(values.shape, bool)
        params = self.network.init(key, jnp.zeros((), values.dtype), values, everything, everything)
        return {"params": params.get("params", {}), "statistics": stats}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the mean squared error of the free numbers per row, shape `(n,)`.

        Times are stratified over the row and over the batch, as in `methods/field.py`.
        """
        key_time, key_noise, key_question = jax.random.split(key, 3)
        n, m = batch.weight.shape[0], self.noises
        size = prior.dim + sum(math.prod(a.shape[1:]) for a in jax.tree.leaves(batch.x))
        jitter = jax.random.uniform(key_time, (n, m))
        quantile = (jnp.arange(m)[None] + (jnp.arange(n)[:, None] + jitter) / n) / m
        # Quantiles of 0 and 1 would be times at infinity, or none.
        quantile = jnp.clip(quantile, 1e-6, 1.0 - 1e-6)
        noise = jax.random.normal(key_noise, (n, m, size))
        coins = jax.random.uniform(key_question, (n, m, 2, size + 1))

        def one(theta: Theta, x: Data, quantile: Array, noise: Array, coins: Array) -> Array:
            values = tokens(variables, prior, theta, x)

            def error(quantile: Array, noise: Array, coins: Array) -> Array:
                given, present = question(coins, prior.dim)
                t = self.path.training_time(quantile)
                alpha, sigma = self.path.scales(t)
                rho = jnp.sqrt(alpha**2 + sigma**2)
                u = (alpha * values + sigma * noise) / rho
                target = (sigma * values - alpha * noise) / rho
                u = jnp.where(given, values, u)
                F = apply(self, variables, log_ratio(alpha, sigma), u, given, present)
                free = present & ~given
                square = jnp.where(free, (F - target) ** 2, 0.0)
                return self.path.weight(t) * jnp.sum(square) / jnp.sum(free)

            return jnp.mean(jax.vmap(error)(quantile, noise, coins))

        return jax.vmap(one)(batch.theta, batch.x, quantile, noise, coins)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, FieldInfo]:
        """Return `n` draws; none is ever rejected, for every latent point is in the support."""
        rotation = self._posterior(variables, prior, x)
        z, info = self.sampler(key, rotation, prior.dim, n, widest_angle(self.path))
        return jax.vmap(prior.from_latent)(z), info

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return log q(theta | x) by the ODE (`fields.ODE`); -inf outside the prior's support."""
        inside = jnp.isfinite(prior.log_prob(theta))
        z = prior.to_latent(theta)
        z = jnp.where(inside & jnp.all(jnp.isfinite(z)), z, 0.0)
        rotation = self._posterior(variables, prior, x)
        value = self.sampler.log_prob(rotation, z, widest_angle(self.path))
        return jnp.where(inside, value - prior.log_abs_det_jacobian(z), -jnp.inf)

    def _posterior(self, variables: Variables, prior: Prior, x: Data) -> Any:
        """Return the field of p(z | x), on z alone."""
        x, _ = spread_data(variables, x)
        given = jnp.arange(prior.dim + x.size) >= prior.dim
        present = jnp.ones_like(given)

        def rotation(noise: Array, u: Array) -> Array:
            u = jnp.concatenate([u, x.astype(u.dtype)])
            return apply(self, variables, noise, u, given, present)[: prior.dim]

        return rotation


def question(coins: Array, dim: int) -> tuple[Array, Array]:
    """Return a random question: which numbers are given, and which there are at all.

    Args:
        coins: Uniform numbers, shape `(2, 1 + t)`.
        dim: How many of the `t` numbers are parameters; they come first.

    Returns:
        Two vectors of `t` booleans; at least one number is there and not given.
    """
    is_theta = jnp.arange(coins.shape[1] - 1) < dim
    some = [coins[0, 1:] < rate for rate in RATES]
    table = jnp.stack([jnp.zeros_like(is_theta), ~is_theta, is_theta, *some])
    kind = jnp.sum(coins[0, 0] > jnp.cumsum(jnp.asarray(SHARES, coins.dtype)))
    given = table[jnp.minimum(kind, len(SHARES) - 1)]
    given = given & ~jnp.all(given)
    share, each = ABSENT
    absent = (coins[1, 0] < share) & (coins[1, 1:] < each)
    return given, ~(absent & jnp.any(~given & ~absent))


def tokens(variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
    """Return what the network sees of one pair: z, then the data, shape `(t,)`."""
    data, _ = spread_data(variables, x)
    return jnp.concatenate([prior.to_latent(theta).astype(data.dtype), data])


def spread_data(variables: Variables, x: Data) -> tuple[Array, Array]:
    """Return the standardised data, heavy tails as normal scores, and the log of their slopes."""
    stats = variables["statistics"]
    data, scores = flatten(standardize(stats, x)), stats.get("numbers")
    return (data, jnp.zeros_like(data)) if scores is None else spread(scores, data)


def gather_data(variables: Variables, values: Array) -> Array:
    """Return the standardised data of which `values` is what `spread_data` makes."""
    scores = variables["statistics"].get("numbers")
    return values if scores is None else gather(scores, values)


def _scores(stats: dict[str, Any], x: Data) -> Scores:
    """Return the normal scores of standardised floats; counts and bits stay what they are."""
    scores = fit_scores(jax.vmap(lambda x: flatten(standardize(stats, x)))(x), HEAVY_LAW)

    def is_float(a: Array) -> Array:
        return jnp.full(a.shape, jnp.issubdtype(a.dtype, jnp.floating))

    floats = flatten(jax.tree.map(is_float, first(x))) > 0
    return {**scores, "heavy": scores["heavy"] & floats}


def apply(
    method: Any, variables: Variables, noise: Array, u: Array, given: Array, present: Array
) -> Array:
    """Return the network's F, shape `(t,)`; its arguments are those of `JointTransformer`."""
    return method.network.apply({"params": variables["params"]}, noise, u, given, present)


def joint(
    *,
    network: nn.Module | None = None,
    path: Path | None = None,
    sampler: Any = None,
    noises: int = 8,
) -> Joint:
    """Return the configuration of a joint diffusion: one training, any question.

    `posterior.sample` and `posterior.log_prob` answer the usual question; for the others see
    `jaxsbi.methods.conditional` and `jaxsbi.methods.conditional_log_prob`.

    Args:
        network: The field over tokens; `jaxsbi.fields.JointTransformer()` by default.
        path: The noise to train with: `jaxsbi.fields.EDM(...)`, `VariancePreserving(...)` or
            `VarianceExploding(...)`.
        sampler: The solver that draws, `jaxsbi.fields.ode(...)` or `jaxsbi.fields.sde(...)`.
        noises: Questions, times and noises that each example is seen with per step, and in the
            validation: with few of them it stops too early.

    Raises:
        TypeError: If the network, the sampler or the path is none.
        ValueError: If `noises` is not positive.
    """
    return Joint(
        network=network if network is not None else JointTransformer(),
        path=path if path is not None else EDM(),
        sampler=sampler if sampler is not None else ode(),
        noises=noises,
    )
