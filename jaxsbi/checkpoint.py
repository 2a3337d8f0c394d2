"""Checkpoints: what a run has come to, in a file that a killed process leaves whole.

A file holds the arrays of a pytree, what is said about them, and the fingerprint of the run: of
everything that decides its result. A run goes on only from a file with its own fingerprint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from jaxsbi import disk
from jaxsbi.fingerprint import PREFIX, digest

FORMAT, VERSION = "jaxsbi checkpoint", 1
EVERY_SECONDS = 20.0
"""How much of a training a killed process loses."""
Fingerprint = dict[str, str]
"""What decides a result: a name → what it is, or its checksum."""


class Saved(NamedTuple):
    """A pytree of NumPy arrays (and JAX's keys), and what was said about it."""

    tree: Any
    about: dict[str, Any]


def machine() -> Fingerprint:
    """Return what a result depends on to the last bit, besides what the user passes."""
    device = jax.devices()[0]
    found = disk.versions((*disk.PACKAGES, "jaxlib", "optax"))
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return {
        "device": f"{device.platform} {device.device_kind}",
        "default_matmul_precision": f"{precision}",
        **found,
    }


def folder_at(where: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of a checkpoint, which need not be there yet; None without a checkpoint.

    Raises:
        ValueError: If something else than a folder is there.
    """
    if where is None:
        return None
    path = Path(os.path.abspath(where))
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"checkpoint: expected a folder, or a path where one can be made, got {path}, which is "
            "a file. Choose another path."
        )
    return path


def file_in(folder: Path | None, name: str) -> Path | None:
    """Return a file of a checkpoint's folder; None without one."""
    return None if folder is None else folder / f"{name}.safetensors"


def check_writable(path: Path) -> None:
    """Raise an OSError unless a file can be written, before hours of work are lost by it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(path.with_name(f".{path.name}-probe"), b"jaxsbi" * 1000)
    except OSError as error:
        raise OSError(
            error.errno,
            f"checkpoint {path.parent}: expected a folder that can be written to, got: "
            f"{error.strerror}. Make room, or pass another path",
        ) from error
    disk.remove_parts(path)


def write(path: Path, fingerprint: Fingerprint, tree: Any, about: dict[str, Any]) -> None:
    """Write a pytree of arrays in one step: a process killed meanwhile leaves the older file."""
    keys, arrays = {}, {}
    for name, leaf in _named(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            keys[name], leaf = str(jax.random.key_impl(leaf)), jax.random.key_data(leaf)
        arrays[name] = np.asarray(leaf)
    dtypes = {name: (a.dtype.name, list(a.shape)) for name, a in arrays.items()}
    stored = {name: disk.to_file(a) for name, a in arrays.items()}
    content = {"fingerprint": fingerprint, "about": about, "arrays": dtypes, "keys": keys}
    header = json.dumps(content, allow_nan=False)
    frame = {"format": FORMAT, "version": str(VERSION), "sha256": digest((header, stored))}
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.replace(path, safetensors.numpy.save(stored, {**frame, "content": header}))


def read(path: Path, fingerprint: Fingerprint, like: Any) -> Saved | None:
    """Return what was written, or None if nothing was.

    Args:
        path: The file.
        fingerprint: Of the run that would go on.
        like: A pytree of the same structure.

    Raises:
        ValueError: If the file is damaged, or another run's.
    """
    disk.remove_parts(path)
    if not path.exists():
        return None
    content, stored = _content(path)
    _check(path, content["fingerprint"], fingerprint)
    leaves: list[Any] = []
    for name, (dtype, shape) in content["arrays"].items():
        leaf: Any = stored[name].view(jnp.dtype(dtype)).reshape(shape)
        impl = content["keys"].get(name)
        leaves.append(
            leaf if impl is None else jax.random.wrap_key_data(jnp.array(leaf), impl=impl)
        )
    return Saved(jax.tree.unflatten(jax.tree.structure(like), leaves), content["about"])


def once(path: Path | None, fingerprint: Callable[[], Fingerprint], like: Any, make: Any) -> Any:
    """Return what `make()` returns, a pytree of arrays: made once, and afterwards read."""
    if path is None:
        return make()
    found = fingerprint()
    saved = read(path, found, like)
    if saved is not None:
        return saved.tree
    made = make()
    write(path, found, made, {})
    return made


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Return the leaves in order, by names that differ."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(f"{i}{jax.tree_util.keystr(path)}", leaf) for i, (path, leaf) in enumerate(leaves)]


def _content(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a file says, and its arrays, if it is as it was written."""
    advice = "Delete it to start afresh, or pass another path."
    try:
        with safe_open(path, "np") as file:
            frame = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"checkpoint {path}: expected a safetensors file, got a damaged one ({error}). {advice}"
        ) from None
    if frame.get("format") != FORMAT or frame.get("version") != str(VERSION):
        raise ValueError(
            f"checkpoint {path}: expected {FORMAT!r}, version {VERSION}, got "
            f"{frame.get('format')!r}, version {frame.get('version')}. {advice}"
        )
    if digest((frame.get("content"), stored)) != frame.get("sha256"):
        raise ValueError(
            f"checkpoint {path}: expected what was written, got something else (its checksum "
            f"differs): the file was damaged or changed. {advice}"
        )
    return json.loads(frame["content"]), stored


def _check(path: Path, saved: Fingerprint, now: Fingerprint) -> None:
    """Raise a ValueError unless a file is this run's."""
    names = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if not names:
        return
    told = ", ".join(
        name
        if saved.get(name, PREFIX).startswith(PREFIX)
        else f"{name} ({saved[name]} there, {now.get(name)} here)"
        for name in names
    )
    raise ValueError(
        f"checkpoint {path}: expected one of this run, got one of another: what differs is {told}. "
        "Call with the same arguments as before to go on, pass another path, or delete it to start "
        "afresh."
    )
