"""Statistics of the training data: what standardises a data set before a network reads it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Variables
from jaxsbi.methods.scores import fit_scores, tame
from jaxsbi.networks import flatten

MAX_NUMBERS = 512
"""With more numbers in a data set none is looked at on its own: so much data want a summary."""


def init_context(key: Key, summary: nn.Module | None, x: Data) -> tuple[Any, Any, Array]:
    """Return the statistics of the training data, a summary's parameters, and a first context.

    Args:
        key: A typed key.
        summary: A Flax module from one data set to a vector, or `None` for all its numbers. One
            without parameters is a fixed function, whose results are standardised in their turn.
        x: Training data, every leaf of shape `(n, *shape)`.
    """
    stats: dict[str, Any] = statistics(x, pooled=summary is not None)
    params, _ = init_summary(key, summary, standardize(stats, first(x)))
    if not params:
        rows = jax.vmap(lambda x: summarize(summary, {}, standardize(stats, x)))(x)
        if rows.shape[1] <= MAX_NUMBERS:
            moments = statistics(rows)
            standard = jax.vmap(lambda row: standardize(moments, row))(rows)
            stats = {**stats, "numbers": {**moments, **fit_scores(standard)}}
    return stats, params, read_context(summary, stats, params, first(x))


def read_context(summary: nn.Module | None, stats: Any, params: Any, x: Data) -> Array:
    """Return what a density, a field or a classifier sees of one data set: a vector."""
    context = summarize(summary, params, standardize(stats, x))
    numbers = stats.get("numbers")
    return context if numbers is None else tame(numbers, standardize(numbers, context))


def statistics(x: Data, *, pooled: bool = False) -> dict[str, Data]:
    """Return the mean and the scale of each number over the leading axis.

    Args:
        x: Training data, every leaf of shape `(n, *shape)`.
        pooled: Share the statistics over all axes but the last (features), so that a set or an
            image is scaled without telling its members apart.

    Returns:
        `{"mean": …, "scale": …}`, pytrees like one data set; a number that never changes has
        scale 1.
    """

    def moments(a: Array) -> tuple[Array, Array]:
        a = as_float(a)
        axes = tuple(range(a.ndim - 1)) if pooled and a.ndim > 2 else (0,)
        # Pooled axes stay, with length 1, so that the statistics have a data set's rank.
        mean = jnp.mean(a, axes, keepdims=True)
        # Centred first: the usual one-pass formula loses everything in float32.
        scale = jnp.sqrt(jnp.mean((a - mean) ** 2, axes, keepdims=True))
        scale = jnp.where(scale > 1e-6 * (1.0 + jnp.abs(mean)), scale, 1.0)
        return mean[0], scale[0]

    treedef: Any
    leaves, treedef = jax.tree.flatten(x)
    means, scales = zip(*map(moments, leaves), strict=True)
    return {"mean": treedef.unflatten(means), "scale": treedef.unflatten(scales)}


def standardize(statistics: dict[str, Data], x: Data) -> Data:
    """Return one data set with zero mean and unit scale, as floats."""
    return jax.tree.map(
        lambda a, m, s: (as_float(a) - m) / s, x, statistics["mean"], statistics["scale"]
    )


def as_float(a: Array) -> Array:
    """Return floating-point numbers (integers and booleans are converted)."""
    return a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float)


def init_summary(key: Key, summary: nn.Module | None, x: Data) -> tuple[Variables, Array]:
    """Initialise a summary network on one standardised data set; also return its output.

    Raises:
        ValueError: If the network does not return one vector.
    """
    if summary is None:
        return {}, flatten(x)
    out, params = summary.init_with_output(key, x)
    if getattr(out, "ndim", None) != 1:
        raise ValueError(
            f"summary {type(summary).__name__}: expected one vector per data set, got "
            f"{getattr(out, 'shape', type(out).__name__)}. It is called on one data set, "
            "without a batch axis."
        )
    return params.get("params", {}), out


def summarize(summary: nn.Module | None, params: Any, x: Data) -> Array:
    """Return the summary (a vector) of one standardised data set."""
    return flatten(x) if summary is None else summary.apply({"params": params}, x)


def first(tree: Any) -> Any:
    """Return the first row of every leaf."""
    return jax.tree.map(lambda a: a[0], tree)
