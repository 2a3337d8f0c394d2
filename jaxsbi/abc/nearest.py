"""The nearest simulations: drawn in chunks inside one program that keeps only the best so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.abc.distances import Distance, Summary, scaled_euclidean
from jaxsbi.base import (
    Array,
    Data,
    DataSpec,
    Key,
    Simulator,
    Theta,
    check_key,
    is_concrete,
    positive,
)
from jaxsbi.priors import Prior
from jaxsbi.simulate import CHUNK_BYTES, draw, simulator_shape

MAX_CHUNK = 8_192
"""Simulations at once: a chunk that stays in the processor's cache is the fastest."""
PILOT = 1_000
"""The first simulations, from which the scales of the default distance are estimated (to 4 %)."""
NEIGHBOURS = 100
"""The nearest simulations whose own neighbours say how dense simulations are about the data."""
FEW = 20
"""With fewer kept draws than this nothing is said of an observation outside the simulations."""


class Nearest(NamedTuple):
    """The simulations with the smallest distances so far, in their order.

    Attributes:
        distance: Shape `(keep,)`; infinity where there is none yet.
        draw: A pytree of what was drawn, every leaf with a leading axis `keep`.
        num_nonfinite: How many simulations were not finite, or had no distance.
    """

    distance: Array
    draw: Any
    num_nonfinite: Array


def none_yet(like: Any, keep: int) -> Nearest:
    """Return a collection without draws; `like` is one draw, or its shapes."""
    empty = jax.tree.map(lambda a: jnp.zeros((keep, *a.shape), a.dtype), like)
    return Nearest(jnp.full(keep, jnp.inf), empty, jnp.zeros((), jnp.int32))


def add(kept: Nearest, new: Any, distance: Array, real: Array | bool = True) -> Nearest:
    """Return the nearest of the kept draws and `new` ones; NaN distances are counted, never kept.

    Ties go to the earlier simulation, so chunks of any size give the same result.
    """
    known = jnp.isfinite(distance)
    missed = jnp.sum(jnp.isnan(distance) & real, dtype=jnp.int32)
    distance = jnp.where(known & real, distance, jnp.inf).astype(kept.distance.dtype)
    both = jnp.concatenate([kept.distance, distance])
    negative, index = jax.lax.top_k(-both, kept.distance.size)
    # Two gathers instead of one from a concatenated array: draws can be large, and chunks larger.
    old = index < kept.distance.size
    first = jnp.where(old, index, 0)
    second = jnp.where(old, 0, index - kept.distance.size)

    def pick(a: Array, b: Array) -> Array:
        choose = old.reshape(-1, *([1] * (a.ndim - 1)))
        return jnp.where(choose, a[first], b[second].astype(a.dtype))

    return Nearest(-negative, jax.tree.map(pick, kept.draw, new), kept.num_nonfinite + missed)


def scan(one: Callable[[Any], tuple[Any, Array]], inputs: Any, kept: Nearest, size: int) -> Nearest:
    """Add `one(input) -> (draw, distance)` of every input, `size` of them at a time."""
    n = len(jax.tree.leaves(inputs)[0])
    if n == 0:
        return kept
    index, real = _chunks(n, size)

    def step(kept: Nearest, chunk: tuple[Any, Array]) -> tuple[Nearest, None]:
        inputs, real = chunk
        new, distance = jax.vmap(one)(inputs)
        return add(kept, new, distance, real), None

    return jax.lax.scan(step, kept, (jax.tree.map(lambda a: a[index], inputs), real))[0]


def _chunks(n: int, size: int) -> tuple[Array, Array]:
    """Return indices of equal chunks, at most `size` long, and which of them are no padding."""
    count = -(-n // size)
    size = -(-n // count)
    index = np.arange(count * size, dtype=np.int32).reshape(count, size)
    return jnp.asarray(np.minimum(index, n - 1)), jnp.asarray(index < n)


def stack(one: Callable[[Any], Any], inputs: Any, size: int) -> Any:
    """Return `one(input)` of every input, `size` of them at a time."""
    n = len(jax.tree.leaves(inputs)[0])
    index, _ = _chunks(n, size)
    out = jax.lax.map(jax.vmap(one), jax.tree.map(lambda a: a[index], inputs))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], out)


def summarize(summary: Summary | None, x: Data) -> Any:
    """Return what distances compare of one data set."""
    return x if summary is None else summary(x)


def measure(
    distance: Distance, summary: Summary | None, x: Data, observed: Any, valid: Array
) -> Array:
    """Return the distance of one simulation from the observation's summary, NaN if not `valid`."""
    return jnp.where(valid, distance(summarize(summary, x), observed), jnp.nan)


