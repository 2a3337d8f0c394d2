"""How an emulator learns its outputs: as they are, by logarithm, or by amplitude and phase.

A transform is a name for all arrays of a data set, or pairs (name of an array, name of its form).
Every form is one to one, and acts on one array of one data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data

Transform = str | tuple[tuple[str, str], ...]


class Form(NamedTuple):
    """How one array is learned.

    Attributes:
        forward: From the array to real numbers.
        inverse: And back.
        parts: How many arrays of its shape the real numbers are, along a new first axis; 0 for
            the array itself. Each part has principal components of its own.
        allowed: Whether each number of an array can be learned in this form.
        needs: What it needs, for the message.
    """

    forward: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    parts: int
    allowed: Callable[[np.ndarray], np.ndarray]
    needs: str


def _real(a: Array) -> Array:
    return a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float)


def _log(a: Array) -> Array:
    a = _real(a)
    return jnp.log(jnp.maximum(a, jnp.finfo(a.dtype).tiny))


def _split(h: Array) -> Array:
    """Return log-amplitude and phase, which has no jumps along the last axis: `(2, *shape)`."""
    phase = jnp.angle(h)
    if h.ndim:
        phase = jnp.unwrap(phase, axis=-1)
    return jnp.stack([_log(jnp.abs(h)), phase])


def _join(parts: Array) -> Array:
    return jnp.exp(parts[0]) * jax.lax.complex(jnp.cos(parts[1]), jnp.sin(parts[1]))


FORMS = {
    "none": Form(_real, lambda a: a, 0, lambda a: ~np.iscomplex(a), "real numbers"),
    "log": Form(_log, jnp.exp, 0, lambda a: a > 0, "positive numbers"),
    "amplitude_phase": Form(
        _split, _join, 2, lambda a: np.abs(a) > 0, "complex numbers other than 0"
    ),
}
"""Forms by name."""


def transform_of(given: str | Mapping[str, str] | Transform) -> Transform:
    """Return a transform as a configuration holds it.

    Raises:
        ValueError: If a name is not that of a form.
    """
    transform = given if isinstance(given, str) else tuple(sorted(dict(given).items()))
    names = [transform] if isinstance(transform, str) else [form for _, form in transform]
    if unknown := [name for name in names if name not in FORMS]:
        raise ValueError(f"transform: expected one of {list(FORMS)}, got {unknown[0]!r}.")
    return transform


def forward(transform: Transform, x: Data) -> Data:
    """Return one data set as it is learned, in `x`'s structure: real arrays.

    A complex array learned by amplitude and phase becomes an array `(2, *shape)`.
    """
    return _map(transform, lambda form, a: form.forward(a), x)


def inverse(transform: Transform, y: Data) -> Data:
    """Return the data set of what was learned."""
    return _map(transform, lambda form, a: form.inverse(a), y)


def blocks(transform: Transform, y: Data) -> list[np.ndarray]:
    """Return which of the numbers of `flatten(y)` share principal components.

    All arrays that are learned as they are, or by logarithm, do; amplitudes and phases have each
    their own, for their errors are of unlike kind.

    Args:
        transform: The transform.
        y: One data set as it is learned.
    """
    shared: list[np.ndarray] = []
    apart: list[np.ndarray] = []
    start = 0

    def add(form: Form, a: Array) -> None:
        nonlocal start
        index = np.arange(start, start + a.size)
        start += a.size
        if form.parts:
            apart.extend(np.split(index, form.parts))
        else:
            shared.append(index)

    _map(transform, add, y)
    return ([np.concatenate(shared)] if shared else []) + apart


def align(transform: Transform, y: Data, near: Data) -> Data:
    """Return what is learned with each array's phase moved by whole turns, to be near another.

    An unwrapped phase is known up to them.
    """

    def one(form: Form, a: Array, b: Array) -> Array:
        if form.parts != 2:
            return a
        turns = jnp.round(jnp.mean(a[1] - b[1], -1, keepdims=True) / (2 * jnp.pi))
        return a.at[1].add(-2 * jnp.pi * turns)

    return _map(transform, one, y, near)


def check(transform: Transform, x: Data) -> None:
    """Look at simulations (concrete, every leaf of shape `(n, *shape)`) before they are learned.

    Raises:
        ValueError: If a name is of no array, or numbers are none that a form can be of.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(x)
    names = {_name(path) for path, _ in paths}
    if not isinstance(transform, str) and (unknown := [n for n, _ in transform if n not in names]):
        raise ValueError(f"transform: expected names among {sorted(names)}, got {unknown}.")
    for path, a in paths:
        name, values = _form_name(transform, path), np.asarray(a)
        form = FORMS[name]
        complex_wanted = name == "amplitude_phase"
        if complex_wanted != np.iscomplexobj(values):
            raise ValueError(
                f"x{jax.tree_util.keystr(path)}: transform {name!r} is of "
                f"{'complex' if complex_wanted else 'real'} arrays, got {values.dtype}. "
                "Complex arrays are emulated by transform='amplitude_phase', or "
                "transform={name of the array: form}."
            )
        wrong = np.count_nonzero(~form.allowed(values))
        if wrong:
            raise ValueError(
                f"x{jax.tree_util.keystr(path)}: transform {name!r} needs {form.needs}, got "
                f"{wrong} others among {values.size}. Leave these outputs out of x, or choose "
                "another transform."
            )


def _map(transform: Transform, function: Callable[..., Any], *trees: Data) -> Data:
    """Apply `function(form, *leaves)` to each array."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(FORMS[_form_name(transform, path)], *leaves), *trees
    )


def _form_name(transform: Transform, path: Any) -> str:
    return transform if isinstance(transform, str) else dict(transform).get(_name(path), "none")


def _name(path: Any) -> str:
    """Return the outermost name of an array's place in a data set; "" for a bare array."""
    entry = path[0] if path else None
    named = (getattr(entry, kind) for kind in ("key", "name", "idx") if hasattr(entry, kind))
    return str(next(named, ""))
