"""The local classifier test: is the posterior right at this observation?

Asks whether q(theta | x) is the posterior at one x, where calibration asks it on average over all
x. A classifier learns to tell true parameters from posterior draws, given the data set they belong
to; where q is the posterior nobody can.

Cannot see: a wrong simulator (true parameters and data both come from it), what a small network
does not learn from the simulations there are (details of many parameters, data whose numbers say
little one by one), and what is wrong at other observations.

When it fails: look at `draws` by `probability`. Above 1/2 there is too little posterior, below too
much. Train with more simulations, or in rounds at this observation (`jaxsbi.sequential`), or weigh
the draws by a likelihood (`jaxsbi.importance`).

Source: Linhart, Gramfort & Rodrigues 2023, "L-C2ST", arXiv:2306.03580. Their null distribution
permutes all labels; here each true parameter changes places with the draw of its own data set, or
not. As both have the same law if the posterior is right, the p-value is then exact, for any number
of simulations and however poor the classifiers.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Posterior,
    Simulator,
    Theta,
    check_key,
    configuration,
    leaf,
)
from jaxsbi.diagnostics.classifiers import logit, train
from jaxsbi.diagnostics.orderings import Problem
from jaxsbi.diagnostics.uniformity import failing
from jaxsbi.methods.features import init_context, read_context, standardize
from jaxsbi.methods.features import statistics as moments
from jaxsbi.priors import Prior
from jaxsbi.simulate import simulate

BLIND = (
    "a wrong simulator, errors at other observations, details that a small network does not learn"
)


class LocalC2ST(NamedTuple):
    """The local classifier test at one observation.

    Attributes:
        statistic: Mean squared distance of the classifier's probability from 1/2 over posterior
            draws; 0 where true parameters and draws cannot be told apart.
        null: The same of classifiers trained with exchanged labels, shape `(permutations,)`.
        p_value: Share of them that are at least as far from 1/2, this one among them.
        draws: Posterior draws at this observation, each of shape `(num_draws, *shape)`.
        probability: Of each draw, that it is a true parameter, shape `(num_draws,)`: above 1/2
            the posterior is too low, below too high.
    """

    statistic: float
    null: np.ndarray
    p_value: float
    draws: Theta
    probability: np.ndarray

    @property
    def passed(self) -> bool:
        """Whether true parameters and draws could not be told apart."""
        return self.p_value > failing(len(self.null))

    @property
    def verdict(self) -> str:
        """One line: whether it passed, and what that does not mean."""
        return (
            f"local C2ST: {'passes' if self.passed else 'FAILS'} (statistic "
            f"{self.statistic:.2g}, {np.mean(self.null):.2g} for a right posterior, "
            f"p = {self.p_value:.2g}); cannot see: {BLIND}"
        )


@configuration
class Classifier:
    """A classifier's log-odds: whatever it has learned to tell truths from posterior draws by.

    An ordering for `calibration`, from `local_classifiers(...).ordering`. It sees lost information
    and errors that depend on the data, without a likelihood.

    Attributes:
        params: The classifier's weights.
        statistics: What standardises a data set and latent parameters.
    """

    params: Any = leaf()
    statistics: Any = leaf()
    name: str = "classifier"
    blind: str = "what a small network does not learn, a wrong simulator"

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return the log-odds that a parameter set is the truth."""
        z = problem.prior.to_latent(theta)
        return logit(self.params, _row(self.statistics, z, problem.x))[None]


