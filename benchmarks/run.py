"""One block of a plan: simulate once, train each method once, then sample and score.

Everything here runs in one process and yields records as it goes; `schedule.py` writes them down.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
import traceback
import warnings
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from benchmarks import configs, metrics
from benchmarks.clock import Clock
from benchmarks.environment import cache_hits, environment, peak_memory_mib
from benchmarks.plan import Block, Cell, Plan
from benchmarks.records import Record, save_draws
from jaxsbi.base import Fitted, Key, Posterior, Simulations, Theta

REPEAT_BELOW_SECONDS = 0.5
"""Sampling that is faster than this is timed three times: one is at the mercy of the scheduler."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the observations of one training share."""

    task: jaxsbi.tasks.Task
    posterior: Posterior
    record: Record


def run_block(
    plan: Plan, block: Block, finished: Collection[Cell], out: Path, clock: Clock
) -> Iterator[Record]:
    """Yield a record for each unfinished cell of a block, done or failed.

    Raises:
        OutOfTime: When the clock has run out; what was yielded is finished.
        KeyboardInterrupt: When the user stops the run.
    """
    todo = {
        method: [cell for cell in plan.cells(block, method) if cell not in finished]
        for method in plan.methods
    }
    if not any(todo.values()):
        return
    clock.check()
    try:
        task = jaxsbi.tasks.get(block.task)
        simulations, seconds = _simulate(block, task)
    except Exception as error:
        clock.check()  # compiled code may turn the alarm into an error of its own
        for cell in (cell for cells in todo.values() for cell in cells):
            yield _failed(cell, plan, error)
        return
    for cells in todo.values():
        if cells:
            clock.check()
            yield from _run_method(plan, cells, task, simulations, seconds, out, clock)


def _run_method(
    plan: Plan,
    cells: list[Cell],
    task: jaxsbi.tasks.Task,
    simulations: Simulations,
    simulate_seconds: float,
    out: Path,
    clock: Clock,
) -> Iterator[Record]:
    """Train once, and yield a record per observation."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trained = _train(cells[0], task, simulations)
        except Exception as error:
            clock.check()
            for cell in cells:
                yield _failed(cell, plan, error)
            return
        trained.record["simulate_seconds"] = simulate_seconds
        for cell in cells:
            clock.check()
            try:
                record = _observe(cell, plan, trained, out)
            except Exception as error:
                clock.check()
                yield _failed(cell, plan, error) | trained.record
                continue
            messages = dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning)
            yield record | {"warnings": list(messages)}


def key_for(seed: int, *purposes: str) -> Key:
    """Return the key for a purpose: the same in every process, and for every other grid."""
    key = jax.random.key(seed)
    for purpose in purposes:
        key = jax.random.fold_in(key, np.uint32(zlib.crc32(purpose.encode())))
    return key


def _simulate(block: Block, task: jaxsbi.tasks.Task) -> tuple[Simulations, float]:
    """Return the simulations that all methods of a block share, and the seconds they took."""
    key = key_for(block.seed, "simulate", block.task)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        # Counted in each record as num_invalid.
        warnings.filterwarnings("ignore", message="simulator ", category=UserWarning)
        simulations = jaxsbi.simulate(key, task.prior, task.simulator, block.budget, progress=False)
    jax.block_until_ready(simulations)
    return simulations, time.perf_counter() - begin


def _train(cell: Cell, task: jaxsbi.tasks.Task, simulations: Simulations) -> Trained:
    """Train a method and draw once, which compiles its sampling; both timed."""
    entry = configs.METHODS[cell.method]
    hits = cache_hits()
    key = key_for(cell.seed, "train", cell.task, cell.method)
    fitted = jaxsbi.fit(
        key, entry.method(task), task.prior, simulations, progress=False, **entry.fit
    )
    if fitted.history.stopped == "interrupted":
        # A training that was cut short is no result: the run stops instead.
        raise KeyboardInterrupt
    x = jnp.zeros(task.x_shape, task.x_dtype)
    begin = time.perf_counter()
    _draw(fitted.posterior, jax.random.key(0), x)
    first = time.perf_counter() - begin
    record = _history(fitted) | {
        "sample_seconds": {"first": first},
        "compile_cache_hits": cache_hits() - hits,
    }
    return Trained(task, fitted.posterior, record)


def _draw(posterior: Posterior, key: Key, x: Any) -> tuple[Theta, Any]:
    """Draw as a user does; chains on an observation of zeros may warn, which says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jax.block_until_ready(posterior.sample_with_info(key, x, configs.DRAWS))


