"""What networks read of masked data (`jaxsbi.missing`): members, and means over those there."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxsbi.base import Array, Data
from jaxsbi.missing import widen


class Members(NamedTuple):
    """A data set of members (of a set, a sequence, an image's pixels), some of them not there.

    Attributes:
        values: Shape `(*axes, features)`, 0 where masked.
        mask: Which members are there, shape `(*axes,)`; `None` for all.
        extra: Further arrays with the members' axes, 0 where masked.
    """

    values: Array
    mask: Array | None
    extra: dict[str, Array]


def members(name: str, x: Data, axes: str, *, extra: tuple[str, ...] = ()) -> Members:
    """Read an array, or a dict of "values" and "mask" (and of `extra` names).

    Where single numbers are missing, whether each is there becomes one more feature.

    Args:
        name: Of the network, for errors.
        x: One data set.
        axes: Names of the axes of "values", the features last, e.g. "members, features".
        extra: Names of further arrays that the dict may have.

    Raises:
        TypeError: If a mask is not boolean.
        ValueError: If `x` is ragged, has other names, or a shape is not the expected one.
    """
    shape = f"({axes})"
    if isinstance(x, list | tuple):
        raise ValueError(
            f"{name}: expected x of shape {shape}, got {type(x).__name__} of {len(x)}. "
            'Pad data of several sizes with jaxsbi.networks.pad, and pass {"values": …, "mask": …}.'
        )
    given = dict(x) if isinstance(x, dict) else {"values": x}
    values, mask = given.pop("values", None), given.pop("mask", None)
    got = getattr(values, "shape", type(x).__name__)
    if values is None or set(given) - set(extra):
        got = f"a dict of {sorted(x)}"
    if values is None or set(given) - set(extra) or jnp.ndim(values) != axes.count(",") + 1:
        optional = "".join(f', "{key}": …' for key in extra)
        raise ValueError(
            f"{name}: expected x of shape {shape}, got {got}. Pass one data set, without a batch "
            f'axis: an array, or a dict {{"values": array, "mask": booleans{optional}}}.'
        )
    if jnp.shape(values)[0] == 0:
        raise ValueError(f"{name}: expected room for one member at least, got x of shape {got}.")
    _check_like(name, given, jnp.shape(values)[:-1])
    if mask is None:
        return Members(jnp.asarray(values), None, given)
    _check_mask(name, mask, jnp.shape(values))
    zeroed = jnp.where(widen(mask, values.ndim), values, 0.0)
    if mask.ndim == values.ndim:
        zeroed = jnp.concatenate([zeroed, mask.astype(zeroed.dtype)], -1)
        mask = jnp.any(mask, -1)
    given = {key: jnp.where(widen(mask, jnp.ndim(a)), a, 0) for key, a in given.items()}
    return Members(zeroed, mask, given)


def _check_like(name: str, arrays: dict[str, Array], axes: tuple[int, ...]) -> None:
    for key, a in arrays.items():
        if jnp.shape(a)[:-1] != axes:
            raise ValueError(
                f'{name}: x["{key}"]: expected the members\' axes {axes} and one of features, got '
                f"shape {jnp.shape(a)}. Give it one with x[..., None]."
            )


def _check_mask(name: str, mask: Any, shape: tuple[int, ...]) -> None:
    if not (hasattr(mask, "dtype") and jnp.issubdtype(mask.dtype, bool)):
        raise TypeError(
            f'{name}: x["mask"]: expected booleans, true where something is there, got '
            f"{getattr(mask, 'dtype', type(mask).__name__)}. Convert it with mask.astype(bool)."
        )
    if mask.shape not in (shape, shape[:-1]):
        raise ValueError(
            f'{name}: x["mask"]: expected shape {shape[:-1]}, one per member, or {shape}, one per '
            f"number, got {mask.shape}."
        )


SMALLEST = 1e-2
"""A deviation among members that is as good as none, where values vary by 1 among all sets."""


def pool(h: Array, mask: Array | None) -> Array:
    """Return mean and maximum over the members, `(n, c)` to `(2 c,)`, or `(2 c + 1,)` masked.

    The mean alone cannot count extremes, the maximum alone cannot average. Neither knows how many
    members there are: with a mask, the last number is the logarithm of (their number + 1). With
    none at all, everything is 0.
    """
    if mask is None:
        return jnp.concatenate([_mean(h, None), jnp.max(h, 0)])
    count = jnp.sum(mask).astype(h.dtype)
    largest = jnp.max(jnp.where(widen(mask, h.ndim), h, jnp.finfo(h.dtype).min), 0)
    largest = jnp.where(count > 0, largest, 0.0)
    return jnp.concatenate([_mean(h, mask), largest, jnp.log1p(count)[None]])


def moments(values: Array, mask: Array | None) -> Array:
    """Return mean and log standard deviation over the members, `(n, c)` to `(2 c,)`.

    Of less than two members the deviation is nothing, and its logarithm that of `SMALLEST`.
    """
    centre = _mean(values, mask)
    variance = _mean((values - centre[None]) ** 2, mask)
    return jnp.concatenate([centre, 0.5 * jnp.log(variance + SMALLEST**2)])


def _mean(h: Array, mask: Array | None) -> Array:
    """Return the mean over the members that are there, 0 where none is."""
    if mask is None:
        return jnp.mean(h, 0)
    count = jnp.sum(mask).astype(h.dtype)
    return jnp.sum(jnp.where(widen(mask, h.ndim), h, 0.0), 0) / jnp.maximum(count, 1.0)
