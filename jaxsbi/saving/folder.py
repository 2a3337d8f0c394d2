"""The folder of a saved run: written in one step or not at all, read with every doubt."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jaxsbi import disk

FORMAT = "jaxsbi fitted"
VERSION = (2, 0)
"""Of the format. A newer minor version has more fields, which older ones may ignore; a newer major
version neither reads nor is read by an older one."""
JSON = "posterior.json"
ARRAYS = re.compile(r"arrays-[0-9a-f]{16}\.safetensors")
MAX_JSON_BYTES = 2**26
NUMBERS = re.compile(r'\[\n([^\[\]{}"]*)\]')
"""Lists of numbers, as `json.dumps` indents them; written on one line each."""


def write(folder: Path, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a run; an older one in the same folder is replaced in one step.

    Raises:
        FileExistsError: If there is something else than a saved run.
    """
    if _is_free(folder):
        new = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        try:
            _publish(new, content, arrays)
            if folder.exists():
                folder.rmdir()  # empty, or this raises
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    else:
        _publish(folder, content, arrays)


def _is_free(folder: Path) -> bool:
    """Whether nothing is there, or an empty folder; raise unless it is a saved run."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return True
    try:
        _parse(folder)
    except (OSError, ValueError):
        raise FileExistsError(
            f"save: expected a new folder or an earlier saved run, got {folder}, which is "
            "something else. Choose another name, or delete it first."
        ) from None
    return False


def _publish(folder: Path, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays beside those of an older run, then let the JSON name the new ones."""
    blob = safetensors.numpy.save(arrays)
    digest = hashlib.sha256(blob).hexdigest()
    name = f"arrays-{digest[:16]}.safetensors"
    entry = {"file": name, "size": len(blob), "sha256": digest}
    document = seal(
        {"format": FORMAT, "version": list(VERSION), "sha256": "", **content, "arrays": entry}
    )
    text = NUMBERS.sub(lambda m: f"[{' '.join(m[1].split())}]", json.dumps(document, indent=2))
    existed = (folder / name).exists()
    try:
        disk.replace(folder / name, blob)
        disk.replace(folder / JSON, text.encode())
    except BaseException:
        if not existed:
            (folder / name).unlink(missing_ok=True)
        raise
    for other in folder.iterdir():
        if ARRAYS.fullmatch(other.name) and other.name != name:
            other.unlink()


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the checksum of everything else in it.

    In the order of the keys: that of the parameters is the order of the latent coordinates.
    """
    rest = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(rest, separators=(",", ":"), allow_nan=False)
    return {**document, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_json(folder: Path) -> dict[str, Any]:
    """Return the checked document of a saved run.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not what `write` wrote, or has a newer format.
    """
    document = _parse(folder)
    version = document.get("version")
    if (
        not isinstance(version, list)
        or len(version) != 2
        or not all(type(part) is int and part >= 0 for part in version)
    ):
        raise ValueError(f"{folder / JSON}: expected a version [major, minor], got {version!r}.")
    if version[0] != VERSION[0]:
        advice = ("Train again, or load it with the jaxsbi that saved it.", "Upgrade jaxsbi.")
        raise ValueError(
            f"{folder / JSON}: expected format {VERSION[0]}, got {version[0]}.{version[1]}. "
            + advice[version[0] > VERSION[0]]
        )
    if seal(document)["sha256"] != document.get("sha256"):
        raise ValueError(
            f"{folder / JSON}: expected the content that was saved, got another (its checksum "
            "differs): the file was damaged or changed. Save the run again."
        )
    return document


def _parse(folder: Path) -> dict[str, Any]:
    path = folder / JSON
    raw = _read(path, "Pass the folder that jaxsbi.save wrote.", MAX_JSON_BYTES)
    try:
        document = json.loads(raw.decode(), parse_constant=_refuse_constant)
        if isinstance(document, dict) and document.get("format") == FORMAT:
            json.dumps(document, allow_nan=False)  # no deeper than `seal` can go; 1e400 is infinite
            return document
    except RecursionError:
        raise ValueError(
            f"{path}: expected a saved run, got JSON that is nested too deeply."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON of a saved run, got {error}.") from None
    raise ValueError(f"{path}: expected a saved run (format {FORMAT!r}), got another JSON file.")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is no JSON")


def read_arrays(folder: Path, entry: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a saved run, given what the JSON says of their file.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If its name is not of `write`'s form, or it is not the file that was saved.
    """
    if not isinstance(entry, dict) or set(entry) != {"file", "size", "sha256"}:
        raise ValueError(f"{folder / JSON}: arrays: expected file, size and sha256, got {entry!r}.")
    name = entry["file"]
    if not isinstance(name, str) or not ARRAYS.fullmatch(name):
        raise ValueError(
            f"{folder / JSON}: arrays: expected the name of a file in this folder, "
            f"arrays-….safetensors, got {name!r}."
        )
    path = folder / name
    blob = _read(path, "Copy the whole folder.", entry["size"])
    if len(blob) != entry["size"] or hashlib.sha256(blob).hexdigest() != entry["sha256"]:
        raise ValueError(
            f"{path}: expected the arrays that were saved, got another file (its checksum "
            "differs): it was damaged or changed. Save the run again."
        )
    try:
        return safetensors.numpy.load(blob)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got {error!r}.") from None


def _read(path: Path, hint: str, largest: Any) -> bytes:
    """Read a regular file of the folder itself, and no more of it than is expected."""
    if path.is_symlink():
        raise ValueError(f"{path}: expected a file, got a link, which may lead elsewhere.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a saved run, found no such file. {hint}")
    size = path.stat().st_size
    if type(largest) is not int or size > largest:
        raise ValueError(f"{path}: expected at most {largest!r} bytes, got {size}.")
    return path.read_bytes()
