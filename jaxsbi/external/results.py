"""From what came back to arrays: all results are held against what most of the first ones were."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxsbi.base import Data
from jaxsbi.draws import Block, Record
from jaxsbi.external.worker import Outcome
from jaxsbi.missing import cleared

Template = Any
"""A pytree of `jax.ShapeDtypeStruct`: the structure of one data set as the simulator returns it."""


def template_of(x: Data) -> Template:
    """Return the structure, shapes and dtypes of one data set of NumPy arrays."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), x)


def describe(template: Template) -> str:
    """Return a template in one line."""

    def text(a: Any) -> str:
        return f"{a.dtype}{list(a.shape)}"

    if isinstance(template, jax.ShapeDtypeStruct):
        return text(template)
    leaves = jax.tree_util.tree_flatten_with_path(template)[0]
    return "{" + ", ".join(f"{jax.tree_util.keystr(p)}: {text(a)}" for p, a in leaves) + "}"


def same(a: Template, b: Template) -> bool:
    """Whether two templates are equal."""
    structures: list[Any] = [jax.tree.structure(a), jax.tree.structure(b)]
    return structures[0] == structures[1] and describe(a) == describe(b)


def common_template(outcomes: Sequence[Outcome]) -> Template | None:
    """Return the template that most valid results have (a lone NaN says nothing of the shape)."""
    valid = [o.x for o in outcomes if o.status == "ok" and not _trouble(cleared(o.x))]
    if not valid:
        return None
    keys = [(jax.tree.structure(x), describe(template_of(x))) for x in valid]
    (most, _), *_ = collections.Counter(keys).most_common(1)  # of several, the first
    return template_of(valid[keys.index(most)])


def assemble(
    theta: dict[str, np.ndarray],
    log_proposal: np.ndarray,
    outcomes: Sequence[Outcome],
    attempts: Sequence[int],
    template: Template | None,
) -> Block:
    """Return consecutive draws as arrays; x is NaN (0 where there is no NaN) where it is missing.

    A result that is not finite stays, with weight 0, as in `simulate`.
    """
    status, message, rows = [], [], []
    for outcome in outcomes:
        trouble, x = outcome.message, outcome.x
        if outcome.status == "ok":
            trouble, x = _check(x, template)
        status.append("invalid" if outcome.status == "ok" and trouble else outcome.status)
        message.append(trouble)
        rows.append(x)
    record = Record(
        np.array(status, "<U7"),
        np.array(attempts, np.int32),
        np.array([outcome.seconds for outcome in outcomes], np.float32),
        tuple(message),
    )
    stacked = None if template is None else _stack(rows, template)
    weight = (record.status == "ok").astype(np.float32)
    return Block(theta, log_proposal, stacked, weight, record)


def missing(template: Template, n: int) -> Data:
    """Return `n` rows of x that are not there."""
    return _stack([None] * n, template)


def _stack(rows: Sequence[Data | None], template: Template) -> Data:
    leaves, treedef = jax.tree.flatten(template)
    arrays = [np.full((len(rows), *a.shape), fill_value(a.dtype), a.dtype) for a in leaves]
    for i, row in enumerate(rows):
        if row is not None:
            for array, leaf in zip(arrays, jax.tree.leaves(row), strict=True):
                array[i] = leaf
    return jax.tree.unflatten(treedef, arrays)


def fill_value(dtype: Any) -> Any:
    """Return what stands for a number that is missing."""
    return np.dtype(dtype).type(np.nan if np.dtype(dtype).kind in "fc" else 0)


def _check(x: Data, template: Template | None) -> tuple[str, Data | None]:
    """Return what is wrong with a result, and the result if it fits into the arrays."""
    if template is None:  # no result at all is valid
        return _trouble(cleared(x)), None
    came = template_of(x)
    if not same(came, template):
        return f"expected {describe(template)} as in other draws, got {describe(came)}", None
    x = cleared(x)
    return _trouble(x), x


def _trouble(x: Data) -> str:
    """Return what is wrong with numbers, as JAX will hold them (without x64: in 32 bits)."""
    for path, a in jax.tree_util.tree_flatten_with_path(x)[0]:
        where, b = f"x{jax.tree_util.keystr(path)}", held(a)
        if a.dtype.kind in "iu" and not np.array_equal(a, b):
            return f"{where}: {a.dtype} does not fit {b.dtype}; set jax_enable_x64, or use floats"
        if not np.all(np.isfinite(b)):
            return f"{where}: {np.sum(~np.isfinite(b))} of {b.size} numbers are not finite"
    return ""


def held(a: np.ndarray) -> np.ndarray:
    """Return an array as JAX will hold it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return a.astype(jax.dtypes.canonicalize_dtype(a.dtype))


def failure(record: Record) -> str:
    """Return the message of an error for a record without success."""
    return (
        f"function: expected valid data, got none in {len(record)} draws: {record.counts}. The "
        f"first one: {record.message[0]}"
    )


Settle = Callable[[Template], Template]
"""Make a template everybody's, or return the one that already is."""