def nearest_of_prior(
    simulator: Simulator,
    prior: Prior,
    distance: Distance | None,
    summary: Summary | None,
    keys: Array,
    x_observed: Data,
    keep: int,
    size: int,
) -> tuple[Nearest, Distance]:
    """Return the `keep` simulations nearest to the data, and the distance used.

    Simulation i is made with key i. A default distance is scaled by the first of them, which are
    not made twice.
    """
    observed = summarize(summary, x_observed)
    theta, x, _ = jax.eval_shape(lambda key: draw(simulator, prior, key), jax.random.key(0))
    kept, start = none_yet((theta, x), keep), 0
    if distance is None:
        start = pilot_size(x, len(keys))
        theta, x, valid = stack(lambda key: draw(simulator, prior, key), keys[:start], size)
        distance = default_distance(summary, x, valid)
        new = jax.vmap(lambda x, valid: measure(distance, summary, x, observed, valid))(x, valid)
        kept = add(kept, (theta, x), new)

    def one(key: Key) -> tuple[tuple[Theta, Data], Array]:
        theta, x, valid = draw(simulator, prior, key)
        return (theta, x), measure(distance, summary, x, observed, valid)

    return scan(one, keys[start:], kept, size), distance


def default_distance(summary: Summary | None, x: Data, valid: Array) -> Distance:
    """Return the Euclidean distance scaled by simulations `(n, ...)`."""
    numbers = jax.vmap(lambda x: summarize(summary, x))(x)

    def known(a: Array) -> Array:
        a = a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float)
        return jnp.where(valid.reshape(-1, *([1] * (a.ndim - 1))), a, jnp.nan)

    return scaled_euclidean(jax.tree.map(known, numbers))


def isolation(distance: Distance, summary: Summary | None, kept_x: Data, distances: Array) -> Array:
    """Return the observation's distance from the nearest simulation, in units of its neighbours'.

    One unit is the largest distance that one of the `NEIGHBOURS` nearest simulations has from its
    own nearest one among those kept. An observation like the simulated ones is of their kind, and
    exceeds 1 less often than once in `NEIGHBOURS`. NaN if fewer than `FEW` draws are kept. Rows at
    an infinite distance are none.
    """
    keep = distances.size
    if keep < FEW:
        return jnp.array(jnp.nan)
    rows = jax.vmap(lambda x: summarize(summary, x))(kept_x)
    real = jnp.isfinite(distances)

    def closest(i: Array) -> Array:
        one = jax.tree.map(lambda a: a[i], rows)
        others = jax.vmap(lambda other: distance(other, one))(rows)
        found = jnp.min(jnp.where((jnp.arange(keep) == i) | ~real, jnp.inf, others))
        return jnp.where(real[i], found, 0.0)

    unit = jnp.max(jax.lax.map(closest, jnp.arange(min(keep, NEIGHBOURS))))
    gap = distances[0]
    return jnp.where(
        unit > 0, gap / jnp.where(unit > 0, unit, 1.0), jnp.where(gap > 0, jnp.inf, 0.0)
    )


def pilot_size(shape: Data, n: int) -> int:
    """Return how many simulations the default distance is scaled by; at most `CHUNK_BYTES`."""
    return int(min(n, PILOT, max(100, CHUNK_BYTES // _bytes(shape))))


def chosen_chunk(shape: Data, n: int, asked: int | None) -> int:
    """Return how many simulations to make at once.

    Raises:
        ValueError: If a chunk size is given that is not a positive integer.
    """
    if asked is None:
        return int(min(n, MAX_CHUNK, max(1, CHUNK_BYTES // _bytes(shape))))
    return positive("chunk_size", asked)


def _bytes(shape: Data) -> int:
    leaves = jax.tree.leaves(shape)
    return max(1, sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in leaves))


def is_number(value: Any) -> bool:
    """Whether this is one real number that may be looked at."""
    if not is_concrete(value):
        return False
    value = np.asarray(value)
    real = any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer))
    return value.shape == () and real


def check_measure(distance: Any, summary: Any, shape: Data) -> None:
    """Raise an error unless a distance is None, or a function that returns one real number.

    Raises:
        TypeError: If the distance or the summary is no function, or the distance is not real.
        ValueError: If the distance is not a scalar.
    """
    for name, function in (("distance", distance), ("summary", summary)):
        if function is not None and not callable(function):
            raise TypeError(
                f"{name}: expected a function or None, got {function!r}. Pass a function of data "
                "sets in JAX, or one of jaxsbi.abc's."
            )
    if distance is None:
        return

    def itself(x: Data) -> Any:
        seen = summarize(summary, x)
        return distance(seen, seen)

    found = jax.eval_shape(itself, shape)
    if not isinstance(found, jax.ShapeDtypeStruct) or found.shape:
        got = DataSpec.of(found)
        raise ValueError(
            f"distance: expected one number of two data sets, got {got}. Reduce it to a scalar, "
            "for instance with jnp.linalg.norm."
        )
    if jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise TypeError(f"distance: expected a real number, got {found.dtype}. Take jnp.abs of it.")


def check_problem(
    key: Key, prior: Prior, simulator: Simulator, x_observed: Data
) -> tuple[Data, Data]:
    """Return the observation as the simulator's arrays, and the shapes of one simulation.

    Raises:
        TypeError: If the key is not typed, the simulator returns no pytree of arrays, or the
            observation has another structure or kind of number.
        ValueError: If the observation has another shape or is not finite.
    """
    check_key(key)
    shape = simulator_shape(prior, simulator)
    return DataSpec.of(shape).conform(x_observed), shape
