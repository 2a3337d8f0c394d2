"""Calibration by generalised ranks: many tests, one simulation, one compiled program.

Asks whether, on average over the prior (or over a region, or stratum by stratum), the truth lies
among posterior draws as one more draw would.

Cannot see, whatever the ordering: a wrong simulator, for truths and data both come from it; errors
that cancel over the data sets ranked. The posterior that ignores the data passes all orderings but
the likelihood's, a classifier's and `Distance` from a point that depends on x. Each `Ranks.blind`
says what its own ordering misses.

When it fails, look at `plots.calibration`: ranks crowded at both ends, the posterior is too narrow
(more simulations, an ensemble, or `importance` with a likelihood); crowded in the middle, too wide
(a longer training, a richer density or summary); crowded at one end, shifted (invalid simulations
left out? a prior other than the training's?). `stratified` shows for which data.

Source: ranks of any function of parameters and data, Modrák et al. 2023, arXiv:2211.02383.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, Key, Posterior, Simulator, Theta, check_key
from jaxsbi.diagnostics.orderings import (
    Density,
    Distance,
    Ordering,
    Parameters,
    Problem,
    Projections,
)
from jaxsbi.diagnostics.uniformity import LEVEL, holm, ks_band, ks_p_value
from jaxsbi.priors import Prior

DEFAULT: tuple[Ordering, ...] = (Parameters(), Projections(), Density(), Distance())
AT_ONCE = 500_000


class Ranks(NamedTuple):
    """Ranks of the truth among posterior draws, by one ordering.

    Attributes:
        name: The ordering's.
        ranks: Share of draws below the truth, ties broken at random, shape `(n, tests)`: uniform
            on (0, 1) for a calibrated posterior.
        p_value: Kolmogorov-Smirnov, of each test by itself, shape `(tests,)`.
        corrected: The same corrected for the number of all tests that were made (Holm).
        band: How far the distribution function of uniform ranks strays from the diagonal, with
            95 % probability everywhere at once.
        blind: What this ordering cannot see.
    """

    name: str
    ranks: np.ndarray
    p_value: np.ndarray
    corrected: np.ndarray
    band: float
    blind: str

    def coverage(self, level: float | np.ndarray) -> np.ndarray:
        """Return the share of data sets whose rank is below `level`, per test.

        For the ordering `Density`: the realised coverage of highest-density regions of that level.
        """
        return np.mean(self.ranks[..., None] <= np.asarray(level), axis=0)

    @property
    def verdict(self) -> str:
        """One line: whether it passed, and what that does not mean."""
        worst = float(np.min(self.corrected))
        passed = "passes" if worst >= LEVEL else "FAILS"
        return (
            f"{self.name}: {passed} (smallest p-value {worst:.2g} after Holm's correction, "
            f"{self.ranks.shape[1]} tests of {self.ranks.shape[0]} data sets); cannot see: "
            f"{self.blind}"
        )


@dataclasses.dataclass(frozen=True)
class CalibrationReport:
    """What `calibration` returns.

    Attributes:
        tests: Ordering name → its ranks.
        num_simulated: Data sets simulated; with a `region`, the ranks are of those inside.
        strata: `stratum(x)` of each ranked data set, shape `(n,)`, if it was asked for.
    """

    tests: dict[str, Ranks]
    num_simulated: int = 0
    strata: np.ndarray | None = None

    def __getitem__(self, name: str) -> Ranks:
        """Return the ranks by one ordering."""
        return self.tests[name]

    @property
    def passed(self) -> bool:
        """Whether no test fails at the 1 % level, corrected for their number."""
        return all(np.min(r.corrected) >= LEVEL for r in self.tests.values())

    def __str__(self) -> str:
        """One line per ordering."""
        lines = [ranks.verdict for ranks in self.tests.values()]
        kept = len(next(iter(self.tests.values())).ranks)
        if kept < self.num_simulated:
            lines.insert(0, f"{kept} of {self.num_simulated} simulated data sets are in the region")
        return "\n".join(lines)


def calibration(
    key: Key,
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    *,
    orderings: Sequence[Ordering] = DEFAULT,
    num_datasets: int = 1000,
    num_draws: int = 200,
    region: Callable[[Data], Any] | None = None,
    stratum: Callable[[Data], Any] | None = None,
) -> CalibrationReport:
    """Rank true parameters among posterior draws, by several orderings of the same draws.

    For any function f(theta, x) the rank of f(truth, x) among f(draws, x) is uniform if the
    posterior is right: one simulation serves every test. This holds among data sets chosen by x
    alone, too: `region` and `stratum` find errors that cancel over all data sets.

    Args:
        key: A typed key.
        posterior: The posterior to check.
        prior: The prior it should be calibrated under.
        simulator: The simulator it was trained on; called afresh.
        orderings: What to rank by (`jaxsbi.diagnostics`); by default each parameter, random
            projections, the posterior's density and the distance from a draw of the prior. Roads
            whose `log_prob` is dear can leave the density out.
        num_datasets: Data sets simulated; the tests' power grows with it.
        num_draws: Posterior draws per data set.
        region: `region(x) -> bool`: only data sets for which it holds are ranked (and only for
            these is the posterior drawn).
        stratum: `stratum(x) -> number`, kept with the ranks, for `stratified`.

    Returns:
        Ranks, p-values and a verdict per ordering.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If there are too few data sets (inside the region) or draws, two orderings of
            one name, or an ordering or a stratum that is NaN.
    """
    check_key(key)
    names = [ordering.name for ordering in orderings]
    if num_datasets < 10 or num_draws < 10:
        raise ValueError(
            "calibration: expected at least 10 data sets and 10 draws, got "
            f"num_datasets={num_datasets}, num_draws={num_draws}."
        )
    if not names or len(set(names)) < len(names):
        raise ValueError(f"orderings: expected different names, got {names}.")
    keys = jax.random.split(key, num_datasets)
    if region is not None:
        keys = keys[_of_data(region, prior, simulator, keys, "region").astype(bool)]
        if keys.size < 10:
            raise ValueError(
                f"region: expected at least 10 data sets inside, got {keys.size} of {num_datasets}."
                " Widen the region, or simulate more (num_datasets)."
            )
    strata = None if stratum is None else _of_data(stratum, prior, simulator, keys, "stratum")
    # Those that hold arrays are arguments of the compiled program; what JAX does not know, is not.
    plain = tuple(o if jax.tree_util.all_leaves([o]) else None for o in orderings)
    known = tuple(o if p is None else None for o, p in zip(orderings, plain, strict=True))
    found = _ranks(known, plain, posterior, prior, simulator, keys, num_draws)
    ranks = [np.asarray(values) for values in found]
    for name, values in zip(names, ranks, strict=True):
        if np.isnan(values).any():
            raise ValueError(
                f"ordering {name!r}: expected numbers, got NaN for {int(np.isnan(values).sum())} "
                "truths or draws. Evaluate it at a draw of the prior."
            )
    p_values = [ks_p_value(values) for values in ranks]
    corrected = np.split(holm(np.concatenate(p_values)), np.cumsum([p.size for p in p_values])[:-1])
    tests = {
        o.name: Ranks(o.name, r, p, c, ks_band(len(r)), o.blind)
        for o, r, p, c in zip(orderings, ranks, p_values, corrected, strict=True)
    }
    return CalibrationReport(tests, num_datasets, strata)


@functools.partial(jax.jit, static_argnames=("plain", "simulator", "num_draws"))
def _ranks(
    known: tuple[Ordering | None, ...],
    plain: tuple[Ordering | None, ...],
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    keys: Array,
    num_draws: int,
) -> list[Array]:
    orderings: list[Any] = [o or p for o, p in zip(known, plain, strict=True)]

    def one(key: Key) -> list[Array]:
        theta, x, (key_draws, key_ties, key_point) = _data_set(prior, simulator, key)
        draws = posterior.sample(key_draws, x, num_draws)
        problem = Problem(prior.sample(key_point), posterior, prior, x)
        ties = jax.random.split(key_ties, len(orderings))
        return [
            _rank(k, jax.vmap(lambda t, o=o: o(problem, t))(draws), o(problem, theta))
            for o, k in zip(orderings, ties, strict=True)
        ]

    size = max(1, min(keys.size, AT_ONCE // num_draws))
    return jax.lax.map(one, keys, batch_size=size)


def _data_set(prior: Prior, simulator: Simulator, key: Key) -> tuple[Theta, Data, list[Key]]:
    """Return the truth and the data set that belong to a key, and keys for what comes after."""
    key_theta, key_x, *others = jax.random.split(key, 5)
    theta = prior.sample(key_theta)
    return theta, simulator(key_x, theta), others


def _of_data(
    function: Callable[[Data], Any], prior: Prior, simulator: Simulator, keys: Array, name: str
) -> np.ndarray:
    """Return one number for the data set of each key."""
    # Clones, for the data sets are meant to be those that `_ranks` simulates from the same keys.
    values = np.asarray(_values(function, prior, simulator, jax.random.clone(keys)))
    if values.shape != keys.shape:
        raise ValueError(
            f"{name}: expected one number per data set, got shape {values.shape[1:]}. It is called "
            "on one data set, without a batch axis."
        )
    if np.isnan(values).any():
        raise ValueError(
            f"{name}: expected numbers, got NaN for {int(np.isnan(values).sum())} of "
            f"{len(values)} data sets."
        )
    return values


@functools.partial(jax.jit, static_argnames=("function", "simulator"))
def _values(
    function: Callable[[Data], Any], prior: Prior, simulator: Simulator, keys: Array
) -> Array:
    def one(key: Key) -> Array:
        return jnp.asarray(function(_data_set(prior, simulator, key)[1]))

    return jax.lax.map(one, keys, batch_size=min(keys.size, 10_000))


def _rank(key: Key, draws: Array, truth: Array) -> Array:
    """Return a number in (0, 1) per test: the truth's place among the draws."""
    below = jnp.sum(draws < truth[None], axis=0)
    equal = jnp.sum(draws == truth[None], axis=0)
    # Uniform within its own step, and among draws that it ties with.
    place = below + jax.random.uniform(key, truth.shape) * (equal + 1)
    bad = jnp.isnan(truth) | jnp.any(jnp.isnan(draws), axis=0)
    return jnp.where(bad, jnp.nan, place / (draws.shape[0] + 1))
