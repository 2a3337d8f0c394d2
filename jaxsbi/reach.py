"""How far the simulations reach that something was trained on, and what lies beyond them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.missing import Role, roles
from jaxsbi.notice import warn
from jaxsbi.workarounds import register_dataclass

FAR = 2.0
"""How many times as far from the mean as the simulations an observed number may lie, at least; and
as many times what some that are held out do, which tell how far ordinary data lie beyond others:
far, where tails are heavy, numbers many or simulations few."""
HELD_OUT = 10
"""One in so many simulations, the last."""
EQUAL = 1e-5
"""Relative difference that rounding may make of numbers that never change."""
LOOKED_AT = 1_000
"""Simulations that tell whether floats are counts."""


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Reach:
    """The mean of each number of x over the simulations, and how far they are from it.

    Attributes:
        mean: Like one data set; of length 1 along the members of a set that share it.
        most: The largest distance from it of those that are not held out; infinite where none was
            measured (masks, indices).
        far: From how many times that distance on data are told of: a scalar.
    """

    mean: Any
    most: Any
    far: Any

    @classmethod
    def of(cls, x: Any, *, members: bool = False) -> Reach:
        """Measure data, every leaf of shape `(n, *shape)`; with `members`, sets of them together.

        What is masked (`jaxsbi.missing`) does not count; of complex numbers the amplitude does.
        """
        treedef: Any
        leaves, treedef = jax.tree.flatten(x)
        found = [_measured(a, role, members) for a, role in zip(leaves, roles(x), strict=True)]
        mean, most, ratio = zip(*found, strict=True)
        far = np.float32(FAR * max(1.0, *ratio))
        return cls(treedef.unflatten(mean), treedef.unflatten(most), far)

    def warn(self, x: Any, counts: Any = None) -> bool:
        """Warn of what `beyond` finds; return whether there was something."""
        told = self.beyond(x, counts)
        if told:
            warn(
                f"observation{told}: it lies outside of what was trained on. The simulator may "
                "not describe these data, and what was learned is an extrapolation there. Look at "
                "prior predictive draws, and at diagnostics.misspecification."
            )
        return bool(told)

    def beyond(self, x: Any, counts: Any = None) -> str:
        """Return which number of an observation is farthest beyond the simulations, and how far.

        Only numbers on their own are looked at: their combinations are the business of
        `diagnostics.misspecification`.

        Args:
            x: One data set, concrete, as `DataSpec.conform` returns it, or several along a leading
                axis.
            counts: Like it: which of its numbers were observed; all by default.

        Returns:
            Nothing if none is far.
        """
        leaves = jax.tree_util.tree_flatten_with_path(x)[0]
        measured = zip(jax.tree.leaves(self.mean), jax.tree.leaves(self.most), strict=True)
        observed = jax.tree.leaves(counts) if counts is not None else [True] * len(leaves)
        parts = zip(leaves, roles(x), measured, observed, strict=True)
        worst, told = float(self.far), ""
        for (path, a), role, (mean, most), there in parts:
            value, mean = np.asarray(_amplitude(a), float), np.asarray(mean, float)
            there = there if role.mask is None else np.logical_and(there, role.mask)
            away = np.where(there, np.abs(value - mean), 0.0)
            ratio = away / np.maximum(np.asarray(most, float), 1e-300)
            if not ratio.size or not ratio.max() > worst:
                continue
            place = np.unravel_index(np.argmax(ratio), ratio.shape)
            worst = float(ratio[place])
            name = jax.tree_util.keystr(path) + (f"[{', '.join(map(str, place))}]" if place else "")
            mean = np.broadcast_to(mean, away.shape)[place]
            told = f"{name}: {value[place]:.4g}, where simulations are {mean:.4g} on average and "
            told += f"at least {worst:.3g} times closer to it"
        return told


def _measured(a: Any, role: Role, members: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the mean and the largest distance from it, like one data set, in JAX's precision.

    And how many times farther than the others the last rows are, at most.
    """
    a = _amplitude(a)
    axes = (0, 1) if members and a.ndim > 1 else (0,)
    dtype = np.float64 if jnp.result_type(a) == jnp.float64 else np.float32
    exact = not jnp.issubdtype(a.dtype, jnp.inexact)
    if a.dtype == bool:
        a = a.view(np.uint8)
    elif not exact and a.dtype.itemsize < 4:
        a = a.astype(np.float32)
    if role.mask is not None:
        a = np.ma.MaskedArray(a, ~np.broadcast_to(np.asarray(role.mask), a.shape))
    cut = len(a) - max(1, len(a) // HELD_OUT)
    mean = a[:cut].mean(axes, dtype=float, keepdims=True)
    # Of bits and counts, also as floats, that are all 0 in so many simulations a 1 is ordinary.
    equal = EQUAL * np.abs(mean)
    least = np.where(_are_counts(a, exact, axes), 1.0, equal)
    most, last = (
        np.maximum(part.max(axes, keepdims=True) - mean, mean - part.min(axes, keepdims=True))
        for part in (a[:cut], a[cut:])
    )
    constant = np.ma.filled(most <= equal, False)
    most, last = (np.ma.filled(np.maximum(b, least), np.inf) for b in (most, last))
    if np.any(constant & (last > most) & (last < np.inf)):
        most = np.where(constant, np.inf, most)  # numbers that hardly ever change are ordinary, too
    known = np.isfinite(most) & np.isfinite(last) & ~constant
    ratio = float(np.max(last[known] / most[known], initial=0.0))
    mean = np.ma.filled(mean, 0.0)
    if role.verbatim:
        return np.zeros(mean.shape[1:], dtype), np.full(mean.shape[1:], np.inf, dtype), 0.0
    return mean[0].astype(dtype), most[0].astype(dtype), ratio


def _amplitude(a: Any) -> np.ndarray:
    a = np.asarray(a)
    return np.abs(a) if np.iscomplexobj(a) else a


def _are_counts(a: np.ndarray, exact: bool, axes: tuple[int, ...]) -> np.ndarray:
    """Return which numbers are whole in all simulations that are looked at, and no constants."""
    if exact:
        return np.array(True)
    some = a[:LOOKED_AT]
    whole = np.ma.filled(np.all(some == np.rint(some), axis=axes, keepdims=True), False)
    low, high = (np.ma.filled(f(axes, keepdims=True), 0.0) for f in (a.min, a.max))
    return whole & ((low < high) | (low == 0.0))
