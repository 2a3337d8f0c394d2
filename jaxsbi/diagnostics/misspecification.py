"""Misspecification: could the simulator, with any parameters, have made the observation?

Asks whether the observed data are of the kind that was simulated for training. Where they are not,
a learned posterior extrapolates, and no test on simulations (calibration, the local test) tells.

Cannot see: with a summary, whatever the summary throws away; a wrong simulator whose observation is
a likely one all the same (a bias that the parameters absorb); one odd number among very many that
vary freely. It says nothing on the posterior itself.

When it fails: compare the observation with simulations number by number (`prior_predictive`), then
widen the prior or mend the simulator (noise, selection, outliers); `distortions` tells which of
several suspected errors it looks like.

Sources: the distance, in the space of summaries, of observed data from simulations, Schmitt et al.
2021, arXiv:2112.08866; density by the k-th nearest neighbour, Loftsgaarden & Quesenberry 1965, Ann.
Math. Stat. 36, 1049. Both p-values are ranks among fresh simulations, thus exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, DataSpec, Key, Posterior, Simulations, check_key
from jaxsbi.compression.summary import summary as learned_summary
from jaxsbi.diagnostics.uniformity import failing
from jaxsbi.methods.features import standardize
from jaxsbi.methods.features import statistics as moments
from jaxsbi.networks import flatten

NEIGHBOURS = 10
REFERENCE, AT_ONCE = 2000, 10_000_000
"""Simulations that others are compared with, at most, and numbers in memory for their distances."""
Summary = Callable[[Data], Array]


class Misspecification(NamedTuple):
    """The observed data among simulations.

    Attributes:
        mmd: Squared maximum mean discrepancy between observed data and simulations.
        mmd_null: The same of fresh simulations, shape `(sets,)`.
        mmd_p_value: Share of them at least as far, the observed among them.
        log_density: Log-density of the observed data under all simulations, up to a constant, by
            nearest neighbours; summed over several observations.
        density_null: The same of fresh simulations, shape `(sets,)`.
        density_p_value: Share of them at most as dense, the observed among them.
    """

    mmd: float
    mmd_null: np.ndarray
    mmd_p_value: float
    log_density: float
    density_null: np.ndarray
    density_p_value: float

    @property
    def p_value(self) -> float:
        """The smaller of the two p-values, times two (Bonferroni), at most 1."""
        return min(1.0, 2.0 * min(self.mmd_p_value, self.density_p_value))

    @property
    def passed(self) -> bool:
        """Whether the observation is of the kind that was simulated, as far as this can see."""
        return self.p_value > failing(len(self.mmd_null), tests=2)

    @property
    def verdict(self) -> str:
        """One line: whether it passed, and what that does not mean."""
        return (
            f"misspecification: {'passes' if self.passed else 'FAILS'} (p = {self.p_value:.2g}: by "
            f"distance {self.mmd_p_value:.2g}, by density {self.density_p_value:.2g}, among "
            f"{len(self.mmd_null)} sets of fresh simulations); cannot see: what the summary throws "
            "away, errors that the parameters absorb"
        )


def misspecification(
    key: Key,
    simulations: Simulations,
    x_observed: Data,
    *,
    summary: Posterior | Summary | None = None,
    several: bool = False,
) -> Misspecification:
    """Ask whether the observed data are of the kind that was simulated (see this module).

    Half of the simulations are the reference; the others, in sets of as many as were observed, are
    what the observed data are ranked among. It cannot see what the summary throws away, nor a wrong
    simulator whose data parameters can imitate. When it fails, do not trust the posterior.

    Args:
        key: A typed key; it shares the simulations out.
        simulations: From `jaxsbi.simulate`, best not those that a summary was trained on.
        x_observed: One data set; with `several`, data sets stacked on a leading axis.
        summary: `summary(x) -> vector`, or a posterior whose summary network is used; by default
            all numbers of x. Coordinates are whitened by the reference.
        several: Whether `x_observed` has a leading axis of independent observations.

    Returns:
        Distance, density, and their p-values.

    Raises:
        TypeError: If the key is not typed, or the observed data have another structure.
        ValueError: If shapes differ, or there are too few simulations or numbers that vary.
    """
    check_key(key)
    spec = DataSpec.of(simulations.x, batched=True)
    sets = [jax.tree.map(lambda a, i=i: a[i], x_observed) for i in _indices(x_observed, several)]
    observed: Data = jax.tree.map(lambda *a: jnp.stack(a), *map(spec.conform, sets))
    valid = simulations.x if simulations.num_valid == len(simulations) else _valid(simulations)
    n, m = len(jax.tree.leaves(valid)[0]), len(sets)
    reference = min(n // 2, REFERENCE)
    groups = (n - reference) // m
    if groups < 19 or reference < 10 * NEIGHBOURS:
        raise ValueError(
            f"simulations: expected at least {max(20 * NEIGHBOURS, 38 * m)} for {m} observed data "
            f"sets, got {n} finite ones. Simulate more."
        )
    read = _reader(summary)
    rows, seen = jax.vmap(read)(valid), jax.vmap(read)(observed)
    if not bool(jnp.all(jnp.isfinite(rows))) or not bool(jnp.all(jnp.isfinite(seen))):
        raise ValueError("summary: expected finite numbers, got NaN or infinity. Look at it.")
    order = jax.random.permutation(key, n)
    base, fresh = rows[order[:reference]], rows[order[reference : reference + groups * m]]
    if not bool(jnp.any(base != base[:1])):
        raise ValueError("simulations: expected numbers that vary, got the same in all of them.")
    ranked = jnp.concatenate([seen[None], fresh.reshape(groups, m, -1)])
    distance, density = (np.asarray(a, float) for a in _statistics(base, ranked))
    return Misspecification(
        float(distance[0]),
        distance[1:],
        float(np.mean(distance >= distance[0])),
        float(density[0]),
        density[1:],
        float(np.mean(density <= density[0])),
    )


def _indices(x: Data, several: bool) -> list[Any]:
    """Return what selects each observation."""
    if not several:
        return [...]
    lengths = {jnp.shape(a)[0] if jnp.ndim(a) else 0 for a in jax.tree.leaves(x)}
    if len(lengths) != 1 or not max(lengths):
        raise ValueError(
            "observation: with several=True expected one leading axis of observations on every "
            f"array, got lengths {sorted(lengths)}."
        )
    return list(range(lengths.pop()))


def _valid(simulations: Simulations) -> Data:
    return simulations[np.flatnonzero(np.asarray(simulations.weight) > 0)].x


def _reader(summary: Posterior | Summary | None) -> Summary:
    """Return what makes a vector of one data set."""
    if summary is None:
        return flatten
    read: Any = summary
    if isinstance(summary, Posterior):
        read = getattr(summary.method, "summary", None)
        if read is None:
            raise ValueError(
                "summary: expected a posterior with a summary network, got "
                f"{type(summary.method).__name__} without one. Pass a function of x, or nothing "
                "for all its numbers."
            )
        if isinstance(read, nn.Module):  # else it is `compression.frozen`'s, which needs no more
            read = learned_summary(summary)
    return lambda x: flatten(read(x))


@jax.jit
def _statistics(base: Array, sets: Array) -> tuple[Array, Array]:
    """Return the MMD² and the log-density of each set of rows.

    Args:
        base: The reference, shape `(n, d)`.
        sets: Shape `(sets, rows, d)`.
    """
    standard = jax.vmap(functools.partial(standardize, moments(base)))
    base = standard(base)
    # Whitened, so that a broken correlation is as far away as a broken number. Directions in which
    # simulations hardly vary are the most telling, down to what float32 resolves.
    value, axes = jnp.linalg.eigh(base.T @ base / len(base))
    axes = axes / jnp.sqrt(jnp.maximum(value, 1e-5 * value[-1]))[None]
    base, sets = base @ axes, jax.vmap(standard)(sets) @ axes
    some = base[:500]
    within = jax.lax.map(lambda row: _distances(row, base), some, batch_size=50)
    width = jnp.median(within)

    def kernel(distance: Array) -> Array:
        # Inverse multiquadratic: unlike the Gaussian's, its tails still tell far from farther.
        return 1.0 / (1.0 + (distance / width) ** 2)

    def one(rows: Array) -> tuple[Array, Array]:
        to_base = jax.vmap(_distances, (0, None))(rows, base)
        to_rows = jax.vmap(_distances, (0, None))(rows, rows)
        nearest = -jax.lax.top_k(-to_base, NEIGHBOURS)[0][:, -1]
        mmd = jnp.mean(kernel(to_rows)) - 2.0 * jnp.mean(kernel(to_base)) + jnp.mean(kernel(within))
        return mmd, -base.shape[1] * jnp.sum(jnp.log(jnp.maximum(nearest, 1e-30)))

    at_once = AT_ONCE // (base.size * sets.shape[1])
    return jax.lax.map(one, sets, batch_size=max(1, min(len(sets), at_once)))


def _distances(row: Array, others: Array) -> Array:
    """Return Euclidean distances; from differences, which keep the digits of close neighbours."""
    return jnp.sqrt(jnp.sum((others - row[None]) ** 2, 1))
