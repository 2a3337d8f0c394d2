"""Statistics of the training data: what standardises a data set before a network reads it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Variables, varies
from jaxsbi.methods.scores import fit_scores, tame
from jaxsbi.missing import Role, roles
from jaxsbi.networks import flatten
from jaxsbi.networks.seeding import initialize

MAX_NUMBERS = 512
"""With more numbers in a data set none is looked at on its own: so much data want a summary."""

SEEN = 2048
"""Data sets that a network sees at its start: enough for a basis, and quickly decomposed."""


def init_context(key: Key, summary: nn.Module | None, x: Data) -> tuple[Any, Any, Array]:
    """Return the statistics of the training data, a summary's parameters, and a first context.

    Args:
        key: A typed key.
        summary: A Flax module from one data set to a vector, or `None` for all its numbers. One
            without parameters is a fixed function, whose results are standardised in their turn.
        x: Training data, every leaf of shape `(n, *shape)`.
    """
    stats: dict[str, Any] = statistics(x, pooled=summary is not None)
    some = jax.tree.map(lambda a: a[:SEEN], x)
    params, kept = init_summary(key, summary, jax.vmap(lambda x: standardize(stats, x))(some))
    stats = {**stats, "summary": kept} if kept else stats
    if not params:
        rows = jax.vmap(lambda x: summarize(summary, stats, {}, standardize(stats, x)))(x)
        if rows.shape[1] <= MAX_NUMBERS:
            moments = statistics(rows)
            standard = jax.vmap(lambda row: standardize(moments, row))(rows)
            stats = {**stats, "numbers": {**moments, **fit_scores(standard)}}
    return stats, params, read_context(summary, stats, params, first(x))


def read_context(summary: nn.Module | None, stats: Any, params: Any, x: Data) -> Array:
    """Return what a density, a field or a classifier sees of one data set: a vector."""
    context = summarize(summary, stats, params, standardize(stats, x))
    numbers = stats.get("numbers")
    return context if numbers is None else tame(numbers, standardize(numbers, context))


def statistics(x: Data, *, pooled: bool = False) -> dict[str, Data]:
    """Return the mean and the scale of each number over the leading axis.

    Args:
        x: Training data, every leaf of shape `(n, *shape)`. What is masked
            (`jaxsbi.missing`) does not count.
        pooled: Share the statistics over all axes but the last (features), so that a set or an
            image is scaled without telling its members apart.

    Returns:
        `{"mean": …, "scale": …}`, pytrees like one data set; a number that never changes, a mask
        and an index have mean 0 or scale 1.
    """

    def moments(a: Array, role: Role) -> tuple[Array, Array]:
        if role.verbatim:
            one = jnp.ones((1,) * (jnp.ndim(a) - 1))
            return 0.0 * one, one
        a = as_float(a)
        axes = tuple(range(a.ndim - 1)) if pooled and a.ndim > 2 else (0,)
        unit = unit_of(a if role.mask is None else jnp.where(role.mask, a, 0.0), axes)
        a = a / unit
        # Pooled axes stay, with length 1, so that the statistics have a data set's rank.
        mean = average(a, axes, role.mask)
        # Centred first: the usual one-pass formula loses everything in float32.
        scale = jnp.sqrt(average((a - mean) ** 2, axes, role.mask))
        scale = jnp.where(varies(scale, mean), unit * scale, 1.0)
        return (unit * mean)[0], scale[0]

    treedef: Any
    leaves, treedef = jax.tree.flatten(x)
    means, scales = zip(*map(moments, leaves, roles(x)), strict=True)
    return {"mean": treedef.unflatten(means), "scale": treedef.unflatten(scales)}


def unit_of(a: Array, axes: tuple[int, ...]) -> Array:
    """Return powers of two near the largest numbers: their squares neither overflow nor vanish."""
    largest = jnp.max(jnp.abs(a), axes, keepdims=True)
    exponent = jnp.clip(jnp.frexp(largest)[1], -100, 100)
    return jnp.ldexp(jnp.ones_like(largest), exponent)


def average(a: Array, axes: tuple[int, ...], mask: Array | None) -> Array:
    """Return the mean over `axes`, which stay, of what is there; 0 where nothing is."""
    if mask is None:
        return jnp.mean(a, axes, keepdims=True)
    count = jnp.sum(mask, axes, keepdims=True).astype(a.dtype)
    return jnp.sum(jnp.where(mask, a, 0.0), axes, keepdims=True) / jnp.maximum(count, 1.0)


def standardize(statistics: dict[str, Data], x: Data) -> Data:
    """Return one data set with zero mean and unit scale, as floats.

    What is masked (`jaxsbi.missing`) becomes 0; masks and indices stay as they are.
    """

    def one(a: Array, role: Role, mean: Array, scale: Array) -> Array:
        if role.verbatim:
            return a
        standard = (as_float(a) - mean) / scale
        return standard if role.mask is None else jnp.where(role.mask, standard, 0.0)

    treedef: Any
    leaves, treedef = jax.tree.flatten(x)
    means, scales = (treedef.flatten_up_to(statistics[name]) for name in ("mean", "scale"))
    return treedef.unflatten(map(one, leaves, roles(x), means, scales))


def as_float(a: Array) -> Array:
    """Return floating-point numbers: integers, booleans and half precision are converted.

    Raises:
        TypeError: If they are complex.
    """
    if jnp.issubdtype(a.dtype, jnp.complexfloating):
        raise TypeError(
            f"x: expected real numbers, got {a.dtype}{list(a.shape)}. Pass real and imaginary "
            "parts as two arrays."
        )
    if a.dtype in (jnp.float16, jnp.bfloat16):
        return a.astype(jnp.float32)
    return a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float)


def init_summary(key: Key, summary: nn.Module | None, x: Data) -> tuple[Variables, Variables]:
    """Initialise a summary network on standardised training data.

    Returns:
        What is trained, and the collections that are not: what a network keeps of the data.

    Raises:
        ValueError: If the network does not return one vector.
    """
    if summary is None:
        return {}, {}
    out, variables = initialize(key, summary, x)
    if getattr(out, "ndim", None) != 1:
        raise ValueError(
            f"summary {type(summary).__name__}: expected one vector per data set, got "
            f"{getattr(out, 'shape', type(out).__name__)}. It is called on one data set, "
            "without a batch axis."
        )
    return variables.pop("params", {}), variables


def summarize(summary: nn.Module | None, stats: Any, params: Any, x: Data) -> Array:
    """Return the summary (a vector) of one standardised data set."""
    if summary is None:
        return flatten(x)
    return summary.apply({"params": params, **stats.get("summary", {})}, x)


def first(tree: Any) -> Any:
    """Return the first row of every leaf."""
    return jax.tree.map(lambda a: a[0], tree)
