"""From values to JSON: what is written, and what cannot be.

Numbers, strings, `None`, tuples (as lists) and dicts are written as they are. Everything else is an
object with one key that begins with "$" and says how to read it; dicts have no such keys.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax.core import FrozenDict
from numpyro.distributions import constraints, transforms

from jaxsbi.disk import DTYPES, to_file
from jaxsbi.networks.activations import ACTIVATIONS
from jaxsbi.priors import Prior
from jaxsbi.saving.registry import is_nnx, is_record, registry

INLINE = 16
"""Arrays of so many numbers or fewer are written in the JSON, where they can be read; what was
learned is not, for nobody reads it."""


class Encoder:
    """Writes values as JSON, and collects the arrays that are too large for it.

    Attributes:
        arrays: Name to array, for the file of arrays.
        inline: Whether small arrays are written in the JSON.
    """

    def __init__(self, types: Iterable[type]) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.inline = True
        self._names = {cls: name for name, cls in registry(types).items()}

    def encode(self, value: Any, path: str) -> Any:
        """Return `value` as JSON; `path` names it in errors, and its arrays in their file.

        Raises:
            TypeError: If it holds something that cannot be rebuilt from a file.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, np.generic):
            return {"$scalar": self.encode(value.item(), path), "dtype": value.dtype.name}
        if isinstance(value, jax.Array | np.ndarray):
            return self._array(value, path)
        if isinstance(value, jax.ShapeDtypeStruct):
            return {"$spec": str(value.dtype), "shape": list(value.shape)}
        if type(value) is tuple:
            return [self.encode(v, f"{path}.{i}") for i, v in enumerate(value)]
        if type(value) is list:
            return {"$list": self.encode(tuple(value), path)}
        if type(value) is OrderedDict:  # NumPyro's, with keys of any kind
            return {"$ordered": self.encode(tuple(value.items()), path)}
        if isinstance(value, FrozenDict):  # Flax's, of a module's fields
            return {"$frozen": self._dict(dict(value), path)}
        if is_nnx(value):
            return {"$class": self._name(value, path)}
        if type(value) is dict:
            return self._dict(value, path)
        if isinstance(value, Prior):
            return self._prior(value, path)
        if isinstance(value, dist.Distribution):
            return self._distribution(value, path)
        if isinstance(value, constraints.Constraint | transforms.Transform):
            children, (names, static) = value.tree_flatten()
            parts = dict(zip(names, children, strict=True)) | static
            return {"$type": self._name(type(value), path), **self._dict(parts, path)}
        if is_record(type(value)):
            return {"$type": self._name(type(value), path), **self._dict(_fields(value), path)}
        for name, function in ACTIVATIONS.items():
            if function is value:
                return {"$activation": name}
        raise TypeError(_refusal(value, path))

    def _dict(self, value: dict[Any, Any], path: str) -> dict[str, Any]:
        for key in value:
            if type(key) is not str or key.startswith("$"):
                raise TypeError(
                    f"save: {path}: expected names that are strings and do not begin with '$', "
                    f"got {key!r}. Rename it."
                )
        return {key: self.encode(v, f"{path}.{key}") for key, v in value.items()}

    def _array(self, value: Any, path: str) -> dict[str, Any]:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            data = self.encode(jax.random.key_data(value), path)
            return {"$key": str(jax.random.key_impl(value)), "data": data}
        array = np.asarray(value)
        name = array.dtype.name
        if name not in DTYPES:
            raise TypeError(
                f"save: {path}: expected an array of {', '.join(DTYPES)}; got {name}. Convert it."
            )
        about = {"dtype": name, "shape": list(array.shape)}
        small = self.inline and array.size <= INLINE and array.dtype.kind in "biuf"
        if small and np.all(np.isfinite(array)):
            return {"$values": array.ravel().tolist(), **about}
        while path in self.arrays:  # names may hold dots: {"a.b": …} beside {"a": {"b": …}}
            path += "'"
        self.arrays[path] = to_file(array)
        return {"$array": path, **about}

    def _prior(self, prior: Prior, path: str) -> dict[str, Any]:
        if prior.model is not None:
            raise TypeError(
                f"save: {path}: expected a prior of named distributions, got one made from a "
                "Python function, which a file cannot hold. Only a posterior's own prior may be "
                "one: save the posterior before `with_prior`, and call it again after loading."
            )
        named = dict(zip(prior.names, prior.distributions, strict=True))
        return {
            "$type": "Prior",
            "distributions": self._dict(named, path),
            "routes": self._dict(prior.routes, path),
        }

    def _distribution(self, d: dist.Distribution, path: str) -> dict[str, Any]:
        name, (leaves, static) = self._name(type(d), path), d.tree_flatten()
        # NumPyro lists both in an order that differs from process to process.
        parameters = dict(sorted(zip(type(d).gather_pytree_data_fields(), leaves, strict=True)))
        rest = dict(sorted(zip(type(d).gather_pytree_aux_fields(), static, strict=True)))
        return {
            "$type": name,
            "parameters": self._dict(parameters, path),
            "static": self._dict(rest, path),
        }

    def _name(self, cls: type, path: str) -> str:
        if cls not in self._names:
            raise TypeError(
                f"save: {path}: expected a type of jaxsbi or NumPyro, got {cls.__name__}. Register "
                f"your own: jaxsbi.save(path, fitted, types=[{cls.__name__}]), beside the others "
                "that are yours, and the same for jaxsbi.load."
            )
        return self._names[cls]


def _fields(value: Any) -> dict[str, Any]:
    """Return what a dataclass or a NamedTuple is rebuilt from."""
    if isinstance(value, tuple):
        return value._asdict()  # type: ignore[attr-defined]
    found = {}
    for field in dataclasses.fields(value):
        if field.init and field.name != "parent":  # a Flax module's place in another one
            part = getattr(value, field.name)
            # A function that is the default comes back by itself.
            if part is not field.default or _is_plain(part):
                found[field.name] = part
    return found


def _is_plain(value: Any) -> bool:
    activation = any(value is f for f in ACTIVATIONS.values())
    return activation or not callable(value) or dataclasses.is_dataclass(value)


def _refusal(value: Any, path: str) -> str:
    if callable(value):
        return (
            f"save: {path}: expected something a file can hold, got the function {value!r}. Pass "
            f"an activation by name ({', '.join(ACTIVATIONS)}), and make other functions methods "
            "of a class that is registered with types=[…]. A distribution made with a function "
            "belongs into a prior made from a NumPyro model, which `load` is given again."
        )
    return (
        f"save: {path}: expected numbers, strings, tuples, dicts, arrays or a registered type, got "
        f"{type(value).__name__}. Convert it, or register its type if it is a dataclass: "
        "types=[…]."
    )
