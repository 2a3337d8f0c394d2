"""Distortion tests: which of several suspected errors does the observation look like?

Asks, for each of a family of distortions (a shifted number, an outlier, other noise), whether the
observation looks more like a distorted simulation than simulations do. A classifier of distorted
and undistorted data learns t_i(x) = log p_i(x) / p_0(x), and t_i of the observation is ranked among
fresh simulations; one p-value for the whole family comes from the smallest of them, ranked likewise
since they are correlated.

Cannot see: errors unlike every distortion in the family, those that the parameters absorb, and what
a small network does not learn (many numbers of which each says little: distort a summary instead).

When it fails: the distortion with the smallest p-value says where to look. Model it (as noise with
parameters of its own), or leave the numbers concerned out.

Source: Anau Montel, Alvey & Weniger 2024, arXiv:2412.15100.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, DataSpec, Key, Simulations, check_key
from jaxsbi.diagnostics.classifiers import logit, train
from jaxsbi.diagnostics.uniformity import failing
from jaxsbi.methods.features import init_context, read_context

Distortion = Callable[[Key, Data, Any], Data]


class Distortions(NamedTuple):
    """Distortion tests of one observation.

    Attributes:
        log_ratio: Learned log p_i(x) / p_0(x) at the observation, shape `(k,)`.
        null: The same at fresh simulations, shape `(n, k)`.
        local: p-value of each distortion by itself, shape `(k,)`: the share of simulations that
            look at least as distorted.
        p_value: Of the smallest of them, among the smallest of each simulation.
    """

    log_ratio: np.ndarray
    null: np.ndarray
    local: np.ndarray
    p_value: float

    @property
    def verdict(self) -> str:
        """One line: does the observation look distorted, and how?"""
        passed = self.p_value > failing(len(self.null))
        worst = int(np.argmin(self.local))
        return (
            f"distortions: {'passes' if passed else 'FAILS'} (p = {self.p_value:.2g} for all "
            f"{self.local.size}; distortion {worst} by itself {self.local[worst]:.2g}); cannot "
            "see: errors unlike every distortion"
        )


def distortions(
    key: Key,
    simulations: Simulations,
    x_observed: Data,
    distortion: Distortion,
    parameters: Any,
) -> Distortions:
    """Ask which of several suspected errors the observation looks like (see this module).

    It cannot see errors unlike every distortion in the family. When it fails, `local` says which
    distortion to look at.

    Args:
        key: A typed key.
        simulations: From `jaxsbi.simulate`; half of them teach the classifiers, the observation is
            ranked among the others.
        x_observed: One data set.
        distortion: `distortion(key, x, parameter) -> x`, on one data set; it may be random.
        parameters: An array, or a pytree of arrays, with one entry on the leading axis for each
            distortion; all are learned side by side.

    Returns:
        Log-ratios and p-values, of each and of all.

    Raises:
        TypeError: If the key is not typed, or a data set has another structure.
        ValueError: If shapes differ, there are fewer than 200 finite simulations, or a distortion
            changes nothing or is not finite.
    """
    check_key(key)
    x = DataSpec.of(simulations.x, batched=True).conform(x_observed)
    rows = simulations[np.flatnonzero(np.asarray(simulations.weight) > 0)].x
    n, count = len(jax.tree.leaves(rows)[0]), _count(parameters)
    if n < 200:
        raise ValueError(f"simulations: expected at least 200 finite ones, got {n}. Simulate more.")
    key_order, key_distort, key_train = jax.random.split(key, 3)
    order = jax.random.permutation(key_order, n)
    half = n // 2
    learn, fresh = (jax.tree.map(lambda a, i=i: a[i], rows) for i in (order[:half], order[half:]))
    keys = jax.random.split(key_distort, (count, half))
    statistics, changed, intact = _distort(distortion, keys, learn, parameters)
    moved = np.asarray(jnp.any(changed != intact[None], (1, 2)))
    finite = np.asarray(jnp.all(jnp.isfinite(changed), (1, 2)))
    if not (moved & finite).all():
        raise ValueError(
            f"distortion: expected finite data that differ from x, got none for parameters number "
            f"{np.flatnonzero(~(moved & finite)).tolist()}. A change beyond six standard "
            "deviations or in a number that never varies may be invisible: use another size."
        )
    everything = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), x, fresh)
    score = np.asarray(_log_ratios(key_train, statistics, changed, intact, everything), float)
    local = np.stack([_share(column) for column in score.T], axis=1)
    together = _share(-local.min(1))
    return Distortions(score[0], score[1:], local[0], float(together[0]))


def _count(parameters: Any) -> int:
    lengths = {jnp.shape(a)[0] if jnp.ndim(a) else 0 for a in jax.tree.leaves(parameters)}
    if len(lengths) != 1 or not max(lengths):
        raise ValueError(
            "parameters: expected one entry per distortion on the leading axis of every array, "
            f"got lengths {sorted(lengths)}."
        )
    return int(lengths.pop())


def _share(values: np.ndarray) -> np.ndarray:
    """Return, for each value, the share of all that are at least as large, itself among them."""
    return (values.size - np.searchsorted(np.sort(values), values)) / values.size


@functools.partial(jax.jit, static_argnames="distortion")
def _distort(
    distortion: Distortion, keys: Array, x: Data, parameters: Any
) -> tuple[Any, Array, Array]:
    """Return what standardises x, the rows `(k, n, d)` of distorted data, and those as they are."""
    statistics, _, _ = init_context(jax.random.key(0), None, x)  # no network, nothing random
    read = jax.vmap(functools.partial(read_context, None, statistics, {}))
    each = jax.vmap(jax.vmap(distortion, (0, 0, None)), (0, None, 0))
    return statistics, jax.vmap(read)(each(keys, x, parameters)), read(x)


@jax.jit
def _log_ratios(key: Key, statistics: Any, changed: Array, intact: Array, x: Data) -> Array:
    """Train a classifier for each distortion; return its logits at all of `x`, `(n, k)`."""
    key_start, key_order = jax.random.split(key)
    starts = jax.random.split(key_start, len(changed))
    sign = jnp.ones(len(intact), intact.dtype)
    each = jax.vmap(train, (0, None, 0, None, None))
    params = each(starts, key_order, changed, intact, sign)
    rows = jax.vmap(functools.partial(read_context, None, statistics, {}))(x)
    return jax.vmap(jax.vmap(logit, (0, None)), (None, 0))(params, rows)