def _history(fitted: Fitted) -> Record:
    history = fitted.history
    return {
        "train_seconds": {"compile": history.compile_seconds, "run": history.run_seconds},
        "validation_loss": history.best_loss,
        "epochs": history.epochs,
        "best_epoch": int(np.max(history.best_epoch)),
        "stopped": history.stopped,
        "num_simulations": list(history.num_simulations),
        "num_invalid": history.num_invalid,
    }


def _observe(cell: Cell, plan: Plan, trained: Trained, out: Path) -> Record:
    """Sample and score one observation."""
    reference = jaxsbi.tasks.reference(cell.task, cell.observation)
    key = key_for(cell.seed, "sample", cell.task, cell.method, str(cell.observation))
    x = jnp.asarray(reference.x, trained.task.x_dtype)
    (theta, info), seconds = _timed(trained.posterior, key, x)
    if hasattr(info, "warn"):
        info.warn()
    draws = np.asarray(jax.vmap(trained.task.flatten)(theta))
    if not np.all(np.isfinite(draws)):
        count = int(np.sum(~np.isfinite(draws).all(axis=1)))
        raise FloatingPointError(f"{count} of {len(draws)} draws are NaN or infinite")
    first = trained.record["sample_seconds"]["first"]
    score = metrics.score(draws, reference.posterior_samples, plan.metric, plan.scored)
    kept = draws[:: max(1, len(draws) // configs.KEPT_DRAWS)]
    return _head(cell, plan, "done") | trained.record | score | {
        "sample_seconds": {"compile": max(first - seconds, 0.0), "run": seconds},
        "peak_memory_mib": peak_memory_mib(),
        "draws": len(draws),
        "draws_file": save_draws(out, cell, kept),
        "info": summarize_info(info),
    }  # fmt: skip


def _timed(posterior: Posterior, key: Key, x: Any) -> tuple[Any, float]:
    """Return what was drawn, and the seconds it took (the median of three where it is fast)."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        drawn = _draw(posterior, key, x)
        seconds.append(time.perf_counter() - begin)
        if seconds[0] > REPEAT_BELOW_SECONDS:
            break
    return drawn, float(np.median(seconds))


def summarize_info(info: Any) -> dict[str, float]:
    """Return what a sampler reports as a few numbers: the worst dimension of each."""
    worst = {
        "r_hat": ("r_hat_max", np.max),
        "ess_bulk": ("ess_bulk_min", np.min),
        "ess_tail": ("ess_tail_min", np.min),
        "divergences": ("divergences", np.sum),
        "acceptance": ("acceptance", np.mean),
    }
    return {
        label: float(reduce(np.asarray(getattr(info, name))))
        for name, (label, reduce) in worst.items()
        if hasattr(info, name)
    }


def _head(cell: Cell, plan: Plan, status: str) -> Record:
    """Return what every record says of itself."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        **cell._asdict(),
        "status": status,
        "error": None,
        "configuration": plan.methods[cell.method],
        "road": configs.METHODS[cell.method].road,
        **environment(),
        "timestamp": now,
    }


def _failed(cell: Cell, plan: Plan, error: Exception) -> Record:
    """Return the row of a cell that failed: its error, and where it arose."""
    text = f"{type(error).__name__}: {error}"
    where = "".join(traceback.format_exception(error))[-4000:]
    return _head(cell, plan, "failed") | {"error": text, "traceback": where}
