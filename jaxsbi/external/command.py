"""A command line as a simulator."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsbi.base import Data
from jaxsbi.external.worker import MESSAGE, ProgramCrashedError, own_limit


@dataclasses.dataclass(frozen=True)
class _Command:
    arguments: tuple[str, ...]
    parse: Callable[[str], Data] | None

    @property
    def __name__(self) -> str:
        """The program, for messages."""
        return self.arguments[0]

    def __call__(self, seed: int, theta: dict[str, np.ndarray]) -> Data:
        """Run the program once and parse what it prints."""
        values = {"seed": str(seed)} | {name: _text(value) for name, value in theta.items()}
        output = _run([argument.format_map(values) for argument in self.arguments])
        return _floats(output) if self.parse is None else self.parse(output)


def command(
    arguments: Sequence[str], parse: Callable[[str], Data] | None = None
) -> Callable[[int, dict[str, np.ndarray]], Data]:
    """Make a command line a simulator for `simulate_external`.

    Args:
        arguments: The program and its arguments, for example
            `["./sim", "--seed", "{seed}", "--mu", "{mu}"]`: `{seed}` and the names of parameters
            are replaced, a vector by its numbers with commas between. No shell is involved.
        parse: Makes the data from the standard output, a string; by default the output is numbers
            between white space, and the data a vector of them.

    Returns:
        A picklable function `(seed, theta) -> x`. The status of a draw is "error" if the program's
        exit status is not 0, "crashed" if it was ended by a signal, and "timeout" if it took
        longer than the time limit: it is then killed, with the programs that it has started.

    Raises:
        TypeError: If the arguments are one string.
    """
    if (
        isinstance(arguments, str)
        or not arguments
        or not all(isinstance(a, str) for a in arguments)
    ):
        raise TypeError(
            "command: expected the program and its arguments as a list of strings, "
            f'got {arguments!r}. Write ["./sim", "--seed", "{{seed}}"].'
        )
    return _Command(tuple(arguments), parse)


def _text(value: np.ndarray) -> str:
    # As float64: the shortest text of a float32 is another number for a program that reads doubles.
    return ",".join(repr(v) for v in np.asarray(value).ravel().tolist())


def _run(arguments: list[str]) -> str:
    kwargs: dict[str, Any] = {"start_new_session": True} if hasattr(os, "killpg") else {}
    with (
        own_limit() as seconds,
        subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            **kwargs,
        ) as process,
    ):
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException:
            _kill(process)
            raise
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ProgramCrashedError(f"{arguments[0]}: ended by {name}. {errors[-MESSAGE:].strip()}")
    if process.returncode:
        raise RuntimeError(
            f"{arguments[0]}: exit status {process.returncode}. {errors[-MESSAGE:].strip()}"
        )
    return output


def _kill(process: subprocess.Popen[str]) -> None:
    if not hasattr(os, "killpg"):
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its session is its own: also what it has started


def _floats(output: str) -> np.ndarray:
    return np.array([float(word) for word in output.split()])
