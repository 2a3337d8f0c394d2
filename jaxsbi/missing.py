"""Which numbers of a data set are there: the one convention by which masks travel.

A dict's boolean entry "mask" (true where something is there) speaks of the arrays beside it whose
shape begins with the mask's: of members, `(n,)` beside `(n, features)`, or of single numbers,
`(n, features)`. What is masked is never looked at. Indices that join the parts of a graph,
"senders" and "receivers", are names and no quantities: they are never standardised.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.notice import is_concrete, warn

INDICES = ("senders", "receivers")
CONVERT = (
    'Pass {"values": a.filled(0), "mask": ~np.ma.getmaskarray(a)} in the place of a: here true is '
    "where something is there."
)


class Role(NamedTuple):
    """What an array of a data set is.

    Attributes:
        mask: Where it is there, with as many axes as the array; `None` for everywhere.
        verbatim: Whether it is a mask or an index, and no quantity.
    """

    mask: jax.Array | None
    verbatim: bool


def roles(x: Any) -> list[Role]:
    """Return the role of each array, in the pytree's order; also for a batch of data sets."""
    leaves = jax.tree_util.tree_flatten_with_path(x)[0]
    found = _masks(leaves)

    def role(path: Any, a: Any) -> Role:
        name, mask = _name(path), found.get(path[:-1]) if path else None
        index = name in INDICES and jnp.issubdtype(jnp.result_type(a), jnp.integer)
        if index or (name == "mask" and mask is not None):
            return Role(None, True)
        return Role(widen(mask, jnp.ndim(a)) if _speaks_of(mask, a) else None, False)

    return [role(path, a) for path, a in leaves]


def masks(x: Any) -> dict[str, Any]:
    """Return the masks of a data set, or of a batch, by the place of what they speak of."""
    leaves = jax.tree_util.tree_flatten_with_path(x)[0]
    return {
        jax.tree_util.keystr(place): mask
        for place, mask in _masks(leaves).items()
        if any(p[:-1] == place and _name(p) != "mask" and _speaks_of(mask, a) for p, a in leaves)
    }


def cleared(x: Any) -> Any:
    """Return a data set, or a batch of them, with zeros where nothing is there."""

    def one(a: Any, role: Role) -> Any:
        if role.mask is None:
            return a
        on_host = isinstance(a, np.ndarray) and isinstance(role.mask, np.ndarray)
        by: Any = np if on_host else jnp
        return by.where(role.mask, a, by.zeros_like(a))

    leaves, treedef = jax.tree.flatten(x)
    return jax.tree.unflatten(treedef, map(one, leaves, roles(x)))


def empty(x: Any) -> np.ndarray:
    """Return in which data sets of a batch there is nothing in any part, shape `(n,)`.

    With an array that is there without a mask there always is something.
    """
    given = masks(x)
    n = len(jax.tree.leaves(x)[0])
    if not given or any(r.mask is None and not r.verbatim for r in roles(x)):
        return np.zeros(n, bool)
    return np.asarray(~np.any([occupied(mask) for mask in given.values()], axis=0))


def occupied(mask: Any) -> np.ndarray:
    """Return in which data sets of a batch a mask is anywhere true, shape `(n,)`."""
    return np.asarray(np.any(np.asarray(mask).reshape(len(mask), -1), axis=1))


def observed(x: Any) -> Any:
    """Return an observation with zeros where nothing is there; warn if nothing at all is there."""
    if is_concrete(x) and masks(x) and empty(jax.tree.map(lambda a: np.asarray(a)[None], x))[0]:
        warn(
            "observation: nothing is there, for its masks are false everywhere. True means "
            "present; if it is not an empty data set, invert them."
        )
    return cleared(x)


def refuse_masked_arrays(where: str, x: Any, advice: str = CONVERT) -> None:
    """Raise a ValueError for NumPy's masked arrays: what is under their mask would be data."""
    for path, a in jax.tree_util.tree_flatten_with_path(x)[0]:
        if np.ma.is_masked(a):
            raise ValueError(
                f"{where}{jax.tree_util.keystr(path)}: expected an array without a mask of its "
                f"own, got a numpy.ma.MaskedArray, whose mask would be lost. {advice}"
            )


def widen(mask: Any, ndim: int) -> Any:
    """Return `mask` with axes of length 1 behind its own, `ndim` in all."""
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def _masks(leaves: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the boolean arrays named "mask", by the path of the dict that they are in."""
    return {
        path[:-1]: a if hasattr(a, "shape") else np.asarray(a)
        for path, a in leaves
        if _name(path) == "mask" and jnp.issubdtype(jnp.result_type(a), bool)
    }


def _name(path: Any) -> Any:
    return getattr(path[-1], "key", None) if path else None


def _speaks_of(mask: Any, a: Any) -> bool:
    return mask is not None and jnp.shape(a)[: mask.ndim] == mask.shape
