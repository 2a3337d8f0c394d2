"""Which chunks are done, and who is at work on which.

Chunk 7 is claimed by the file `00000007.claim` and done when there is `00000007.done`. Both appear
whole or not at all, and only if they were not there: of several writers one succeeds. They are made
by hard links, which every local and network file system in use makes in one step.

A claim outlives a writer that was killed. It is stale, and taken over, if the process that
made it is known to be gone (on the same host), or if its writer, which touches it every
`HEARTBEAT` seconds, has not done so for `STALE` seconds by the file system's own clock. Should a
writer that was only stopped come back, the worst is that a chunk is simulated twice: a draw is the
same whoever makes it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

HEARTBEAT, STALE = 15.0, 300.0


def publish(path: Path, content: Any) -> bool:
    """Write JSON to a new file, whole and on to the disk; `False` if the file is there."""
    new = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with new.open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
    except FileExistsError:
        return False
    finally:
        new.unlink(missing_ok=True)
    return True


def provenance() -> dict[str, Any]:
    """Return who writes, when, by which command, and with which versions."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "numpyro", "zarr")}
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": list(sys.argv),
        "versions": versions | {"jaxsbi": sys.modules["jaxsbi"].__version__},
    }


class Chunks:
    """The folder of the small files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int, kind: str) -> Path:
        """Return the path of a chunk's "claim" or "done"."""
        return self.folder / f"{number:08d}.{kind}"

    def done(self) -> set[int]:
        """Return the numbers of the chunks that are done."""
        return {int(p.stem) for p in self.folder.glob("[0-9]*.done")}

    def prefix(self) -> int:
        """Return how many chunks are done without a gap before them."""
        done, count = self.done(), 0
        while count in done:
            count += 1
        return count

    def read(self, number: int) -> dict[str, Any]:
        """Return what is written about a chunk that is done."""
        path = self.path(number, "done")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON, got {error}. The file was damaged.") from None

    def discard(self, number: int) -> None:
        """Let a chunk be made again whose arrays are damaged."""
        self.path(number, "done").unlink(missing_ok=True)


class Writer:
    """A context in which chunks can be claimed; those that are not done are given back."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks, self._mine = chunks, set[int]()
        self._content = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": _began(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Writer:
        """Start to touch the claims.

        Raises:
            PermissionError: If the folder can only be read.
        """
        probe = self._chunks.folder / f".{self._content['token']}"
        try:
            probe.touch()
        except OSError as error:
            raise PermissionError(
                f"{self._chunks.folder}: expected a folder that can be written to, got: {error}. "
                "What is in the store can be read; to add draws, copy it."
            ) from error
        probe.unlink()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what was claimed and not done."""
        self._end.set()
        self._thread.join()
        for number in list(self._mine):
            self.release(number)

    def claim(self, number: int) -> bool:
        """Whether this writer may make a chunk that is not done."""
        path = self._chunks.path(number, "claim")
        if not publish(path, self._content) and not self._take_over(path):
            return False
        self._mine.add(number)
        # It may have been done, and its claim given back, since the caller looked.
        if self._chunks.path(number, "done").exists():
            self.release(number)
            return False
        return True

    def release(self, number: int) -> None:
        """Give a claim back, unless another has taken it over."""
        self._mine.discard(number)
        if self.owns(number):
            self._chunks.path(number, "claim").unlink(missing_ok=True)

    def owns(self, number: int) -> bool:
        """Whether the claim is this writer's still."""
        return _read(self._chunks.path(number, "claim")) == self._content

    def _take_over(self, path: Path) -> bool:
        seen = _read(path)
        if seen is not None and not self._is_stale(path, seen):
            return False
        grave = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        try:
            path.rename(grave)  # of several takers one succeeds
        except FileNotFoundError:
            return publish(path, self._content)
        if _read(grave) != seen:  # another's new claim: it was faster
            with contextlib.suppress(OSError):
                os.link(grave, path)
            grave.unlink(missing_ok=True)
            return False
        grave.unlink(missing_ok=True)
        return publish(path, self._content)

    def _is_stale(self, path: Path, seen: dict[str, Any]) -> bool:
        if seen.get("host") == self._content["host"]:
            return not _lives(seen.get("pid"), seen.get("began"))
        probe = path.with_name(f".{self._content['token']}")
        try:
            probe.touch()
            return probe.stat().st_mtime - path.stat().st_mtime > STALE
        except FileNotFoundError:
            return False  # given back meanwhile
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT):
            for number in list(self._mine):
                with contextlib.suppress(OSError):
                    os.utime(self._chunks.path(number, "claim"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _began(pid: int) -> str:
    """Return when a process began, in the kernel's terms: process numbers are used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _lives(pid: Any, began: Any) -> bool:
    if type(pid) is not int or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    state = _began(pid)
    return not state or state == began
