"""A wall-clock limit that also ends work in progress, and the clock for single calls."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax


class OutOfTime(BaseException):
    """The wall-clock limit has been reached. Like KeyboardInterrupt, no `except Exception`."""


class Clock:
    """A limit on the wall clock, which several processes can share.

    Attributes:
        end: The time, as `time.time()` gives it, at which it runs out; None for never.
    """

    def __init__(self, end: float | None = None) -> None:
        self.end = end

    def left(self) -> float:
        """Return the seconds left."""
        return float("inf") if self.end is None else self.end - time.time()

    def check(self) -> None:
        """Raise OutOfTime if there is no time left."""
        if self.left() <= 0:
            raise OutOfTime

    @contextlib.contextmanager
    def alarm(self) -> Iterator[None]:
        """Raise OutOfTime in the block when the time is over, wherever Python code then runs.

        A compiled program is not cut short, but training comes up for air every half second.
        Where the system has no alarm, only `check` ends the work.
        """
        main = threading.current_thread() is threading.main_thread()
        if self.end is None or not main or not hasattr(signal, "setitimer"):
            yield
            return

        def ring(*_: Any) -> None:
            raise OutOfTime

        previous = signal.signal(signal.SIGALRM, ring)
        # It repeats: an exception inside a destructor is printed and lost.
        signal.setitimer(signal.ITIMER_REAL, max(self.left(), 1e-3), 1.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, previous)


def clocked(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return a call's value, and its wall and CPU seconds: other jobs hardly disturb the latter."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return value, {name: round(second, 6) for name, second in seconds.items()}


def twice(work: Callable[[], Any]) -> tuple[Any, dict[str, dict[str, float]]]:
    """Return a value, and the seconds of the first call, which compiles, and of the second."""
    _, first = clocked(lambda: jax.block_until_ready(work()))
    value, later = clocked(lambda: jax.block_until_ready(work()))
    return value, {"first": first, "later": later}
