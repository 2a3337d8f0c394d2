"""What must be switched off in the libraries below, until they are mended."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
from jax.tree_util import GetAttrKey

YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
YNN_VERSIONS = ((0, 10, 2), (0, 12))


def disable_ynn_fusion() -> None:
    """Keep JAX 0.10.2 and 0.11 on CPUs from computing wrong sums.

    Their CPU compiler hands sums over more than about a million products to a library that returns
    wrong numbers without an error (https://github.com/jax-ml/jax/issues/39103): the densities of
    a large batch, for example. The flag is read when JAX starts its first computation, so jaxsbi
    sets it when it is imported, unless the user has set it. It also makes such sums faster
    (https://github.com/jax-ml/jax/issues/37465).

    Warns:
        UserWarning: If JAX has computed something before, so that the flag comes too late.
    """
    lowest, beyond = YNN_VERSIONS
    flags = os.environ.get("XLA_FLAGS", "")
    if not lowest <= jax.__version_info__ < beyond or YNN_FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {YNN_FLAG}=".strip()
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", lambda: False)
    if started() and jax.default_backend() == "cpu":
        warnings.warn(
            f"JAX {jax.__version__} computes wrong sums over large batches on CPUs "
            "(github.com/jax-ml/jax/issues/39103), and had started before jaxsbi could prevent it. "
            "Import jaxsbi before the first JAX computation, or set "
            f'os.environ["XLA_FLAGS"] = "{YNN_FLAG}=" at the top of the program.',
            UserWarning,
            stacklevel=3,
        )


_C = TypeVar("_C", bound=type)


def register_dataclass(cls: _C) -> _C:
    """Register a dataclass as a pytree whose fields are leaves, except those marked static.

    `jax.tree_util.register_dataclass` of JAX up to 0.11 makes tree structures of *different*
    classes compare equal if their static values do. Only their hashes tell them apart, and
    `jax.jit` compares parts of hashes: of 400 classes with equal fields, each with a constant of
    its own, it ran the program of another for 66.
    """
    fields = dataclasses.fields(cls)
    return register(cls, [f.name for f in fields if f.metadata.get("static")])


def register(cls: _C, static: Iterable[str]) -> _C:
    """Register a dataclass as a pytree, given its static fields; see `register_dataclass`."""
    kept = tuple(static)
    leaves = tuple(f.name for f in dataclasses.fields(cls) if f.name not in kept)

    def flatten(node: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        values = node.__dict__
        return tuple(values[n] for n in leaves), tuple(values[n] for n in kept)

    def flatten_with_keys(node: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        found, rest = flatten(node)
        return tuple((GetAttrKey(n), v) for n, v in zip(leaves, found, strict=True)), rest

    def unflatten(rest: tuple[Any, ...], found: Iterable[Any]) -> Any:
        return cls(**dict(zip(kept, rest, strict=True)), **dict(zip(leaves, found, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