@dataclasses.dataclass(frozen=True)
class LocalClassifiers:
    """Classifiers of true parameters and posterior draws, for the test at any observation.

    Attributes:
        posterior: The posterior that is checked.
        prior: The prior it is checked under.
        params: Weights; the first are those of the classifier, the others had labels exchanged.
        statistics: What standardises a data set and latent parameters.
    """

    posterior: Posterior
    prior: Prior
    params: Any
    statistics: Any

    @property
    def ordering(self) -> Classifier:
        """What `calibration` may rank by: what the classifier tells truths from draws by."""
        return Classifier(
            params=jax.tree.map(lambda a: a[0], self.params), statistics=self.statistics
        )

    def at(self, key: Key, x_observed: Data, *, num_draws: int = 1000) -> LocalC2ST:
        """Return the test at one observation; no classifier is trained again.

        Args:
            key: A typed key, for the draws.
            x_observed: One data set.
            num_draws: Posterior draws to judge.

        Raises:
            TypeError: If the key is not typed, or `x_observed` has another structure.
            ValueError: If it has another shape, there are fewer than 10 draws, or the draws are
                not finite or all the same.
        """
        check_key(key)
        if num_draws < 10:
            raise ValueError(f"num_draws: expected at least 10, got {num_draws}.")
        x = self.posterior.conform(x_observed)
        draws = self.posterior.sample(key, x, num_draws)
        z = np.asarray(jax.vmap(self.prior.to_latent)(draws))
        _check_draws(z, "at this observation")
        probability = np.asarray(_probabilities(self.params, self.statistics, z, x), float)
        values = np.mean((probability - 0.5) ** 2, axis=1)
        p_value = (1.0 + np.sum(values[1:] >= values[0])) / len(values)
        return LocalC2ST(float(values[0]), values[1:], float(p_value), draws, probability[0])


def local_classifiers(
    key: Key,
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    *,
    num_datasets: int = 2000,
    permutations: int = 100,
) -> LocalClassifiers:
    """Learn to tell true parameters from posterior draws, for the local test at any observation.

    Args:
        key: A typed key.
        posterior: The posterior to check.
        prior: The prior it was trained under.
        simulator: The simulator it was trained on; called afresh.
        num_datasets: Data sets simulated, with one posterior draw each.
        permutations: Classifiers trained with exchanged labels.

    Returns:
        Classifiers; `classifiers.at(key, x)` is the test at `x`.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If there are too few data sets or permutations, or draws that are not finite or
            all the same.
    """
    check_key(key)
    if num_datasets < 100 or permutations < 19:
        raise ValueError(
            "local test: expected at least 100 data sets, for classifiers to learn from, and 19 "
            "permutations, for p-values down to 0.05, got "
            f"num_datasets={num_datasets}, permutations={permutations}."
        )
    key_simulate, key_draws, key_context, key_train = jax.random.split(key, 4)
    simulations = simulate(key_simulate, prior, simulator, num_datasets, progress=False)
    valid = np.asarray(simulations.weight) > 0
    if valid.sum() < 100:
        raise ValueError(
            f"simulator: expected at least 100 finite simulations, got {valid.sum()} of "
            f"{num_datasets}. Simulate more, or mend the simulator."
        )
    simulations = simulations[valid]
    keys = jax.random.split(key_draws, len(simulations))
    truth, drawn = _pairs(posterior, prior, keys, simulations.theta, simulations.x)
    _check_draws(np.asarray(drawn), "at simulated data sets")
    statistics = _statistics(key_context, truth, simulations.x)
    params = _train(key_train, statistics, truth, drawn, simulations.x, permutations)
    return LocalClassifiers(posterior, prior, params, statistics)


