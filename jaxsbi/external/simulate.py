"""`simulate_external`: draws from the prior, simulated by any function on any executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxsbi.base import (
    Data,
    Key,
    Simulations,
    check_key,
    positive,
    warn,
)
from jaxsbi.draws import Block, Record, parameters, seeds
from jaxsbi.external import driver, results
from jaxsbi.external.driver import Draw
from jaxsbi.external.worker import Outcome
from jaxsbi.priors import Prior

if TYPE_CHECKING:
    from jaxsbi.store import Store

BLOCK = 256
"""Draws whose parameters are drawn at once."""

External = Callable[[int, dict[str, np.ndarray]], Data]


def simulate_external(
    key: Key,
    prior: Prior,
    function: External,
    n: int,
    *,
    executor: Executor | None = None,
    store: Store | None = None,
    timeout: float | None = None,
    retries: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[Simulations, Record]:
    """Simulate `n` data sets by a function outside JAX, in many processes.

    Draw i has its own θ and seed, which follow from the key and i only. What goes wrong is
    recorded for the draw that it happened to, and the others go on.

    Args:
        key: A typed key.
        prior: The prior over named parameters.
        function: `function(seed, theta) -> x`, for one draw: `seed` is an integer below 2³¹,
            `theta` a dict of NumPy arrays, and the result a pytree of arrays, which must be the
            same for the same arguments. Any function that cloudpickle can send will do; for a
            program, see `jaxsbi.command`.
        n: The number of draws.
        executor: A `concurrent.futures.Executor`, such as Dask's `client.get_executor()`; by
            default a pool of processes, which are replaced when they die. Where a worker of Dask's
            dies, Dask itself starts its draws again elsewhere.
        store: A `jaxsbi.Store` of the same key and prior. Chunks of draws are written as they are
            done, and those that it has are not simulated again. `n` is rounded up to whole
            chunks there; the first `n` are returned.
        timeout: Seconds that one attempt may take. In a process, whatever it is doing; in a thread
            (Dask's workers), Python code between two steps, and programs run by `command`.
        retries: How often a draw is tried again, with the same seed, after a timeout, a crash or
            an error.
        workers: The number of processes, by default that of the CPUs; of an executor that is
            given, the number of draws submitted at once, by default 256.
        progress: Show a progress bar.

    Returns:
        The simulations, of weight 0 where a draw failed (x is NaN there, or 0 for integers), and
        the record: status, attempts, seconds and message of each draw.

    Raises:
        TypeError: If the key is not typed, or `function` or `executor` is none.
        ValueError: If a number is out of range, the store is of another key or prior, or no draw
            succeeded; the message quotes the first failure.
        RuntimeError: If no worker process can be started, or a given executor breaks.
    """
    check_key(key)
    _check(function, n, executor, timeout, retries, workers)

    def outcomes(draws: Iterator[Draw]) -> Iterator[tuple[int, Outcome, int]]:
        return driver.run(
            function, draws, executor=executor, workers=workers, timeout=timeout, retries=retries
        )

    name = getattr(function, "__name__", repr(function))
    if store is not None:
        store.check(key, prior)
        store.fill_external(outcomes, name, n, progress)
        simulations, record = store.simulations(slice(n)), store.record(slice(n))
    else:
        simulations, record = _in_memory(key, prior, outcomes, n, progress)
    _report(record, name)
    return simulations, record


def _check(
    function: External,
    n: int,
    executor: Executor | None,
    timeout: float | None,
    retries: int,
    workers: int | None,
) -> None:
    if not callable(function):
        raise TypeError(
            f"function: expected function(seed, theta) -> x, got {type(function).__name__}. For a "
            "program, use jaxsbi.command([...])."
        )
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "executor: expected a concurrent.futures.Executor, got "
            f"{type(executor).__name__}. For Dask, pass client.get_executor()."
        )
    for name, value in (("n", n), ("workers", 1 if workers is None else workers)):
        positive(name, value)
    if retries < 0 or (timeout is not None and timeout <= 0):
        raise ValueError(
            "retries and timeout: expected no negative number and a positive one, got "
            f"{retries!r} and {timeout!r}."
        )


Run = Callable[[Iterator[Draw]], Iterator[tuple[int, Outcome, int]]]


def blocks(
    key: Key,
    law: Prior,
    run: Run,
    numbers: Iterator[int],
    size: int,
    last: int,
    settle: results.Settle,
    bar: tqdm,
) -> Iterator[tuple[int, Block]]:
    """Yield blocks of `size` draws, below `last`, as they are done: several are under way."""
    under_way: dict[int, tuple[dict[str, np.ndarray], np.ndarray, dict]] = {}
    template = None

    def draws() -> Iterator[Draw]:
        for number in numbers:
            index = np.arange(number * size, (number + 1) * size)
            theta, density = jax.tree.map(np.asarray, parameters(law, key, index.astype(np.uint32)))
            keep = min(size, last - number * size)  # the parameters of a block are one program
            theta = {name: theta[name][:keep] for name in law.names}
            under_way[number] = (theta, density[:keep], {})
            for i, (j, seed) in enumerate(zip(index[:keep], seeds(key, index), strict=False)):
                yield Draw(int(j), int(seed), {name: a[i, ...] for name, a in theta.items()})

    for index, outcome, attempts in run(draws()):
        bar.update()
        theta, density, found = under_way[index // size]
        found[index] = (outcome, attempts)
        if len(found) < len(density):
            continue
        del under_way[index // size]
        done, tried = zip(*(found[i] for i in sorted(found)), strict=True)
        if template is None and (common := results.common_template(done)) is not None:
            template = settle(common)
        yield index // size, results.assemble(theta, density, done, tried, template)


def _in_memory(
    key: Key, prior: Prior, run: Run, n: int, progress: bool
) -> tuple[Simulations, Record]:
    template: list[results.Template] = []

    def settle(first: results.Template) -> results.Template:
        template.append(first)
        return first

    numbers = iter(range(-(-n // BLOCK)))
    with tqdm(total=n, desc="simulate", unit="sim", disable=not progress, leave=False) as bar:
        found = dict(blocks(key, prior, run, numbers, BLOCK, n, settle, bar))
    parts = [found[i] for i in sorted(found)]
    record = joined([part.record for part in parts])
    if not template:
        raise ValueError(results.failure(record))
    x = [results.missing(template[0], len(p.weight)) if p.x is None else p.x for p in parts]
    theta, x, weight = jax.tree.map(
        lambda *a: jnp.asarray(results.held(np.concatenate(a))),
        *[(part.theta, x, part.weight) for part, x in zip(parts, x, strict=True)],
    )
    return Simulations({name: theta[name] for name in prior.names}, x, weight), record


def joined(records: list[Record]) -> Record:
    """Return the records one after the other."""
    return Record(
        np.concatenate([r.status for r in records]),
        np.concatenate([r.attempts for r in records]),
        np.concatenate([r.seconds for r in records]),
        tuple(message for r in records for message in r.message),
    )


def _report(record: Record, name: str) -> None:
    failed = {k: v for k, v in record.counts.items() if k != "ok"}
    if not failed:
        return
    if sum(failed.values()) == len(record):
        raise ValueError(results.failure(record))
    first = next(message for message in record.message if message)
    warn(
        f"{name}: {sum(failed.values())} of {len(record)} draws failed: {failed}; they have weight "
        "0 and are left out of training. A posterior learned without them ignores that part of "
        f"the prior; look at the record and at theta where weight == 0. The first one: {first}"
    )
