"""Data of several kinds, told apart by their dtype: p(binary) p(integer | ·) p(continuous | ·)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key
from jaxsbi.densities.autoregressive import MaskedAutoregressive
from jaxsbi.densities.discrete import MaskedBernoulli, MaskedLogisticMixture


class Parts(NamedTuple):
    """One data set as three vectors, one per kind of number; any may be empty."""

    binary: Array
    integer: Array
    continuous: Array


def parts(x: Data) -> Parts:
    """Split one data set by dtype: bool, signed or unsigned integer, floating point.

    Raises:
        TypeError: If an array is of another kind (complex numbers).
    """
    leaves = [jnp.asarray(a) for a in jax.tree.leaves(x)]
    empty = (jnp.bool_, jnp.result_type(int), jnp.result_type(float))
    split: dict[Any, list[Array]] = {jnp.bool_: [], jnp.integer: [], jnp.floating: []}
    for a in leaves:
        kind = next((kind for kind in split if jnp.issubdtype(a.dtype, kind)), None)
        if kind is None:
            raise TypeError(
                f"x: expected bool, integer or float arrays, got {a.dtype}{list(a.shape)}. Pass "
                "real and imaginary parts as two arrays."
            )
        # One dtype for all integers: small ones would overflow where JAX promotes to them.
        a = a.astype(empty[1]) if kind is jnp.integer else a
        split[kind].append(jnp.ravel(a))
    return Parts(
        *(
            jnp.concatenate(chosen) if chosen else jnp.zeros(0, dtype)
            for chosen, dtype in zip(split.values(), empty, strict=True)
        )
    )


class Mixed(nn.Module):
    """One density per kind of number, each given the parameters and the kinds before it.

    Attributes:
        binary: The density of booleans.
        integer: The density of signed and unsigned integers.
        continuous: The density of floating-point numbers.
    """

    binary: nn.Module = MaskedBernoulli()
    integer: nn.Module = MaskedLogisticMixture()
    continuous: nn.Module = MaskedAutoregressive()

    @nn.nowrap  # they make modules, and are no part of one
    def sized(self, x: Parts) -> Mixed:
        """Return the same configuration for data of these sizes."""
        return Mixed(
            **{kind: getattr(self, kind).clone(dim=a.size) for kind, a in x._asdict().items()}
        )

    @nn.nowrap
    def measure(self, x: Parts, context: Array) -> dict[str, Any]:
        """Return what training data `(n, ·)` and contexts `(n, c)` tell: "statistics"."""
        kept: dict[str, Any] = {}
        for kind in ("binary", "integer"):
            density, rows = getattr(self, kind), getattr(x, kind)
            if rows.shape[1]:
                kept[kind] = measured = density.measure(rows, context)
                read = functools.partial(
                    density.read, spread=measured["spread"], dtype=context.dtype
                )
                context = jnp.concatenate([context, jax.vmap(read)(rows)], 1)
        return kept

    def log_prob(self, x: Parts, context: Array) -> Array:
        """Return the log-density (a scalar) of one data set, given a context `(c,)`."""
        total = jnp.zeros((), context.dtype)
        for kind, a in x._asdict().items():
            if a.size:
                density = getattr(self, kind)
                total = total + density.log_prob(a, context)
                context = _extend(density, kind, a, context)
        return total

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Parts, Array]:
        """Return one draw and its log-density."""
        total, drawn = jnp.zeros((), context.dtype), {}
        for kind, key_part in zip(Parts._fields, jax.random.split(key, 3), strict=True):
            density = getattr(self, kind)
            if not density.dim:
                drawn[kind] = getattr(parts(()), kind)
                continue
            drawn[kind], log_prob = density.sample_and_log_prob(key_part, context)
            total = total + log_prob
            context = _extend(density, kind, drawn[kind], context)
        return Parts(**drawn), total


def _extend(density: Any, kind: str, x: Array, context: Array) -> Array:
    """Return the context of the next kind of number."""
    if kind == "continuous":
        return context
    return jnp.concatenate([context, density.features(x, context.dtype)])