def local_c2st(
    key: Key,
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    x_observed: Data,
    *,
    num_datasets: int = 2000,
    num_draws: int = 1000,
    permutations: int = 100,
) -> LocalC2ST:
    """Test the posterior at one observation (L-C2ST, Linhart et al. 2023, arXiv:2306.03580).

    It asks whether posterior draws at this observation can be told from true parameters. It cannot
    see a wrong simulator (see `misspecification`), what is wrong at other observations, nor details
    that a small network does not learn. When it fails, look at `draws` by `probability`: above 1/2
    the posterior is too low, below too high; then train with more simulations or in rounds
    (`jaxsbi.sequential`). For many observations, train once: `local_classifiers(...).at(key, x)`.

    Args:
        key: A typed key.
        posterior: The posterior to check; it must work for any data set, not just this one.
        prior: The prior it was trained under.
        simulator: The simulator it was trained on; called afresh.
        x_observed: One data set.
        num_datasets: Data sets simulated, with one posterior draw each; power grows with it.
        num_draws: Posterior draws to judge at the observation.
        permutations: Classifiers trained with exchanged labels.

    Returns:
        Statistic, null distribution, p-value, and the draws with their probabilities.

    Raises:
        TypeError: If the key is not typed, or `x_observed` has another structure.
        ValueError: If a number is out of range, or draws are not finite or all the same.
    """
    check_key(key)
    key_train, key_draws = jax.random.split(key)
    x = posterior.conform(x_observed)  # a wrong observation is told before the training
    learned = local_classifiers(
        key_train,
        posterior,
        prior,
        simulator,
        num_datasets=num_datasets,
        permutations=permutations,
    )
    return learned.at(key_draws, x, num_draws=num_draws)


def _check_draws(z: np.ndarray, where: str) -> None:
    bad = int((~np.isfinite(z)).any(1).sum())
    if bad:
        raise ValueError(
            f"posterior: expected finite draws within the prior's support {where}, got {bad} of "
            f"{len(z)} with NaN or infinite latent coordinates. Look at posterior.sample there."
        )
    same = np.flatnonzero(np.ptp(z, axis=0) == 0)
    if same.size:
        raise ValueError(
            f"posterior: expected draws that differ {where}, got {len(z)} equal ones in latent "
            f"coordinates {same.tolist()}. A constant is no posterior: look at posterior.sample."
        )


@jax.jit
def _pairs(
    posterior: Posterior, prior: Prior, keys: Array, theta: Theta, x: Data
) -> tuple[Array, Array]:
    """Return latent coordinates of the truth of each data set, and of one posterior draw."""

    def one(row: tuple[Key, Theta, Data]) -> tuple[Array, Array]:
        key, theta, x = row
        draw = jax.tree.map(lambda a: a[0], posterior.sample(key, x, 1))
        return prior.to_latent(theta), prior.to_latent(draw)

    return jax.lax.map(one, (keys, theta, x), batch_size=min(keys.size, 10_000))


@jax.jit
def _statistics(key: Key, z: Array, x: Data) -> dict[str, Any]:
    return {"x": init_context(key, None, x)[0], "z": moments(z)}


def _row(statistics: Any, z: Array, x: Data) -> Array:
    """Return what a classifier sees of one pair."""
    standard = standardize(statistics["z"], z)
    return jnp.concatenate([standard, read_context(None, statistics["x"], {}, x)])


@functools.partial(jax.jit, static_argnames="permutations")
def _train(
    key: Key, statistics: Any, truth: Array, drawn: Array, x: Data, permutations: int
) -> Any:
    """Return the weights of one classifier, and of one for each exchange of labels."""
    key_sign, key_start, key_order = jax.random.split(key, 3)
    rows = jax.vmap(functools.partial(_row, statistics))
    exchanged = jax.random.rademacher(key_sign, (permutations, len(truth)), truth.dtype)
    sign = jnp.concatenate([jnp.ones_like(exchanged[:1]), exchanged])
    starts = jax.random.split(key_start, 1 + permutations)
    each = jax.vmap(train, (0, None, None, None, 0))
    return each(starts, key_order, rows(truth, x), rows(drawn, x), sign)


@jax.jit
def _probabilities(params: Any, statistics: Any, z: Array, x: Data) -> Array:
    """Return how probably each draw is a true parameter, by each classifier."""
    rows = jax.vmap(lambda z: _row(statistics, z, x))(z)
    score = jax.vmap(jax.vmap(logit, (None, 0)), (0, None))(params, rows)
    return jax.nn.sigmoid(score)
