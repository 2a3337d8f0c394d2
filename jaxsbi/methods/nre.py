"""Neural ratio estimation: a classifier that tells joint draws from independent ones."""

from __future__ import annotations

import dataclasses
import math
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
    positive,
)
from jaxsbi.methods import gradients, likelihood
from jaxsbi.methods.features import first, init_context, read_context
from jaxsbi.methods.members import all_members, count_members
from jaxsbi.networks import ResNet
from jaxsbi.priors import Prior
from jaxsbi.samplers import smc


class Logit(nn.Module):
    """A network that reads parameters and data, and a linear head that returns one logit."""

    network: nn.Module

    @nn.compact
    def __call__(self, z: Array, summary: Array) -> Array:
        """Return a scalar from `z` `(d,)` and a summary `(c,)`."""
        h = self.network(jnp.concatenate([z, summary]))
        # A zero head starts at ratio one: the untrained posterior is the prior.
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(h)[0]


@configuration
class NRE:
    """Contrastive neural ratio estimation, NRE-C (Miller et al. 2022, arXiv:2210.06170).

    The classifier chooses between "x was drawn with none of these K parameter sets" and "x was
    drawn with the k-th of them". One contrastive set and odds of 1 give the binary form (NRE-A,
    Hermans et al. 2020, arXiv:1903.04057).

    Attributes:
        classifier: A Flax module that reads the vector (parameters, summary).
        summary: A Flax module from one data set to a vector, trained jointly; `None` flattens.
        contrasts: The number K of parameter sets the classifier chooses among.
        odds: Prior odds gamma of "one of them" against "none of them".
        balance: Weight lambda of the balancing penalty; 0 for none.
        bound: Largest absolute log-ratio (of one draw, with `iid`), `None` for no limit.
        iid: The leading axis of every array in x counts independent draws given the parameters:
            the ratio is of one of them, and their log-ratios add.
        sampler: The sampler that draws from the posterior.
        target: Set by `posterior.with_prior`.
        score: Weight of the joint-score term (`methods/gradients.py`).
        ratio: Weight of the joint-ratio term; above 0 other labels are probabilities, too.
    """

    latent: ClassVar[bool] = True
    classifier: nn.Module = ResNet(hidden=64)
    summary: nn.Module | None = None
    contrasts: int = 8
    odds: float = 1.0
    balance: float = 0.0
    bound: float | None = None
    iid: bool = False
    sampler: Any = smc()
    target: Prior | None = leaf(default=None)
    score: float = 0.0
    ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            TypeError: If the sampler is none, or the classifier is a density.
            ValueError: If an option is out of its range, or `balance` is not with the binary form.
        """
        likelihood.check_sampler(self.sampler)
        if isinstance(self.classifier, nn.Module) and not callable(self.classifier):
            raise TypeError(
                "nre: expected as classifier a network that is called on one vector, such as "
                f"jaxsbi.networks.ResNet(hidden=64), got {type(self.classifier).__name__}."
            )
        positive("nre: contrasts", self.contrasts)
        if self.odds <= 0:
            raise ValueError(f"nre: expected odds > 0, got {self.odds}.")
        if self.balance < 0 or (self.bound is not None and self.bound <= 0):
            raise ValueError(
                "nre: expected balance >= 0 and bound > 0, got "
                f"balance={self.balance}, bound={self.bound}."
            )
        if self.balance and (self.contrasts != 1 or self.odds != 1):
            raise ValueError(
                "nre: balance is defined for the binary classifier: expected contrasts=1 and "
                f"odds=1 with it, got contrasts={self.contrasts}, odds={self.odds}. Leave both out."
            )
        gradients.check(self.score)
        gradients.check(self.ratio, "ratio")
        if self.ratio and self.iid:
            raise ValueError(
                "nre: expected ratio=… without iid=True, got both: joint ratios are those of whole "
                "data sets. Leave one of them out, or use nle(iid=True, ratio=…)."
            )

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean and scale, and heavy tails' scores."""
        if self.ratio:
            gradients.ratios_of(self.ratio, simulations)
        key_summary, key_classifier = jax.random.split(key)
        x = simulations.x
        if self.iid:
            count_members("nre", first(x))
            x = all_members(x)
        stats, summary, s = init_context(key_summary, self.summary, x)
        classifier = Logit(self.classifier).init(key_classifier, jnp.zeros(prior.dim, s.dtype), s)
        scores = gradients.measure(self.score, "likelihood", simulations)
        stats = {**stats, "score": scores} if scores else stats
        return {
            "params": {"summary": summary, "classifier": classifier["params"]},
            "statistics": stats,
        }

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the cross-entropy of each row, shape `(n,)`, in nats.

        The contrasting parameter sets of a row are those of other rows, at distances drawn anew
        for each batch; rows of weight 0 are never among them. The balancing penalty belongs to
        the batch, and is added to each row that counts. With `iid`: the mean over a row's draws.
        With `score`, the weighted squared distance of the ratio's scores is added. With `ratio`,
        the contrasting parameter sets are some of the row's own, and `_soft` the loss.
        """
        z = jax.vmap(prior.to_latent)(batch.theta)
        s = jax.vmap(lambda x: self._summaries(variables, x))(batch.x)
        others, valid, log_ratio = self._contrasts(prior, key, batch, z)
        logit = jax.vmap(lambda z, s: self._logit(variables, z, s))
        counts = batch.weight > 0

        def of_member(s: Array) -> Array:
            joint = logit(z, s)
            contrast = jax.vmap(lambda z: logit(z, s), 0, 1)(others)
            if log_ratio is None:
                loss = self._cross_entropy(joint, contrast, valid)
            else:
                loss = jax.vmap(self._soft)(joint, contrast, log_ratio)
            if not self.balance:
                return loss
            return loss + jnp.where(counts, self._imbalance(joint, contrast, valid, counts), 0.0)

        loss = of_member(s[:, 0]) if s.shape[1] == 1 else jnp.mean(jax.vmap(of_member, 1)(s), 0)
        if not self.score:
            return loss
        target = gradients.target_of(self.score, "likelihood", batch)
        return loss + self.score * self._score_distance(variables, z, s, target)

    def _contrasts(
        self, prior: Prior, key: Key, batch: Simulations, z: Array
    ) -> tuple[Array, Array, Array | None]:
        """Return contrasting z `(K, n, d)`, which count, and their joint log-ratios, `(n, K)`."""
        n, k = batch.weight.shape[0], self.contrasts
        if not self.ratio:
            # Distances 1 … n-1 without repetition: no row meets itself, nor the same row twice.
            distance = jax.random.choice(key, n - 1, (min(k, n - 1),), replace=False) + 1
            other = (jnp.arange(n)[:, None] + distance[None]) % n
            return jax.vmap(lambda j: z[j], 1)(other), batch.weight[other] > 0, None
        contrasts, log_ratio = gradients.ratios_of(self.ratio, batch)
        there = log_ratio.shape[1]
        chosen = jax.random.choice(key, there, (min(k, there),), replace=False)
        others = jax.vmap(jax.vmap(prior.to_latent))(
            jax.tree.map(lambda a: jnp.moveaxis(a[:, chosen], 1, 0), contrasts)
        )
        log_ratio = log_ratio[:, chosen]
        return others, jnp.ones(log_ratio.shape, bool), log_ratio

    def _score_distance(self, variables: Variables, z: Array, s: Array, target: Array) -> Array:
        """Return how far the ratio's scores by z are from the joint ones, per row, `(n,)`."""

        def log_ratio(z: Array, s: Array) -> Array:
            return jnp.sum(jax.vmap(lambda s: self._logit(variables, z, s))(s))

        found = jax.vmap(jax.grad(log_ratio))(z, s)
        kept = variables["statistics"]["score"]
        return jax.vmap(lambda f, t: gradients.distance(kept, f, t))(found, target)

    def _imbalance(self, joint: Array, contrast: Array, valid: Array, counts: Array) -> Array:
        """Return lambda (E_joint[d] + E_independent[d] - 1)², a scalar, for d = sigmoid(logit)."""
        d_joint = _mean_where(jax.nn.sigmoid(joint), counts)
        both = valid & counts[:, None]
        d_independent = _mean_where(jax.nn.sigmoid(contrast), both)
        # A batch with nothing to contrast says nothing about balance.
        return jnp.where(jnp.any(both), self.balance * (d_joint + d_independent - 1.0) ** 2, 0.0)

    def _cross_entropy(self, joint: Array, contrast: Array, valid: Array) -> Array:
        """Return NRE-C's loss per row from logits `(n,)` and `(n, K)`; masked contrasts drop out.

        The independent class uses all K contrasts; the joint class replaces the last by the joint
        pair.
        """
        log_odds = math.log(self.odds)
        masked = jnp.where(valid, contrast, -jnp.inf)
        log_k = jnp.log(jnp.maximum(jnp.sum(valid, 1), 1).astype(joint.dtype))
        none = jnp.logaddexp(log_k, log_odds + _logsumexp(masked))
        log_k_joint = jnp.log(1.0 + jnp.sum(valid[:, :-1], 1))
        one = jnp.logaddexp(log_k_joint, log_odds + _logsumexp(masked.at[:, -1].set(joint)))
        share = self.odds / (1.0 + self.odds)
        return (1.0 - share) * (none - log_k) + share * (one - log_odds - joint)

    def _soft(self, joint: Array, contrast: Array, log_ratio: Array) -> Array:
        """Return the loss of one row with `ratio`, from logits () and `(K,)`.

        NRE-C's, in the mean over who made x, and the weighted choice of who made it. The choice
        has less noise and leaves a factor open that depends on x; NRE-C's knows it to be 1.

        Of K + 1 parameter sets of the prior one made x, the k-th with probability w_k by the joint
        ratios (`gradients.labels`). "None of them" is a choice among the K others, "the k-th" one
        among all but one of these, any of them. Both are averaged over k, and the latter over
        which is left out: the mean of the loss is that of `_cross_entropy`, and no density of x
        and the latents without parameters, which is not known, enters.
        """
        logits, w = jnp.append(joint, contrast), gradients.labels(log_ratio)
        k, share = contrast.size, self.odds / (1.0 + self.odds)
        rest = jnp.where(jnp.eye(k + 1, dtype=bool), -jnp.inf, logits[None])
        without = jnp.logaddexp(0.0, math.log(self.odds / k) + jax.nn.logsumexp(rest, -1))
        none = jnp.sum(w * without)
        one = jnp.mean(without) + (jnp.mean(without) - none) / k - jnp.sum(w * logits)
        loss = (1.0 - share) * none + share * (one + math.log(k / self.odds))
        return loss + self.ratio * gradients.choice(log_ratio, logits)

    def log_likelihood(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        """Return the log-ratio log p(x | theta) - log p(x) (a scalar)."""
        del prior
        summaries = self._summaries(variables, x)
        return jnp.sum(jax.vmap(lambda s: self._logit(variables, z, s))(summaries))

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws of the learned ratio times the prior, and the chains' report."""
        return likelihood.sample(self, variables, prior, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return the log-ratio + log p(theta); normalised only as far as the ratio is exact."""
        return likelihood.log_prob(self, variables, prior, theta, x)

    def with_prior(self, new: Prior) -> NRE:
        """Return the same road under another prior."""
        return dataclasses.replace(self, target=new)

    def _summaries(self, variables: Variables, x: Data) -> Array:
        """Return the summary of each independent draw, shape `(m, c)`; m = 1 without `iid`."""
        params, stats = variables["params"]["summary"], variables["statistics"]

        def one(x: Data) -> Array:
            return read_context(self.summary, stats, params, x)

        return jax.vmap(one)(x) if self.iid else one(x)[None]

    def _logit(self, variables: Variables, z: Array, s: Array) -> Array:
        params = {"params": variables["params"]["classifier"]}
        logit = Logit(self.classifier).apply(params, z, s)
        return logit if self.bound is None else self.bound * jnp.tanh(logit / self.bound)


def _mean_where(a: Array, where: Array) -> Array:
    return jnp.sum(jnp.where(where, a, 0.0)) / jnp.maximum(jnp.sum(where), 1)


def _logsumexp(a: Array) -> Array:
    """Log-sum-exp over the last axis that allows for -inf in every place (finite gradients)."""
    top = jax.lax.stop_gradient(jnp.max(a, -1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jnp.sum(jnp.exp(a - top), -1)
    safe = jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, jnp.log(safe) + top[..., 0], -jnp.inf)


def nre(
    *,
    classifier: nn.Module | None = None,
    summary: nn.Module | None = None,
    contrasts: int | None = None,
    odds: float = 1.0,
    balance: float = 0.0,
    bound: float | None = None,
    iid: bool = False,
    sampler: Any = None,
    score: float = 0.0,
    ratio: float = 0.0,
) -> NRE:
    """Return the configuration of neural ratio estimation.

    Args:
        classifier: A Flax module called on one vector (parameters, summary); a linear head that
            returns the logit is added. A residual perceptron by default.
        summary: A Flax module called on one data set that returns a vector; flattened by default.
        contrasts: Parameter sets the classifier chooses among: 8 by default, or 1, the binary
            form, with `balance`.
        odds: Prior odds of "one of them" against "none of them".
        balance: Weight lambda of the penalty lambda (E_joint[d] + E_independent[d] - 1)² on the
            binary classifier d (BNRE, Delaunoy et al. 2022, arXiv:2208.13624, who use 100): a
            balanced classifier is on average no more confident than the exact one, so its
            posteriors tend to be too wide rather than too narrow.
        bound: Keep the log-ratio within ±bound, by bound tanh(logit / bound), the soft clipping
            of logits of Bello et al. 2017, arXiv:1611.09940. No importance weight or step of a
            chain is then extreme, at a price: regions that the data exclude keep exp(-bound) of
            their prior. Take more than the nats by which the data can move a log-posterior.
        iid: Say that the leading axis of every array in x counts independent draws given the
            parameters. One ratio is then learned from all of them, and multiplied.
        sampler: A sampler (`jaxsbi.samplers`).
        score: Weight of the squared distance between the log-ratio's score by the parameters and
            the joint score of simulations that have one (`jaxsbi.simulate_scored`), in units of
            its mean square (CASCAL, Brehmer et al. 2018, arXiv:1805.12244; Stoye et al. 2018,
            arXiv:1808.00973).
        ratio: Weight of the cross-entropy of which parameter set made x, among the row's and
            `contrasts` others, with probabilities as labels, by the joint ratios of simulations
            that have some (`jaxsbi.simulate_scored(…, contrasts=64)`); the labels of the plain
            loss are then such probabilities, too (ALICE, Stoye et al. 2018, arXiv:1808.00973, for
            any number of them). What is learned is the same, from labels with less noise. With few
            simulations contrast all there are (`contrasts=64`), or it over-fits.

    Raises:
        TypeError: If the sampler is none.
        ValueError: If an option is out of its range, or `balance` comes with another form than
            the binary one, or `ratio` with `iid`.
    """
    if contrasts is None:
        contrasts = 1 if balance else NRE.contrasts
    given = {"classifier": classifier, "sampler": sampler}
    given = {name: value for name, value in given.items() if value is not None}
    return NRE(
        summary=summary,
        contrasts=contrasts,
        odds=odds,
        balance=balance,
        bound=bound,
        iid=iid,
        score=score,
        ratio=ratio,
        **given,
    )
