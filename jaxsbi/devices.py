"""Several devices: what of a training is split over the axes of a mesh, and what all of them hold.

The rows of each step are split over the axis "batch", the members of an ensemble over the axis
"ensemble". Simulations and parameters are on every device, so that results are those of one device
up to the order of sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxsbi.fingerprint import PREFIX, digest

BATCH, ENSEMBLE = "batch", "ensemble"
_T = TypeVar("_T")


def checked(mesh: Mesh | None, ensemble: int | None, batch_size: int | None = None) -> Mesh | None:
    """Return a mesh over whose axes the compiler splits what it is told to.

    Raises:
        TypeError: If it is no mesh.
        ValueError: If an axis has another name, or does not divide the ensemble or the batch.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(
            "mesh: expected jax.sharding.Mesh(jax.devices(), ('batch',)) or another, got "
            f"{type(mesh).__name__}."
        )
    if not mesh.axis_names or set(mesh.axis_names) - {BATCH, ENSEMBLE}:
        raise ValueError(
            f"mesh: expected axes named {BATCH!r} (the rows of a step) or {ENSEMBLE!r} (its "
            f"members), got {mesh.axis_names}."
        )
    if (ensemble or 1) % size(mesh, ENSEMBLE):
        raise ValueError(
            f"ensemble: expected a multiple of the mesh's {size(mesh, ENSEMBLE)} devices along "
            f"{ENSEMBLE!r}, got {ensemble}."
        )
    if (batch_size or 0) % size(mesh, BATCH):
        raise ValueError(
            f"batch_size: expected a multiple of the mesh's {size(mesh, BATCH)} devices along "
            f"{BATCH!r}, got {batch_size}."
        )
    # What JAX calls explicit axes would have every operation say how it is split.
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def size(mesh: Mesh | None, axis: str) -> int:
    """Return the number of devices along an axis; 1 if there is none."""
    return 1 if mesh is None else mesh.shape.get(axis, 1)


def split(mesh: Mesh | None, axis: str, tree: _T) -> _T:
    """Split the leading axis of every leaf over an axis of the mesh (in a compiled function).

    What can't be split evenly stays whole.
    """
    rows = jax.tree.leaves(tree)[0].shape[0]
    even = size(mesh, axis) > 1 and rows % size(mesh, axis) == 0
    return _constrained(mesh, PartitionSpec(axis), tree) if even else tree


def on_all(mesh: Mesh | None, tree: _T) -> _T:
    """Have every device hold the whole of every leaf (in a compiled function)."""
    return _constrained(mesh, PartitionSpec(), tree)


def _constrained(mesh: Mesh | None, spec: PartitionSpec, tree: _T) -> _T:
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, sharding), tree)


def placed(mesh: Mesh | None, tree: _T) -> _T:
    """Return a pytree of arrays, equal in all processes, on every device of the mesh."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())

    def put(a: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(a.shape, sharding, lambda index: a[index])

    return jax.tree.map(functools.partial(_through_numpy, put), tree)


def local(mesh: Mesh | None, tree: _T) -> _T:
    """Return what every device holds as arrays that are bound to none of them."""

    def take(a: jax.Array) -> jax.Array:
        return _through_numpy(jnp.asarray, a.addressable_data(0))

    return tree if mesh is None else jax.tree.map(take, tree)


def _through_numpy(put: Callable[[np.ndarray], jax.Array], a: Any) -> jax.Array:
    """Put what an array holds elsewhere; keys hold numbers of their own."""
    if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return put(np.asarray(a))
    return jax.random.wrap_key_data(
        put(np.asarray(jax.random.key_data(a))), impl=jax.random.key_impl(a)
    )


def several_processes(mesh: Mesh | None) -> bool:
    """Whether the mesh's devices belong to more than one process."""
    return mesh is not None and mesh.is_multi_process


def gathered(mesh: Mesh | None, value: int) -> np.ndarray:
    """Return a number of each process of the mesh, in all of them."""
    if not several_processes(mesh):
        return np.array([value])
    return np.asarray(multihost_utils.process_allgather(np.int32(value))).reshape(-1)


def check_equal(mesh: Mesh | None, value: Any) -> None:
    """Raise a ValueError unless all processes of the mesh were given the same."""
    if not several_processes(mesh):
        return
    found = gathered(mesh, int(digest(value).removeprefix(PREFIX)[:7], 16))
    if np.any(found != found[0]):
        raise ValueError(
            "mesh: expected the same key, method, prior and simulations in all its processes, got "
            "others in some. Make them from the same keys, or load them from the same files."
        )


def writes(mesh: Mesh | None) -> bool:
    """Whether it is this process that writes files."""
    return not several_processes(mesh) or jax.process_index() == 0
