"""One attempt at one draw, in the process or thread where the user's function runs."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cloudpickle
import jax
import numpy as np

from jaxsbi.base import Data
from jaxsbi.missing import refuse_masked_arrays

GRACE = 2.0
"""Seconds after the time limit at which a process that does not react is ended."""
MESSAGE = 2_000

_local = threading.local()


class Outcome(NamedTuple):
    """What one attempt came to: a status of `draws.STATUSES`, and x as NumPy arrays if "ok"."""

    status: str
    x: Data
    seconds: float
    message: str


class TimeLimitError(BaseException):
    """The time is up; no `except Exception` of a simulator's swallows it."""


class TerminatedError(BaseException):
    """The host has given up (Ctrl-C, an error there): let go of what runs."""


class ProgramCrashedError(Exception):
    """A program was ended by a signal."""


def start() -> None:
    """Prepare a worker process: Ctrl-C is for the host, which then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)


def ready(code: bytes) -> int:
    """Load the function, which may take longer than a draw, and return the process's number."""
    with contextlib.suppress(Exception):  # `attempt` will tell
        _load(code)
    return os.getpid()


def _terminated(*_: Any) -> None:
    raise TerminatedError


@functools.lru_cache(maxsize=4)
def _load(code: bytes) -> Callable[..., Data]:
    return cloudpickle.loads(code)


def attempt(
    code: bytes, number: int, seed: int, theta: dict[str, np.ndarray], timeout: float | None
) -> Outcome:
    """Call the pickled function once. `number` tells attempts apart for executors that remember."""
    del number
    began = time.perf_counter()
    try:
        function = _load(code)
        began = time.perf_counter()  # the first call in a process imports the user's modules
        with time_limit(timeout):
            x = function(seed, theta)
        status, x, message = _as_numpy(x)
    except (TimeLimitError, subprocess.TimeoutExpired):
        status, x, message = "timeout", None, f"not done after {timeout} s"
    except ProgramCrashedError as error:
        status, x, message = "crashed", None, str(error)
    except (Exception, SystemExit) as error:
        status, x, message = "error", None, f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    if status == "ok" and timeout is not None and seconds > timeout:
        # In a thread, what Python cannot interrupt.
        status, x, message = "timeout", None, f"done after {seconds:.3g} s instead of {timeout} s"
    return Outcome(status, x, seconds, message[-MESSAGE:])


def _as_numpy(x: Data) -> tuple[str, Data, str]:
    try:
        refuse_masked_arrays("x", x)
    except ValueError as error:
        return "invalid", None, str(error)
    arrays = jax.tree.map(np.asarray, x)
    leaves = jax.tree.leaves(arrays)
    wrong = [str(a.dtype) for a in leaves if a.dtype.kind not in "biufc"]
    if wrong or not leaves:
        came = f"dtype {wrong[0]}" if wrong else repr(x)[:200]
        return "invalid", None, f"expected a pytree of arrays of numbers, got {came}"
    return "ok", arrays, ""


@contextmanager
def own_limit() -> Iterator[float | None]:
    """Let the body keep the time limit itself; yield the seconds that are left, or `None`.

    For what must not be interrupted while it clears up.
    """
    deadline = getattr(_local, "deadline", None)
    _local.paused = True
    try:
        yield None if deadline is None else max(deadline - time.monotonic(), 1e-3)
    finally:
        _local.paused = False


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeLimitError` in the body after some seconds.

    In a process's main thread by an alarm; compiled code that doesn't return to Python misses it,
    so that a worker process is ended `GRACE` seconds later. In other threads the exception is
    set from outside: it comes when the thread is back in Python code.
    """
    if seconds is None:
        yield
        return
    _local.deadline, _local.paused = time.monotonic() + seconds, False
    in_main = threading.current_thread() is threading.main_thread()
    try:
        if in_main and hasattr(signal, "setitimer"):
            with _watchdog(seconds + GRACE), _alarm(seconds):
                yield
        else:
            with (
                _watchdog(seconds + GRACE) if in_main else contextlib.nullcontext(),
                _set_from_outside(seconds),
            ):
                yield
    finally:
        _local.deadline = None


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        if not _local.paused:
            raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _watchdog(seconds: float) -> Iterator[None]:
    """End this process if it is a worker and does not react: needs neither signals nor the GIL."""
    if multiprocessing.parent_process() is None or sys.__stderr__ is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def _set_from_outside(seconds: float) -> Iterator[None]:
    thread, lock, over, state = threading.get_ident(), threading.Lock(), [False], _local.__dict__

    def ring() -> None:
        with lock:
            if not over[0] and not state["paused"]:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(TimeLimitError)
                )

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:  # an exception that was set before comes within, not in the executor's code
            over[0] = True
            time.sleep(0)
        timer.cancel()
