"""Short strings that tell whether two processes were given the same: of values and of programs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

ADDRESS = re.compile(r"0x[0-9a-f]+")
PREFIX = "sha256:"
Put = Callable[[bytes | memoryview], None]


def digest(value: Any) -> str:
    """Return a checksum of a value: arrays, configurations, priors, and what is made of them.

    The same in every process. A function counts by its name only: what it does is not known (but
    see `program`).
    """
    found = hashlib.sha256()
    _feed(found.update, value)
    return PREFIX + found.hexdigest()


def program(function: Callable[..., Any], *args: Any) -> str:
    """Return a checksum of what a JAX function computes from arguments of these shapes."""
    closed = jax.make_jaxpr(function)(*args)
    return digest((ADDRESS.sub("", str(closed)), tuple(_constants(closed))))


def _feed(put: Put, value: Any) -> None:
    """Write down a value so that no other reads the same."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        _feed_array(put, value)
        return
    if isinstance(value, dist.Distribution):
        leaves, static = value.tree_flatten()
        # NumPyro lists both in an order that differs from process to process.
        parts: Any = {
            **dict(zip(type(value).gather_pytree_data_fields(), leaves, strict=True)),
            **dict(zip(type(value).gather_pytree_aux_fields(), static, strict=True)),
        }
    elif isinstance(value, constraints.Constraint | transforms.Transform):
        children, (names, rest) = value.tree_flatten()
        parts = dict(zip(names, children, strict=True)) | rest
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        # A Flax module's parent is where it stands, not what it is.
        fields = (f.name for f in dataclasses.fields(value) if f.name != "parent")
        parts = {name: getattr(value, name) for name in fields}
    elif isinstance(value, functools.partial):
        parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
    elif isinstance(value, Mapping | tuple | list):
        parts = value
    else:
        _feed_text(put, _text(value))
        return
    _feed_text(put, type(value).__qualname__)
    # A pytree's dicts are sorted, so that these are the same before and after a jit.
    pairs = sorted(parts.items(), key=_by_name) if isinstance(parts, Mapping) else parts
    put(f"{len(pairs)}(".encode())
    for part in pairs:
        if isinstance(parts, Mapping):
            _feed_text(put, repr(part[0]))
            part = part[1]
        _feed(put, part)
    put(b")")


def _by_name(pair: tuple[Any, Any]) -> str:
    """Sort by the names of a mapping, whatever they are."""
    return repr(pair[0])


def _feed_array(put: Put, array: Any) -> None:
    kind = "array"
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        kind, array = str(jax.random.key_impl(array)), jax.random.key_data(array)
    array = np.asarray(array)
    _feed_text(put, f"{kind} {array.dtype.name}{list(array.shape)}")
    put(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _feed_text(put: Put, text: str) -> None:
    data = text.encode()
    put(f"{len(data)}:".encode() + data)


def _text(value: Any) -> str:
    """Describe what has no parts: a number, a string, a class, a function."""
    if isinstance(value, frozenset | set):
        return repr(sorted(map(_text, value)))
    name = getattr(value, "__qualname__", None)
    return f"{type(value).__name__} {name or ADDRESS.sub('', repr(value))}"


def _constants(part: Any) -> Iterator[Any]:
    """Yield the arrays that a traced program, and every program within it, holds."""
    yield from getattr(part, "consts", ())
    for equation in getattr(part, "eqns", ()):
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                yield from _constants(inner)
