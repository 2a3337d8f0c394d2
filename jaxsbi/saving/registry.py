"""The types that a saved run may be made of, by name: nothing else is written or rebuilt."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

from jaxsbi import (
    abc,
    compression,
    densities,
    fields,
    methods,
    networks,
    noise,
    samplers,
    sequential,
)
from jaxsbi.base import History
from jaxsbi.boxed import Boxed
from jaxsbi.latent import Route
from jaxsbi.priors import Prior
from jaxsbi.reach import Reach
from jaxsbi.recentred import Recentred

ROOMS = (abc, compression, densities, fields, methods, networks, noise, samplers, sequential)
"""Rooms whose public configurations and Flax modules can be saved."""


@dataclasses.dataclass(frozen=True)
class Supplied:
    """Stands for a prior made from a Python function, which `load` is given anew.

    Attributes:
        shapes: Name to shape of each parameter, in order.
        routes: The latent map that each parameter takes.
    """

    shapes: dict[str, tuple[int, ...]]
    routes: dict[str, Route]

    @classmethod
    def of(cls, prior: Prior) -> Supplied:
        """Describe a prior."""
        return cls(prior.shapes, prior.routes)

    def accept(self, given: Prior | None, name: str, call: str) -> Prior:
        """Return the prior that the user passes, if it is the one described.

        Args:
            given: What was passed.
            name: Of the argument.
            call: How to pass it.

        Raises:
            ValueError: If there is none, or it is another.
        """
        if given is None:
            raise ValueError(
                f"{name}: it was made from a Python function, which no file holds. Pass it: {call}"
            )
        came = Supplied.of(given)
        # The order of the names is that of the latent coordinates; dicts compare without it.
        if list(came.shapes.items()) != list(self.shapes.items()) or came != self:
            raise ValueError(
                f"{name}: expected the prior that was saved, of {self.shapes} by {self.routes}, "
                f"got one of {came.shapes} by {came.routes}. Pass the one of then"
            )
        return given


def is_configuration(cls: Any) -> bool:
    """Whether a class is made by `@configuration`, or is a Flax module."""
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return False
    if issubclass(cls, nn.Module):
        return True
    frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen and all(field.kw_only for field in dataclasses.fields(cls))


def is_record(cls: type) -> bool:
    """Whether a class is a dataclass or a NamedTuple: rebuilt from its fields by name."""
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def is_nnx(cls: Any) -> bool:
    """Whether a class is an NNX module's: it is named in a file, and never made from it."""
    nnx = sys.modules.get("flax.nnx")  # where it was not imported, there is none
    return nnx is not None and isinstance(cls, type) and issubclass(cls, nnx.Module)


@functools.cache
def _known() -> dict[str, type]:
    """Return jaxsbi's and NumPyro's types; rooms have names of their own, so names are unique."""
    own = (Boxed, History, Prior, Reach, Recentred, Route, Supplied)
    found: dict[str, type] = {c.__name__: c for c in own}
    for room in ROOMS:
        short = room.__name__.removeprefix("jaxsbi.")
        for name, value in vars(room).items():
            if not name.startswith("_") and is_configuration(value):
                found[f"{short}.{name}"] = value
    for room, base in (
        (dist, dist.Distribution),
        (constraints, constraints.Constraint),
        (transforms, transforms.Transform),
    ):
        short = "dist" if room is dist else room.__name__.rpartition(".")[2]
        for value in vars(room).values():
            if isinstance(value, type) and issubclass(value, base) and value is not base:
                # A constraint's class is private to NumPyro, as `_Interval` is.
                found[f"{short}.{value.__name__.lstrip('_')}"] = value
    return found


def registry(types: Iterable[type]) -> dict[str, type]:
    """Return all allowed types by name, a user's own by the name of the class.

    Raises:
        TypeError: If one of `types` is not a class that can be rebuilt from its fields.
        ValueError: If two of them have the same name.
    """
    allowed = dict(_known())
    for cls in types:
        if not isinstance(cls, type) or not (
            is_record(cls)
            or is_nnx(cls)
            or issubclass(cls, dist.Distribution | constraints.Constraint | transforms.Transform)
        ):
            raise TypeError(
                "types: expected classes that are rebuilt from their fields (configurations, Flax "
                f"modules, dataclasses, NamedTuples), NumPyro distributions or NNX modules, got "
                f"{cls!r}."
            )
        if allowed.setdefault(cls.__name__, cls) is not cls:
            raise ValueError(
                f"types: expected one class of each name, got two named {cls.__name__!r}. "
                "Rename one of them."
            )
    return allowed
