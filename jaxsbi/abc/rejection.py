"""Rejection: the prior's draws whose simulations come nearest to the observation."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.abc.distances import Distance, Summary
from jaxsbi.abc.nearest import (
    FEW,
    check_measure,
    check_problem,
    chosen_chunk,
    default_distance,
    is_number,
    isolation,
    measure,
    nearest_of_prior,
    pilot_size,
    summarize,
)
from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulator,
    Theta,
    is_concrete,
    positive,
    warn,
)
from jaxsbi.methods.fixed import fixed
from jaxsbi.priors import Prior
from jaxsbi.simulate import _simulate_chunk

FAR = 2.0
"""Isolation (see `RejectionInfo`) beyond which an observation counts as never simulated."""
ROUNDING = 1e-3
"""Share of the largest distance by which one may lie below 0."""
NEARLY_ALL = 0.95
"""Kept share of the finite simulations from which on draws differ from the prior's by no more than
the rest: 0.05 in total variation."""


class RejectionInfo(NamedTuple):
    """What a rejection run reports.

    Attributes:
        kept_fraction: Kept draws per simulation.
        tolerance: The effective tolerance, the largest distance among the kept draws.
        num_simulations: The number of simulations.
        num_nonfinite: How many were NaN or infinite (or had a distance of NaN); never kept.
        distances: Distance of each kept draw, shape `(keep,)`, increasing.
        x: The simulations of the kept draws, every leaf of shape `(keep, *shape)`.
        distance: The distance that was used, with the scales estimated for it.
        isolation: Distance of the nearest simulation, in units of the largest distance between a
            simulation near it and its own nearest neighbour; NaN where fewer than 20 draws were
            kept.
    """

    kept_fraction: Array
    tolerance: Array
    num_simulations: Array
    num_nonfinite: Array
    distances: Array
    x: Data
    distance: Distance
    isolation: Array

    def warn(self) -> None:
        """Warn (on the host) of failures, of what is out of reach, and of keeping everything."""
        warn_of(self, "rejection")
        kept = self.distances.shape[0]
        finite = int(self.num_simulations) - int(self.num_nonfinite)
        if kept >= NEARLY_ALL * finite:
            warn(
                f"rejection: {kept} of {finite} finite simulations are kept: the draws are the "
                "prior's, whatever was observed. Keep fewer, or take a smaller epsilon (the "
                f"largest distance is {float(self.tolerance):.4g})."
            )


def warn_of(info: Any, who: str) -> None:
    """Warn of what rejection and sequential Monte Carlo have in common."""
    total, failed = int(info.num_simulations), int(info.num_nonfinite)
    if failed:
        warn(
            f"{who}: {failed} of {total} simulations are not finite; they are never kept, so that "
            "part of the prior is ignored."
        )
    if float(info.isolation) > FAR:
        warn(
            f"{who}: the observation is outside what was simulated: the nearest of {total} is at "
            f"distance {float(info.distances[0]):.4g}, {float(info.isolation):.3g} times as far as "
            "simulations near it are from one another. The draws are those of the nearest data, "
            "not of the observation: widen the prior or mend the simulator."
        )


def rejection(
    key: Key,
    prior: Prior,
    simulator: Simulator,
    x_observed: Data,
    *,
    num_simulations: int,
    keep: int | None = None,
    epsilon: float | None = None,
    distance: Distance | None = None,
    summary: Summary | None = None,
    chunk_size: int | None = None,
) -> tuple[Theta, RejectionInfo]:
    """Simulate from the prior and keep the draws nearest to the observation.

    Source: Pritchard et al. 1999 (Mol. Biol. Evol. 16, 1791); reviewed by Sisson, Fan & Beaumont,
    arXiv:1802.09720. Simulations are those of `jaxsbi.simulate` for the same key. With `keep` all
    of it is one compiled program, which also runs under `jax.jit` and `jax.vmap`, and is used
    again for other keys, observations and prior values.

    Args:
        key: A typed key; the same key gives the same draws for every chunk size.
        prior: The prior over named parameters.
        simulator: `simulator(key, theta) -> x` for one parameter set; pure JAX code.
        x_observed: One data set, as the simulator returns it.
        num_simulations: The number of simulations.
        keep: Keep this many draws.
        epsilon: Or keep all draws at most this far away. Exactly one of the two is needed.
        distance: `distance(x, x_observed) -> scalar`; by default the Euclidean distance, each
            number scaled by its median absolute deviation in the first 1,000 simulations.
        summary: `summary(x)`, compared in the place of `x`.
        chunk_size: Simulations at once; chosen from the size of `x` if not given.

    Returns:
        Named draws, each of shape `(kept, *shape)`, nearest first; and a report.

    Raises:
        TypeError: If the key is not typed, the observation has another structure than the
            simulator's data, or the distance or summary is no function.
        ValueError: If not exactly one of `keep` and `epsilon` is given, `keep` exceeds the number
            of (finite) simulations, no simulation is within `epsilon`, or a distance is not a
            scalar, or negative.
    """
    x_observed, shape = check_problem(key, prior, simulator, x_observed)
    check_measure(distance, summary, shape)
    n = positive("num_simulations", num_simulations)
    _check_choice(keep, epsilon, n)
    size = chosen_chunk(shape, n, chunk_size)
    measure_by = fixed(distance), fixed(summary)
    if keep is None:
        assert epsilon is not None
        draws, info = _within(
            key, prior, simulator, x_observed, n, float(epsilon), measure_by, size
        )
    else:
        draws, info = _keep(
            simulator, prior, *measure_by, key, x_observed, n=n, keep=int(keep), size=size
        )
    if is_concrete(info):
        check_kept(info, "rejection")
        info.warn()
    return {name: draws[name] for name in prior.names}, info  # a jitted dict comes back sorted


def _check_choice(keep: Any, epsilon: Any, n: int) -> None:
    if (keep is None) == (epsilon is None):
        raise ValueError(
            "rejection: expected exactly one of keep (a number of draws) and epsilon (a distance), "
            f"got keep={keep!r} and epsilon={epsilon!r}."
        )
    if keep is not None and positive("keep", keep) > n:
        raise ValueError(
            f"keep: expected at most num_simulations={n}, got {keep}. Simulate more: the fraction "
            "kept should be small."
        )
    if epsilon is not None and not (is_number(epsilon) and 0.0 <= float(epsilon) < math.inf):
        raise ValueError(
            f"epsilon: expected a finite distance >= 0, got {epsilon!r}. Under jit and vmap "
            "pass keep."
        )


def check_kept(info: Any, who: str) -> None:
    """Raise a ValueError if there were not enough finite simulations, or distances are negative."""
    keep = info.distances.shape[0]
    found = int(jnp.sum(jnp.isfinite(info.distances)))
    if found < keep:
        raise ValueError(
            f"{who}: expected at least {keep} simulations at a finite distance, got {found} of "
            f"{int(info.num_simulations)} ({int(info.num_nonfinite)} are NaN or infinite). Look at "
            "simulator(key, prior.sample(key)) outside jit, simulate more or keep fewer."
        )
    smallest, largest = float(info.distances[0]), float(info.distances[-1])
    # Rounding may put a squared distance a little below 0.
    if smallest < -ROUNDING * largest:
        raise ValueError(
            "distance: expected numbers >= 0, and 0 where data sets are alike, got "
            f"{smallest:.4g}. The smallest are kept: take jnp.abs of a difference, and turn a "
            "similarity round."
        )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("n", "keep", "size"))
def _keep(
    simulator: Simulator,
    prior: Prior,
    distance: Distance | None,
    summary: Summary | None,
    key: Key,
    x_observed: Data,
    *,
    n: int,
    keep: int,
    size: int,
) -> tuple[Theta, RejectionInfo]:
    keys = jax.random.split(key, n)
    kept, distance = nearest_of_prior(
        simulator, prior, distance, summary, keys, x_observed, keep, size
    )
    theta, x = kept.draw
    return theta, RejectionInfo(
        jnp.array(keep / n),
        kept.distance[-1],
        jnp.array(n),
        kept.num_nonfinite,
        kept.distance,
        x,
        distance,
        isolation(distance, summary, x, kept.distance),
    )


def _within(
    key: Key,
    prior: Prior,
    simulator: Simulator,
    x_observed: Data,
    n: int,
    epsilon: float,
    measure_by: tuple[Any, Any],
    size: int,
) -> tuple[Theta, RejectionInfo]:
    """Keep all draws within a tolerance; how many is known only afterwards, so on the host."""
    distance, summary = measure_by
    keys = jax.random.split(key, n)
    parts, nearest, failed, start = [], math.inf, 0, 0
    while start < n:
        # The first simulations scale a default distance: as many as with `keep`.
        pilot = distance is None
        width = pilot_size(x_observed, n) if pilot else size
        stop = min(n, start + width)
        index = np.minimum(np.arange(start, start + width), n - 1)  # padded: one shape
        theta, x, valid = _simulate_chunk(simulator, prior, keys[index])
        if pilot:
            distance = _fit(summary, x, valid)
        far = np.asarray(_measured(distance, summary, x, valid, x_observed))[: stop - start]
        chosen = np.flatnonzero(far <= epsilon)
        parts.append(jax.tree.map(lambda a, i=chosen: np.asarray(a)[i], ((theta, x), far)))
        failed += int(np.isnan(far).sum())
        nearest = min([nearest, *far[np.isfinite(far)]])
        start = stop
    (theta, x), far = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    if not far.size:
        raise ValueError(
            f"rejection: expected simulations within epsilon={epsilon:g} of the observation, got "
            f"none of {n} ({failed} not finite): the smallest distance is {nearest:.4g}. Raise "
            "epsilon above it, simulate more, keep the nearest with keep=, or use jaxsbi.abc.smc."
        )
    order = np.argsort(far, kind="stable")
    theta, x, far = jax.tree.map(lambda a: jnp.asarray(a[order]), (theta, x, far))
    return theta, RejectionInfo(
        jnp.array(far.size / n), far[-1], jnp.array(n), jnp.array(failed), far, x,
        distance, _isolation_of(distance, summary, x, far),
    )  # fmt: skip


def _isolation_of(distance: Distance, summary: Summary | None, x: Data, far: Array) -> Array:
    """Return the isolation where any number of draws may be kept."""
    if far.size < FEW:
        return jnp.array(jnp.nan)
    # Padded to a power of two: a program for every number of draws would be compiled each time.
    index = np.arange(1 << (far.size - 1).bit_length())
    row = np.minimum(index, far.size - 1)
    padded = jnp.where(index < far.size, far[row], jnp.inf)
    return _isolation(distance, summary, jax.tree.map(lambda a: a[row], x), padded)


_fit = jax.jit(default_distance)
_isolation = jax.jit(isolation)


@jax.jit
def _measured(
    distance: Distance, summary: Summary | None, x: Data, valid: Array, x_observed: Data
) -> Array:
    observed = summarize(summary, x_observed)
    return jax.vmap(lambda x, valid: measure(distance, summary, x, observed, valid))(x, valid)
