"""Neural likelihood estimation: a conditional density of the data given the parameters."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulations,
    Theta,
    Variables,
    configuration,
    leaf,
    varies,
    warn,
)
from jaxsbi.dataspec import check_range
from jaxsbi.densities import Mixed, Parts
from jaxsbi.densities.base import LOG_2PI, check_density
from jaxsbi.densities.mixed import parts
from jaxsbi.methods import gradients, likelihood
from jaxsbi.methods.features import first, standardize, statistics, unit_of
from jaxsbi.methods.members import all_members, count_members
from jaxsbi.methods.scores import fit_law_scores, spread
from jaxsbi.priors import Prior
from jaxsbi.samplers import smc

LOOKED_AT, ATOM = 1_000, 0.05
"""Simulations that tell whether a float often is one same number, and which share is often."""
KINDS = {"binary": "dtype bool", "integer": "an integer dtype", "continuous": "a float dtype"}


@configuration
class NLE:
    """Neural likelihood estimation (Papamakarios et al. 2019, arXiv:1805.07226).

    Booleans and integers (by dtype) have probabilities, floats a density, and mixed data the
    product p(discrete | theta) p(continuous | theta, discrete). Floats that are the same in all
    simulations have none: fresh noise stands in their place, so that no spike is learned of them.

    Attributes:
        density: A conditional density for each kind of number in a data set.
        iid: The leading axis of every array in x counts independent draws given the parameters:
            the density is of one of them, and their log-densities add.
        sampler: The sampler that draws from the posterior (`jaxsbi.samplers`).
        target: Set by `posterior.with_prior`.
        score: Weight of the joint-score term (`methods/gradients.py`).
        ratio: Weight of the joint-ratio term.
        heavy: Set by `settled`: which floats may be learned by their normal scores, shape `(p,)`.
    """

    latent: ClassVar[bool] = True
    steps: ClassVar[int] = 14_000
    density: Mixed = Mixed()
    iid: bool = False
    sampler: Any = smc()
    target: Prior | None = leaf(default=None)
    score: float = 0.0
    ratio: float = 0.0
    heavy: Array | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            TypeError: If the sampler is none, or a density.
            ValueError: If a weight is negative.
        """
        for kind in KINDS:
            check_density("nle", getattr(self.density, kind))
        likelihood.check_sampler(self.sampler)
        gradients.check(self.score)
        gradients.check(self.ratio, "ratio")

    def check(self, simulations: Simulations) -> None:
        """Look at the simulations before training.

        Raises:
            ValueError: If the data have a mask, or whole numbers out of their density's range.

        Warns:
            UserWarning: If floats often are one same number.
        """
        likelihood.check_all_there("nle", simulations.x)
        look = getattr(self.density.integer, "check", lambda a: None)
        valid = np.asarray(simulations.weight) > 0
        for path, a in jax.tree_util.tree_flatten_with_path(simulations.x)[0]:
            if jnp.issubdtype(a.dtype, jnp.integer):
                rows = np.asarray(a)[valid]
                where, wide = f"x{jax.tree_util.keystr(path)}", str(jnp.result_type(int))
                check_range(where, rows, wide, "Return floats, or smaller numbers.")
                look(rows)
            elif jnp.issubdtype(a.dtype, jnp.floating):
                _warn_of_atoms(f"x{jax.tree_util.keystr(path)}", np.asarray(a)[valid][:LOOKED_AT])

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and what is kept of the training data.

        Raises:
            ValueError: If the data have a mask.
        """
        likelihood.check_all_there("nle", simulations.x)
        if self.ratio:
            gradients.ratios_of(self.ratio, simulations)
        x, z = self._rows(prior, simulations)
        rows = jax.vmap(parts)(x)
        self._check_used(first(rows))
        scores = gradients.measure(self.score, "likelihood", simulations)
        kept = {
            "continuous": _measured(rows.continuous, z, self.heavy),
            "discrete": self.density.measure(rows, z),
        }
        one = _standardized(kept, first(x))
        density = self.density.sized(one).init(key, one, first(z), method="log_prob")
        kept = {**kept, "score": scores} if scores else kept
        return {"params": density.get("params", {}), "statistics": kept}

    def settled(self, prior: Prior, simulations: Simulations) -> NLE:
        """Return the road with the floats chosen that may be learned by their normal scores.

        For rounds, which ask the first one's simulations: where later ones gather, the kurtosis of
        any number grows, and scores are no place for tails that are normal. After three rounds of
        slcp, 52,000 simulations (kurtosis 15; of the first 7), C2ST 0.62 to 0.69 became 0.51.
        """
        valid = np.asarray(simulations.weight) > 0
        there: Simulations = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)[valid]), simulations)
        x, z = self._rows(prior, there)
        return dataclasses.replace(self, heavy=_heavy(jax.vmap(parts)(x).continuous, z))

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return -log q(x | theta) per row, shape `(n,)`, in nats of the standardised data.

        With `iid`, of one draw: the mean over a row's. With `score`, the weighted squared distance
        of the likelihood's scores by the parameters is added; with `ratio`, the weighted
        cross-entropy of which of the contrasts is the row's parameter set.
        """
        loss = self._scored_loss(variables, prior, key, batch)
        if not self.ratio:
            return loss

        def choice(row: Simulations) -> Array:
            def learned(theta: Theta) -> Array:
                return self._log_prob(variables, prior.to_latent(theta), row.x)

            return gradients.choice_by(self.ratio, learned, row)

        return loss + jax.vmap(choice)(batch)

    def _scored_loss(
        self, variables: Variables, prior: Prior, key: Key, batch: Simulations
    ) -> Array:
        """Return the loss without the joint-ratio term."""
        noise = self._noise(variables, key, batch.x)

        def plain(theta: Theta, x: Data, noise: Array) -> Array:
            z = prior.to_latent(theta)
            return -self._log_prob(variables, z, x, noise) / self._members(x)

        if not self.score:
            return jax.vmap(plain)(batch.theta, batch.x, noise)
        target = gradients.target_of(self.score, "likelihood", batch)
        kept = variables["statistics"]["score"]

        def one(theta: Theta, x: Data, noise: Array, target: Array) -> Array:
            log_prob = functools.partial(self._log_prob, variables, x=x, noise=noise)
            value, found = jax.value_and_grad(log_prob)(prior.to_latent(theta))
            distance = gradients.distance(kept, found, target)
            return -value / self._members(x) + self.score * distance

        return jax.vmap(one)(batch.theta, batch.x, noise, target)

    def log_likelihood(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        """Return log q(x | theta(z)), normalised over x (a scalar)."""
        del prior
        kept = variables["statistics"]["continuous"]

        def volume(x: Data) -> Array:
            standard = standardize(kept, parts(x).continuous)
            slopes = spread(kept, standard)[1] - jnp.log(kept["scale"])
            # A constant has no density: what the noise in its place has at 0 is taken out.
            return jnp.sum(jnp.where(kept["constant"], 0.5 * LOG_2PI, slopes))

        volumes = jax.vmap(volume)(x) if self.iid else volume(x)
        return self._log_prob(variables, z, x) + jnp.sum(volumes)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws of the learned likelihood times the prior, and the chains' report."""
        return likelihood.sample(self, variables, prior, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return log q(x | theta) + log p(theta), not normalised over theta."""
        return likelihood.log_prob(self, variables, prior, theta, x)

    def with_prior(self, new: Prior) -> NLE:
        """Return the same road under another prior."""
        return dataclasses.replace(self, target=new)

    def _check_used(self, x: Parts) -> None:
        """Raise a TypeError if a density was chosen for a kind of number that x does not have."""
        default = Mixed()
        for kind, numbers in x._asdict().items():
            chosen = getattr(self.density, kind)
            if not numbers.size and chosen != getattr(default, kind):
                present = {k: a.size for k, a in x._asdict().items() if a.size}
                raise TypeError(
                    f"nle: {type(chosen).__name__} is for {kind} numbers ({KINDS[kind]}) and x has "
                    f"none, only {present}. Return that dtype from the simulator "
                    "(x.astype), or choose a density for what x has."
                )

    def _rows(self, prior: Prior, simulations: Simulations) -> tuple[Data, Array]:
        """Return data and latent parameters of all rows, with `iid` of all their draws."""
        x, z = simulations.x, jax.vmap(prior.to_latent)(simulations.theta)
        if self.iid:
            z = jnp.repeat(z, self._members(first(x)), axis=0)
            x = all_members(x)
        return x, z

    def _members(self, x: Data) -> int:
        """Return the number of independent draws in one data set; 1 without `iid`."""
        return count_members("nle", x) if self.iid else 1

    def _noise(self, variables: Variables, key: Key, x: Data) -> Array:
        """Return what stands for constants in a batch: noise, zeros where there are none."""
        constant = variables["statistics"]["continuous"]["constant"]
        shape = (*jax.tree.leaves(x)[0].shape[: 1 + self.iid], constant.size)

        def drawn(key: Key) -> Array:
            return jax.random.normal(key, shape)

        return jax.lax.cond(jnp.any(constant), drawn, lambda _: jnp.zeros(shape), key)

    def _log_prob(
        self, variables: Variables, z: Array, x: Data, noise: Array | None = None
    ) -> Array:
        """Return log q(x | z) of standardised data, of its constants as if they were noise."""
        kept = variables["statistics"]
        density = {"params": variables["params"], "statistics": kept["discrete"]}
        constant = kept["continuous"]["constant"]

        def one(x: Data, noise: Array) -> Array:
            x = _standardized(kept, x)
            x = x._replace(continuous=jnp.where(constant, noise, x.continuous))
            return self.density.sized(x).apply(density, x, z, method="log_prob")

        if noise is None:
            noise = jnp.zeros((*jax.tree.leaves(x)[0].shape[: int(self.iid)], constant.size))
        return jnp.sum(jax.vmap(one)(x, noise)) if self.iid else one(x, noise)


def _warn_of_atoms(where: str, rows: np.ndarray) -> None:
    """Warn of floats that often are the same number: a density has a spike there, without end."""
    often = max(5, int(ATOM * len(rows)))
    if len(rows) < often:
        return
    rows = np.sort(rows.reshape(len(rows), -1), 0)
    atoms = np.any(rows[often - 1 :] == rows[: len(rows) - often + 1], 0) & (rows[0] < rows[-1])
    if np.any(atoms):
        warn(
            f"nle: {where}: {int(atoms.sum())} of {atoms.size} floats are one same number in more "
            f"than {ATOM:.0%} of the simulations, as counts are, or zeros. A density has a spike "
            "there, and posteriors may come out far too narrow. Return counts as integers, "
            "x.astype(int): they have probabilities. Or read x by npe."
        )


def _standardized(kept: Variables, x: Data) -> Parts:
    """Return one data set by kinds of number; floats are standardised, heavy tails are scores."""
    split, kept = parts(x), kept["continuous"]
    return split._replace(continuous=spread(kept, standardize(kept, split.continuous))[0])


def _measured(x: Array, z: Array, among: Array | None = None) -> dict[str, Any]:
    """Return the moments of floats `(n, p)`, and their normal scores once they are standardised."""
    moments = statistics(x)
    standard = jax.vmap(lambda row: standardize(moments, row))(x)
    scaled = x / unit_of(x, (0,))
    constant = ~varies(jnp.std(scaled, 0), jnp.mean(scaled, 0))
    return {**moments, **fit_law_scores(standard, z, among), "constant": constant}


@jax.jit
def _heavy(x: Array, z: Array) -> Array:
    """Return which of floats `(n, p)` are learned by scores, shape `(p,)`."""
    heavy: Array = _measured(x, z)["heavy"]
    return heavy


def nle(
    *,
    density: nn.Module | None = None,
    iid: bool = False,
    sampler: Any = None,
    score: float = 0.0,
    ratio: float = 0.0,
) -> NLE:
    """Return the configuration of neural likelihood estimation.

    Args:
        density: A conditional density of the data (`jaxsbi.densities`) for the kind of number it
            is made for, or a `Mixed` for several kinds. By default booleans get
            `MaskedBernoulli`, integers `MaskedLogisticMixture`, floats `MaskedAutoregressive`.
        iid: Say that the leading axis of every array in x counts independent draws given the
            parameters. One density is then learned from all of them, and multiplied.
        sampler: A sampler (`jaxsbi.samplers`); tempered sequential Monte Carlo by default.
        score: Weight of the squared distance between the density's score by the parameters and the
            joint score of simulations that have one (`jaxsbi.simulate_scored`), in units of its
            mean square (SCANDAL, Brehmer et al. 2018, arXiv:1805.12244).
        ratio: Weight of the cross-entropy of a choice by the density among a row's parameter set
            and its contrasts, with probabilities by joint ratios as labels (as of
            arXiv:1808.00973), of simulations that have some
            (`jaxsbi.simulate_scored(…, contrasts=64)`). A step evaluates the density at each
            contrast.

    Raises:
        TypeError: If the sampler is none, or a density.
        ValueError: If a weight is negative.
    """
    if density is not None and not isinstance(density, Mixed):
        density = Mixed(**{getattr(density, "kind", "continuous"): density})
    given = {"density": density, "sampler": sampler}
    given = {name: value for name, value in given.items() if value is not None}
    return NLE(iid=iid, score=score, ratio=ratio, **given)
