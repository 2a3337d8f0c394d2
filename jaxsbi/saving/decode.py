"""From JSON to values: every type comes from the registry, and everything is checked.

A file may be damaged, or written to do harm. What is built here is built by the constructors of
allowed types from checked fields; what does not fit is a ValueError that says where.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax.core import FrozenDict
from numpyro.distributions import constraints, transforms

from jaxsbi.disk import DTYPES
from jaxsbi.latent import KINDS, Route
from jaxsbi.networks import activations
from jaxsbi.priors import Prior
from jaxsbi.saving.registry import is_nnx, is_record, registry


class Decoder:
    """Rebuilds values from JSON and the arrays it names. Arrays come back as NumPy's.

    Attributes:
        newer: Whether the file has a newer minor version: unknown fields are then ignored.
        ignored: The fields that were.
    """

    def __init__(
        self, types: Iterable[type], arrays: dict[str, np.ndarray], *, newer: bool
    ) -> None:
        self.newer = newer
        self.ignored: list[str] = []
        self._registry = registry(types)
        self._arrays = arrays
        self._unread = set(arrays)

    def decode(self, node: Any, path: str) -> Any:
        """Return the value of a JSON node; `path` names it in errors.

        Raises:
            ValueError: If it is not what `Encoder` writes.
        """
        if isinstance(node, list):
            return tuple(self.decode(v, f"{path}.{i}") for i, v in enumerate(node))
        if not isinstance(node, dict):
            return node
        tag = next((key for key in node if key.startswith("$")), None)
        if tag is None:
            return {key: self.decode(v, f"{path}.{key}") for key, v in node.items()}
        read = {
            "$activation": self._activation,
            "$array": self._array,
            "$class": self._class,
            "$float": self._float,
            "$frozen": self._frozen,
            "$key": self._key,
            "$list": self._list,
            "$ordered": self._ordered,
            "$scalar": self._scalar,
            "$spec": self._spec,
            "$type": self._type,
            "$values": self._values,
        }.get(tag)
        if read is None:
            raise ValueError(f"{path}: expected a known kind of value, got {tag!r}")
        return read(node[tag], {k: v for k, v in node.items() if k != tag}, path)

    def finish(self) -> None:
        """Raise a ValueError if arrays are left over."""
        if self._unread and not self.newer:
            raise ValueError(f"arrays: expected none but those named, got {sorted(self._unread)}")

    def known(self, node: dict[str, Any], names: Iterable[str], path: str) -> dict[str, Any]:
        """Return the fields of `node` among `names`; any other is an error, or a newer file's."""
        names = list(names)
        extra = [key for key in node if key not in names]
        if extra and not self.newer:
            raise ValueError(f"{path}: expected the fields {names}, got also {extra}")
        self.ignored += [f"{path}.{key}" for key in extra]
        return {key: node[key] for key in names if key in node}

    def _exactly(self, node: dict[str, Any], names: Iterable[str], path: str) -> list[Any]:
        names = list(names)
        found = self.known(node, names, path)
        if len(found) < len(names):
            missing = [name for name in names if name not in found]
            raise ValueError(f"{path}: expected the fields {names}, got none named {missing}")
        return list(found.values())

    def _float(self, text: Any, rest: dict[str, Any], path: str) -> float:
        self._exactly(rest, [], path)
        if text not in ("nan", "inf", "-inf"):
            raise ValueError(f"{path}: expected 'nan', 'inf' or '-inf', got {text!r}")
        return float(text)

    def _list(self, items: Any, rest: dict[str, Any], path: str) -> list[Any]:
        self._exactly(rest, [], path)
        if not isinstance(items, list):
            raise ValueError(f"{path}: expected a list, got {type(items).__name__}")
        return list(self.decode(items, path))

    def _ordered(self, items: Any, rest: dict[str, Any], path: str) -> OrderedDict[Any, Any]:
        return OrderedDict(self._list(items, rest, path))

    def _frozen(self, items: Any, rest: dict[str, Any], path: str) -> FrozenDict[str, Any]:
        self._exactly(rest, [], path)
        return FrozenDict(self.decode(_object(items, path), path))

    def _class(self, name: Any, rest: dict[str, Any], path: str) -> type:
        self._exactly(rest, [], path)
        cls = self._allowed(name, path)
        if not is_nnx(cls):
            raise ValueError(f"{path}: expected the name of an NNX module's class, got {name!r}")
        return cls

    def _activation(self, name: Any, rest: dict[str, Any], path: str) -> Any:
        self._exactly(rest, [], path)
        return activations.get(str(name))

    def _scalar(self, value: Any, rest: dict[str, Any], path: str) -> Any:
        (name,) = self._exactly(rest, ["dtype"], path)
        return _exact([self.decode(value, path)], _dtype(name, path), path)[0]

    def _spec(self, name: Any, rest: dict[str, Any], path: str) -> jax.ShapeDtypeStruct:
        (shape,) = self._exactly(rest, ["shape"], path)
        return jax.ShapeDtypeStruct(_shape(shape, path), _dtype(name, path))

    def _key(self, name: Any, rest: dict[str, Any], path: str) -> jax.Array:
        (data,) = self._exactly(rest, ["data"], path)
        return jax.random.wrap_key_data(jnp.asarray(self.decode(data, path)), impl=str(name))

    def _values(self, values: Any, rest: dict[str, Any], path: str) -> np.ndarray:
        dtype, shape = self._exactly(rest, ["dtype", "shape"], path)
        if not isinstance(values, list):
            raise ValueError(f"{path}: expected a list of numbers, got {type(values).__name__}")
        return _exact(values, _dtype(dtype, path), path).reshape(_shape(shape, path))

    def _array(self, name: Any, rest: dict[str, Any], path: str) -> np.ndarray:
        dtype, shape = self._exactly(rest, ["dtype", "shape"], path)
        dtype, shape = _dtype(dtype, path), _shape(shape, path)
        if not isinstance(name, str) or name not in self._arrays:
            raise ValueError(f"{path}: expected an array named {name!r}, which is not in the file")
        self._unread.discard(name)
        array = self._arrays[name]
        if array.dtype == np.uint8 and array.ndim == 1 and dtype != np.uint8:
            array = array.view(dtype).reshape(shape)  # stored as bytes
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{path}: expected {dtype}{list(shape)}, got {array.dtype}{list(array.shape)}"
            )
        return array

    def _allowed(self, name: Any, path: str) -> type:
        cls = self._registry.get(name) if isinstance(name, str) else None
        if cls is None:
            raise ValueError(
                f"{path}: expected a type of this version of jaxsbi, got {name!r}. If it is your "
                "own, pass it: jaxsbi.load(path, types=[…])"
            )
        return cls

    def _type(self, name: Any, fields: dict[str, Any], path: str) -> Any:
        cls = self._allowed(name, path)
        if is_nnx(cls):
            raise ValueError(f"{path}: expected a type that is made from its fields, got {name!r}")
        if issubclass(cls, Prior):
            return self._prior(fields, path)
        if issubclass(cls, dist.Distribution):
            return self._distribution(cls, fields, path)
        if issubclass(cls, constraints.Constraint | transforms.Transform):
            return self._node(cls, fields, path)
        return self._record(cls, fields, path)

    def _record(self, cls: Any, fields: dict[str, Any], path: str) -> Any:
        assert is_record(cls)
        if dataclasses.is_dataclass(cls):
            every = [f for f in dataclasses.fields(cls) if f.init and f.name != "parent"]
            names = [f.name for f in every]
            missing = dataclasses.MISSING
            needed = [
                f.name for f in every if f.default is missing and f.default_factory is missing
            ]
        else:
            names = list(cls._fields)
            needed = [name for name in names if name not in cls._field_defaults]
        found = self.known(fields, names, path)
        if absent := [name for name in needed if name not in found]:
            raise ValueError(f"{path}: expected the fields {names}, got none named {absent}")
        # A field that an older version did not write has the default, which keeps its behaviour.
        return cls(**{key: self.decode(v, f"{path}.{key}") for key, v in found.items()})

    def _node(self, cls: Any, fields: dict[str, Any], path: str) -> Any:
        """Rebuild a constraint or a transform, which says only afterwards what its fields are."""
        if any(name.startswith("__") or not name.isidentifier() for name in fields):
            raise ValueError(f"{path}: expected names of attributes, got {list(fields)}")
        values = [self.decode(v, f"{path}.{key}") for key, v in fields.items()]
        node = cls.tree_unflatten((tuple(fields), {}), values)
        _, (names, static) = node.tree_flatten()
        self._exactly(fields, [*names, *static], path)
        return node

    def _distribution(self, cls: Any, fields: dict[str, Any], path: str) -> dist.Distribution:
        groups = self._exactly(fields, ["parameters", "static"], path)
        names = cls.gather_pytree_data_fields(), cls.gather_pytree_aux_fields()
        leaves, static = (
            tuple(self.decode(v, path) for v in self._exactly(_object(group, path), own, path))
            for group, own in zip(groups, names, strict=True)
        )
        return cls.tree_unflatten(static, leaves)

    def _prior(self, fields: dict[str, Any], path: str) -> Prior:
        groups = self._exactly(fields, ["distributions", "routes"], path)
        distributions, routes = (self.decode(_object(group, path), path) for group in groups)
        for group, cls in ((distributions, dist.Distribution), (routes, Route)):
            if wrong := [name for name, value in group.items() if not isinstance(value, cls)]:
                raise ValueError(f"{path}: expected a {cls.__name__} for each of {wrong}")
        for route in routes.values():
            _check_route(route, path)
        if not distributions or list(distributions) != list(routes):
            raise ValueError(f"{path}: expected a route for each of {list(distributions)}")
        # The routes are those of the training: the constructor would choose them anew.
        prior = object.__new__(Prior)
        shapes = tuple(tuple(d.shape()) for d in distributions.values())
        named = tuple(distributions)
        prior._set(tuple(distributions.values()), named, None, tuple(routes.values()), shapes)
        z = jax.eval_shape(lambda key: prior.to_latent(prior.sample(key)), jax.random.key(0))
        if z.shape != (prior.dim,):
            raise ValueError(f"{path}: expected {prior.dim} latent numbers, got {z.shape}")
        return prior


