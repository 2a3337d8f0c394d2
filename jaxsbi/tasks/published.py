"""Files that others have published: found, or downloaded once, and checked."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

from jaxsbi.tasks.references import cache_directory


def fetch(folder: str, name: str, url: str, sha256: str) -> Path:
    """Return the path of a published file.

    It is looked for in the folder of the one that the environment variable JAXSBI_DATA names, then
    in the cache directory; otherwise it is downloaded there, whole or not at all.

    Args:
        folder: The folder's name.
        name: The file's.
        url: Where its publisher has it.
        sha256: Of its content, in hexadecimal.

    Raises:
        ValueError: If its content is not what was published.
        OSError: If it can't be downloaded.
    """
    given = os.environ.get("JAXSBI_DATA")
    path = Path(given).expanduser() / folder / name if given else None
    if path is None or not path.is_file():
        path = cache_directory() / folder / name
    if not path.is_file():
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{name}-{os.getpid()}")
        part.write_bytes(content)
        os.replace(part, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path}: expected SHA-256 {sha256}, got {found}. Remove the file and try again; or "
            f"download it by hand from {url} into $JAXSBI_DATA/{folder}."
        )
    return path
