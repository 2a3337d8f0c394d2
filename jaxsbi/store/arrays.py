"""The arrays of the draws: one Zarr group with the dimension "draw", made of whole chunks.

A chunk is written beside the group and moved into it file by file. The arrays are as long as the
chunks that are done without a gap, so a reader sees finished draws only. A chunk's files carry
checksums, by which Zarr notices damage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxsbi.external.results import fill_value

GROUP = "draws.zarr"


def zarr() -> Any:
    """Import Zarr.

    Raises:
        ImportError: If it is not installed, or too old.
    """
    try:
        import zarr as package
    except ImportError as error:
        raise ImportError(
            'A store needs Zarr 3. Install it: pip install "jaxsbi[store]".'
        ) from error
    if int(package.__version__.partition(".")[0]) < 3:
        raise ImportError(
            f"A store needs Zarr 3, found {package.__version__}. Upgrade it: pip install "
            '"jaxsbi[store]".'
        )
    return package


class Arrays:
    """The Zarr group in a store's folder."""

    def __init__(self, folder: Path, chunk: int) -> None:
        self.path, self._chunk = folder / GROUP, chunk

    def create(self, attributes: dict[str, Any]) -> None:
        """Make the group."""
        zarr().create_group(self.path, zarr_format=3, attributes=attributes)

    def attributes(self) -> dict[str, Any]:
        """Return the group's attributes."""
        return dict(zarr().open_group(self.path, mode="r").attrs)

    def add(self, name: str, row: np.ndarray, attributes: dict[str, Any]) -> None:
        """Make an array like `row` for each draw, unless it is there."""
        if not (self.path / name / "zarr.json").exists():
            self._create(self.path / name, 0, row, attributes)

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return sorted(p.parent.name for p in self.path.glob("*/zarr.json"))

    def length(self) -> int:
        """Return how many draws all arrays have."""
        return min(self._array(name).shape[0] for name in self.names())

    def write(self, number: int, values: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Write one chunk of some arrays.

        Returns:
            Name to the file, relative to the group, and its size.
        """
        files: dict[str, list[Any]] = {}
        scratch = self.path.with_name(f".scratch-{number:08d}")
        shutil.rmtree(scratch, ignore_errors=True)  # of a writer that was killed
        try:
            for name, value in values.items():
                array = self._create(scratch / name, len(value), value[0], {})
                array[...] = value
                rest = "/0" * (value.ndim - 1)
                source = scratch / name / f"c/0{rest}"
                target = self.path / name / f"c/{number}{rest}"
                with source.open("rb") as file:
                    os.fsync(file.fileno())
                target.parent.mkdir(parents=True, exist_ok=True)
                files[name] = [str(target.relative_to(self.path)), source.stat().st_size]
                source.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return files

    def damaged(self, files: dict[str, list[Any]]) -> str | None:
        """Return which file of a chunk is missing or of another size."""
        for relative, size in files.values():
            path = self.path / relative
            came = path.stat().st_size if path.exists() else None
            if came != size:
                return f"{path}: expected {size} bytes, got {'no file' if came is None else came}"
        return None

    def extend(self, length: Callable[[], int]) -> None:
        """Make all arrays `length()` long, which never falls.

        Several writers may do this at once, and each may write a length that is too short by the
        time it is written. Each looks again after it has written: the last one to write then
        knows of all chunks that were done before, and of a later one its own writer takes care.
        """
        while True:
            wanted = length()
            for name in self.names():
                array = self._array(name, "r+")
                if array.shape[0] < wanted:
                    array.resize((wanted, *array.shape[1:]))
            if length() == wanted:
                return

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return some rows of an array.

        Raises:
            ValueError: If a file is damaged.
        """
        array = self._array(name)
        try:
            return np.asarray(array[start:stop])
        except Exception as error:  # whatever a codec makes of a damaged file
            raise ValueError(
                f"{self.path / name}: expected the draws {start} to {stop} as they were written, "
                f"but a file of this array is damaged ({type(error).__name__}: {error}). Delete "
                "that file; store.fill then makes its draws again."
            ) from error

    def _array(self, name: str, mode: str = "r") -> Any:
        """Open an array.

        Raises:
            ValueError: If its metadata are damaged.
        """
        try:
            return zarr().open_array(self.path / name, mode=mode)
        except ImportError:
            raise
        except Exception as error:  # whatever Zarr makes of a damaged file
            raise ValueError(
                f"{self.path / name / 'zarr.json'}: expected Zarr's metadata, got a damaged file "
                f"({type(error).__name__}: {error}). Delete it; store.fill then writes it again."
            ) from error

    def _create(self, path: Path, n: int, row: np.ndarray, attributes: dict[str, Any]) -> Any:
        from zarr.codecs import Crc32cCodec, ZstdCodec

        row = np.asarray(row)
        inner = tuple(f"{path.name}_{i}" for i in range(row.ndim))
        return zarr().create_array(
            path,
            shape=(n, *row.shape),
            chunks=(self._chunk, *(max(s, 1) for s in row.shape)),
            dtype=row.dtype,
            fill_value=fill_value(row.dtype),
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            dimension_names=("draw", *inner),
            attributes=attributes,
            zarr_format=3,
            config={"write_empty_chunks": True},  # a file for every chunk: none is missing
        )