def _check_route(route: Any, path: str) -> None:
    """Raise a ValueError for a latent map of a newer version, which would be taken for another."""
    if not isinstance(route, Route) or route.kind not in KINDS:
        raise ValueError(f"{path}: expected a route of a kind among {KINDS}, got {route!r}")
    if route.inner is not None:
        _check_route(route.inner, path)


def _object(node: Any, path: str) -> dict[str, Any]:
    if not isinstance(node, dict) or any(key.startswith("$") for key in node):
        raise ValueError(f"{path}: expected an object of named parts, got {type(node).__name__}")
    return node


def _dtype(name: Any, path: str) -> np.dtype:
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"{path}: expected a dtype among {list(DTYPES)}, got {name!r}")
    return DTYPES[name]


def _shape(shape: Any, path: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{path}: expected a shape of whole numbers, got {shape!r}")
    return tuple(shape)


def _exact(values: list[Any], dtype: np.dtype, path: str) -> np.ndarray:
    """Return numbers as an array that holds exactly them."""
    if not all(type(v) in (bool, int, float) for v in values):
        raise ValueError(f"{path}: expected numbers, got {values!r}")
    array = np.array(values, dtype)
    if not np.array_equal(np.array(array.tolist()), np.array(values), equal_nan=True):
        raise ValueError(f"{path}: expected numbers of dtype {dtype}, got {values}")
    return array
