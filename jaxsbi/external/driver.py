"""Keep an executor busy with draws, try again what failed, and see worker processes die."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from typing import Any, NamedTuple, Protocol

import cloudpickle
import numpy as np

from jaxsbi.base import Data
from jaxsbi.external import worker
from jaxsbi.external.worker import Outcome

IN_FLIGHT = 256
"""Draws submitted at once to an executor of the user's, which does not say how many it runs."""
AGAIN = ("timeout", "crashed", "error")
"""What another attempt may mend; an invalid result would only come again."""


class Draw(NamedTuple):
    """What is known of a draw beforehand."""

    number: int
    seed: int
    theta: dict[str, np.ndarray]


class _Trial(NamedTuple):
    draw: Draw
    attempt: int
    seconds: float


class _Slot(Protocol):
    """Runs one draw at a time."""

    def submit(self, *arguments: Any) -> Future[Outcome]: ...

    def broken(self, error: BrokenExecutor) -> float: ...

    def close(self, kill: bool) -> None: ...


def run(
    function: Callable[..., Data],
    draws: Iterator[Draw],
    *,
    executor: Executor | None,
    workers: int | None,
    timeout: float | None,
    retries: int,
) -> Iterator[tuple[int, Outcome, int]]:
    """Yield the number, the outcome and the number of attempts of each draw as it is done."""
    code = cloudpickle.dumps(function)
    idle = _slots(executor, workers, code)
    slots, kill = list(idle), True
    again: collections.deque[_Trial] = collections.deque()
    running: dict[Future[Outcome], tuple[_Slot, _Trial, float]] = {}
    try:
        while True:
            while idle:
                trial = again.popleft() if again else _next(draws)
                if trial is None:
                    break
                slot = idle.pop()
                _, seed, theta = trial.draw
                future = slot.submit(worker.attempt, code, trial.attempt, seed, theta, timeout)
                running[future] = (slot, trial, time.monotonic())
            if not running:
                kill = False
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                slot, trial, began = running.pop(future)
                outcome = _outcome(future, slot, began, timeout)
                idle.append(slot)
                seconds = trial.seconds + outcome.seconds
                if outcome.status in AGAIN and trial.attempt <= retries:
                    again.append(_Trial(trial.draw, trial.attempt + 1, seconds))
                else:
                    yield trial.draw.number, outcome._replace(seconds=seconds), trial.attempt
    finally:
        for future in running:
            future.cancel()
        for slot in slots:
            slot.close(kill)


def _next(draws: Iterator[Draw]) -> _Trial | None:
    draw = next(draws, None)
    return None if draw is None else _Trial(draw, 1, 0.0)


def _outcome(future: Future[Outcome], slot: _Slot, began: float, timeout: float | None) -> Outcome:
    elapsed = time.monotonic() - began
    try:
        return future.result()
    except BrokenExecutor as error:
        # Not from the start of the process on, which may take longer than a draw.
        elapsed = time.monotonic() - max(began, slot.broken(error))
        if timeout is not None and elapsed >= timeout + worker.GRACE:
            return Outcome("timeout", None, elapsed, f"not done after {timeout} s; was ended")
        message = "the worker process ended during the draw (killed, out of memory, os._exit, …)"
        return Outcome("crashed", None, elapsed, message)
    except CancelledError:
        raise RuntimeError(
            "executor: expected it to run what it was given, but it cancelled a draw. Is the "
            "cluster still up? With store=, the draws that are done are kept: run again."
        ) from None
    except Exception as error:  # the function's own are caught where it runs
        return Outcome("crashed", None, elapsed, f"{type(error).__name__}: {error}")


def _slots(executor: Executor | None, workers: int | None, code: bytes) -> list[_Slot]:
    if executor is not None:
        return [_Given(executor)] * (workers or IN_FLIGHT)
    # A process that forks is a danger once JAX runs threads in it. The fork server is a process
    # of its own that has imported jaxsbi and no more, so that a new worker starts at once.
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["jaxsbi"])
    own = [_Own(context, code) for _ in range(workers or os.cpu_count() or 1)]
    own[0].check()
    return list(own)


class _Own:
    """One process in a pool of its own: if it dies, it is known which draw it was at."""

    def __init__(self, context: Any, code: bytes) -> None:
        self._context, self._code = context, code
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None
        self._ready = 0.0

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, self._context, initializer=worker.start)
            self._pid = self._pool.submit(worker.ready, self._code)
            self._pid.add_done_callback(self._is_ready)
        return self._pool

    def _is_ready(self, _: Future[int]) -> None:
        self._ready = time.monotonic()

    def check(self) -> None:
        """Raise a RuntimeError if no process can be started."""
        try:
            self._started()
            assert self._pid is not None
            self._pid.result()
        except BrokenExecutor:
            raise RuntimeError(
                "simulate_external: expected to start worker processes, but the first one ended "
                "at once. Each of them imports your program: call simulate_external below "
                'if __name__ == "__main__": (see the standard library\'s multiprocessing).'
            ) from None

    def submit(self, *arguments: Any) -> Future[Outcome]:
        """Start a draw; a process that has died since the last one is replaced."""
        try:
            return self._started().submit(*arguments)
        except BrokenExecutor:
            self._pool = None
            return self._started().submit(*arguments)

    def broken(self, error: BrokenExecutor) -> float:
        """Leave the pool of a process that has died, and return when that was ready."""
        assert self._pool is not None
        self._pool.shutdown(wait=False)
        self._pool = None
        return self._ready

    def close(self, kill: bool) -> None:
        """End the process, at once with `kill`."""
        if self._pool is None:
            return
        if kill and self._pid is not None and self._pid.done() and not self._pid.exception():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid.result(), signal.SIGTERM)
        self._pool.shutdown(wait=not kill, cancel_futures=True)


class _Given:
    """A place in the user's executor, which is neither mended nor shut down here."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, *arguments: Any) -> Future[Outcome]:
        """Start a draw."""
        try:
            return self._executor.submit(*arguments)
        except BrokenExecutor as error:
            self.broken(error)
            raise

    def broken(self, error: BrokenExecutor) -> float:
        """Raise: only its owner can make a new one."""
        raise RuntimeError(
            f"executor: {type(self._executor).__name__} is broken: {error} With store=, the draws "
            "that are done are kept: make a new executor and run again. (The default one "
            "replaces worker processes that die.)"
        ) from error

    def close(self, kill: bool) -> None:
        """Do nothing."""
