"""Runs a plan, in this process or in several, and writes each record down as it comes."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import configs, records
from benchmarks.clock import Clock, OutOfTime
from benchmarks.environment import cores, environment, pin, use_compilation_cache
from benchmarks.plan import Block, Cell, Plan
from benchmarks.records import Record
from benchmarks.run import run_block

SAVE_EVERY_SECONDS = 20.0
GRACE_SECONDS = 45.0
"""How long past the limit, or Ctrl-C, a worker may need to get out of a compiled program."""
FINISHED, OUT_OF_TIME, INTERRUPTED = "finished", "out of time", "interrupted"


class WorkerDiedError(RuntimeError):
    """A worker process ended without saying why: killed, or out of memory."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How a plan is run (what is made does not depend on it, only the seconds do).

    Attributes:
        out: The output directory.
        jobs: Processes; each has its own share of the cores.
        max_minutes: Wall-clock limit; what is then left is marked "not run".
        cache: Whether compiled programs are kept on disk between runs.
        progress: Whether to show a progress bar.
    """

    out: Path
    jobs: int = 1
    max_minutes: float | None = None
    cache: bool = True
    progress: bool = True


def run_plan(plan: Plan, options: Options) -> tuple[dict[str, Any], bool]:
    """Make the records of a plan that are not finished yet.

    Returns:
        The assembled results, and whether the user interrupted the run.
    """
    begin = time.time()
    clock = Clock(None if options.max_minutes is None else begin + 60.0 * options.max_minutes)
    known = records.latest(records.read(options.out))
    scored = min(plan.scored, configs.DRAWS)
    finished = {
        cell for cell, record in known.items() if records.is_finished(record, plan.metric, scored)
    }
    total = list(plan.all_cells())
    records.append(options.out, "plan", _announce(plan, options))
    reason, interrupted = FINISHED, False
    bar = tqdm(
        total=len(total),
        initial=sum(cell in finished for cell in total),
        desc="benchmark",
        unit="record",
        disable=not options.progress,
        smoothing=0.0,
    )
    with bar, _terminate_as_interrupt():
        try:
            _consume(_records(plan, options, finished, clock), options.out, bar)
        except OutOfTime:
            reason = f"the limit of {options.max_minutes:g} minutes was reached"
        except KeyboardInterrupt:
            reason, interrupted = "the run was interrupted", True
        except WorkerDiedError as error:
            reason = str(error)
            bar.write(reason, file=sys.stderr)
    end = {"reason": reason, "seconds": time.time() - begin}
    records.append(options.out, "end", end)
    return records.write_results(options.out), interrupted


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: workers stop too, and the report is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _announce(plan: Plan, options: Options) -> Record:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "plan": plan.to_json(),
        "started": now,
        "jobs": options.jobs,
        "cores": cores(),
        "cache": options.cache,
        "environment": environment(),
    }


def _consume(source: Iterator[Record], out: Path, bar: tqdm) -> None:
    """Write each record to the journal; the rest can be lost."""
    saved = time.monotonic()
    for record in source:
        records.append(out, "record", record)
        bar.set_description(f"{record['task']} {record['method']}")
        bar.update()
        if record["status"] == "failed":
            bar.write(f"failed: {label(record)}: {record['error']}", file=sys.stderr)
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            records.write_results(out)
            saved = time.monotonic()


def label(record: Record) -> str:
    """Return a record's identity for people."""
    cell = Cell.of(record)
    return (
        f"{cell.task} {cell.method}, {cell.budget} simulations, observation {cell.observation}, "
        f"seed {cell.seed}"
    )


def _records(plan: Plan, options: Options, finished: set[Cell], clock: Clock) -> Iterator[Record]:
    blocks = [
        block
        for block in plan.blocks()
        if any(c not in finished for method in plan.methods for c in plan.cells(block, method))
    ]
    jobs = min(options.jobs, len(blocks))
    if jobs > 1:
        yield from _in_processes(plan, blocks, options, finished, clock, jobs)
        return
    use_compilation_cache(options.cache)
    with clock.alarm():
        for block in blocks:
            yield from run_block(plan, block, finished, options.out, clock)


def _in_processes(
    plan: Plan, blocks: list[Block], options: Options, finished: set[Cell], clock: Clock, jobs: int
) -> Iterator[Record]:
    """Share blocks among processes; yield their records as they come."""
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads, not run them
    todo, done = context.Queue(), context.Queue()
    for block in blocks:
        todo.put(block)
    for _ in range(jobs):
        todo.put(None)
    shared = (plan, options, finished, clock, todo, done, jobs)
    workers = [context.Process(target=_work, args=(i, *shared)) for i in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        yield from _collect(workers, done, clock)
    finally:
        # The workers hear Ctrl-C too and end by themselves; a compilation may take a while.
        for worker in workers:
            worker.join(timeout=1.0 if clock.left() < 0 else GRACE_SECONDS)
            if worker.is_alive():
                worker.terminate()
        todo.cancel_join_thread()


def _collect(workers: list[Any], done: Any, clock: Clock) -> Iterator[Record]:
    """Yield records until every worker has said how it ended, or died.

    Raises:
        KeyboardInterrupt: If the run was interrupted; what the workers had finished is yielded.
        OutOfTime: If the time was over for one of them.
        WorkerDiedError: If one ended without a word.
    """
    ended: dict[int, str] = {}
    while len(ended) < len(workers):
        try:
            number, message = done.get(timeout=1.0)
        except KeyboardInterrupt:
            for worker in workers:
                _interrupt(worker)
            clock = Clock(time.time())
            continue
        except queue.Empty:
            for number, worker in enumerate(workers):
                if worker.exitcode is not None:
                    ended.setdefault(number, f"exit code {worker.exitcode}")
                elif clock.left() < -GRACE_SECONDS:
                    ended.setdefault(number, OUT_OF_TIME)
            continue
        if isinstance(message, str):
            ended[number] = message
        else:
            yield message
    for how in ended.values():
        if how == INTERRUPTED:
            raise KeyboardInterrupt
        if how.startswith("exit code"):
            raise WorkerDiedError(f"a worker process died ({how}; out of memory?)")
    if OUT_OF_TIME in ended.values():
        raise OutOfTime


def _interrupt(worker: Any) -> None:
    """Pass Ctrl-C on; from a terminal the worker has heard it too, which does no harm."""
    if worker.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGINT)


def _work(
    number: int,
    plan: Plan,
    options: Options,
    finished: set[Cell],
    clock: Clock,
    todo: Any,
    done: Any,
    jobs: int,
) -> None:
    """Run blocks until there are none left: the body of a worker process."""
    # A shell starts background jobs deaf to Ctrl-C, and that is inherited: hear `_interrupt`.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pin(number, jobs)
    use_compilation_cache(options.cache)
    how = FINISHED
    parent = multiprocessing.parent_process()
    try:
        with clock.alarm():
            for block in iter(todo.get, None):
                if parent is not None and not parent.is_alive():
                    return  # killed: nobody would write the records down
                for record in run_block(plan, block, finished, options.out, clock):
                    done.put((number, record))
    except OutOfTime:
        how = OUT_OF_TIME
    except KeyboardInterrupt:
        how = INTERRUPTED
    done.put((number, how))
