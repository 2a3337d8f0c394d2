"""What all files have in common: written whole or not at all, arrays of any dtype, versions."""

from __future__ import annotations

import importlib.metadata
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

PACKAGES = ("jaxsbi", "jax", "flax", "numpyro", "numpy")
DTYPES: dict[str, np.dtype] = {
    name: jnp.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128", "bfloat16"),
        *("float8_e4m3fn", "float8_e5m2"),
    )
}
"""The dtypes that files hold."""
NATIVE = frozenset(DTYPES) - {
    *("complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
}
"""What every version of safetensors reads as NumPy arrays; other dtypes are stored as bytes."""


def replace(path: Path, data: bytes) -> None:
    """Write a whole file or none, through another name and on to the disk."""
    new = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with new.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def remove_parts(path: Path) -> None:
    """Remove what a killed process has left of a file that it was writing."""
    for part in path.parent.glob(f".{path.name}-*"):
        part.unlink(missing_ok=True)


def to_file(array: np.ndarray) -> np.ndarray:
    """Return an array as safetensors stores it: in order, and as bytes where it must be."""
    array = np.array(array, order="C")  # safetensors writes memory as it lies
    return array if array.dtype.name in NATIVE else array.reshape(-1).view(np.uint8)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of jaxsbi and of what it is built on."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            found[package] = "unknown"
    return found
