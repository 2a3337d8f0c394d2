"""How the host runs a training: what it compiles, how long a chunk is, what it writes down."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jaxsbi import checkpoint, devices
from jaxsbi.base import (
    Array,
    Data,
    DataSpec,
    Fitted,
    History,
    Method,
    Posterior,
    Simulations,
    Variables,
    check_key,
)
from jaxsbi.fingerprint import digest, program
from jaxsbi.interrupt import Interrupt
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.networks.seeding import check_modules
from jaxsbi.priors import Prior
from jaxsbi.reach import Reach
from jaxsbi.training import PROGRAMS, Plan, Source, TrainState
from jaxsbi.windows import Windows

CHUNK_SECONDS = 0.5

LONG_ROWS = 500_000
"""Rows seen in all steps from which on faster code is worth two more seconds of compiling; the
default training on 10,000 simulations sees 700,000."""


class Outcome(NamedTuple):
    """How a training ended: its state, the seconds of compiling and running, and whether the user
    stopped it.
    """  # noqa: D205

    state: TrainState
    compile_seconds: float
    run_seconds: float
    interrupted: bool


def train(
    method: Method,
    prior: Prior,
    optimizer: optax.GradientTransformation,
    plan: Plan,
    rows: Simulations,
    source: Source | Windows,
    validation: Simulations,
    keys: Array,
    start: Variables | None,
    progress: bool,
    path: Path | None = None,
) -> Outcome:
    """Compile and run one training, or go on with one.

    Args:
        method: The road.
        prior: The prior as the method's `loss` sees it.
        optimizer: The Optax transformation.
        plan: Its sizes.
        rows: The simulations that statistics are taken from.
        source: Where each step's simulations come from; of windows, each serves one epoch.
        validation: The whole validation set, in whole batches.
        keys: One for each member.
        start: The members' variables to start from; new ones if None.
        progress: Whether to show a progress bar.
        path: The checkpoint's file.

    Raises:
        FloatingPointError: If a loss becomes NaN or infinite.
        ValueError: If the checkpoint is damaged, or another training's.
    """
    begin = time.perf_counter()
    initial, chunk = PROGRAMS[_program(plan)]
    beginning = (optimizer, plan, method, prior, rows, keys, start)
    devices.check_equal(plan.mesh, (method, prior, rows, validation, keys))
    before, keep = None, _keep_nothing
    if path is not None:
        like = initial.eval_shape(*beginning)
        given = {"method": method, "prior": prior, "simulations": (rows, validation), "key": keys}
        given |= {"initial": start, "source": None if source is rows else _about(source)}
        mark = _fingerprint(given, plan, optimizer, like)
        before = _read(path, mark, like, plan)
        if devices.writes(plan.mesh):
            keep = functools.partial(_write, path, mark)
    if before is not None and not before.interrupted:
        return before
    if path is not None and devices.writes(plan.mesh):
        checkpoint.check_writable(path)
    state = devices.placed(plan.mesh, before.state if before else initial(*beginning))
    arrays = devices.placed(plan.mesh, (method, prior, validation))
    run = functools.partial(_chunk, chunk, optimizer, plan, *arrays)

    def outcome(state: TrainState, interrupted: bool) -> Outcome:
        compiling, running = compiled - begin, time.perf_counter() - compiled
        if before is not None:
            compiling, running = compiling + before.compile_seconds, running + before.run_seconds
        return Outcome(devices.local(plan.mesh, state), compiling, running, interrupted)

    with (
        source
        if isinstance(source, Windows)
        else nullcontext(devices.placed(plan.mesh, source)) as rows_of_steps
    ):
        run = functools.partial(run, rows_of_steps)
        epochs = int(np.max(state.epoch))
        # Zero epochs: this call only compiles.
        state = jax.block_until_ready(run(state, epochs, epochs))
        compiled = time.perf_counter()
        longest = 1 if isinstance(source, Windows) else plan.max_epochs
        state, interrupted = _run(
            run, state, plan, longest, progress, lambda now: keep(outcome(now, True))
        )
    _check_finite(state, plan)
    ended = outcome(state, interrupted)
    keep(ended)
    devices.gathered(plan.mesh, 0)  # no process goes on to read what is being written
    return ended


def _chunk(
    chunk: Any,
    optimizer: optax.GradientTransformation,
    plan: Plan,
    method: Method,
    prior: Prior,
    validation: Simulations,
    source: Source | Windows,
    state: TrainState,
    epochs: int,
    stop: int,
) -> TrainState:
    """Run the epochs from `epochs` to `stop`; on windows, one at most."""
    if isinstance(source, Windows):
        source = source.at(epochs, plan.max_epochs, plan.mesh)
    return chunk(optimizer, plan, method, prior, source, validation, state, np.int32(stop))


def _about(source: Source | Windows) -> Any:
    return source.about if isinstance(source, Windows) else source


def _fingerprint(
    given: dict[str, Any], plan: Plan, optimizer: optax.GradientTransformation, like: TrainState
) -> checkpoint.Fingerprint:
    """Return all that a training's result depends on.

    Streams are told apart by the first simulations, which were drawn from them.
    """
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), like)
    params = one.best if plan.trees else one.params
    return {
        **{name: digest(value) for name, value in given.items()},
        **{field.name: str(getattr(plan, field.name)) for field in dataclasses.fields(plan)},
        "optimizer": program(optimizer.update, params, one.optimizer, params),
        "state": digest([(a.shape, str(a.dtype)) for a in jax.tree.leaves(like)]),
        **checkpoint.machine(),
    }


def _read(path: Path, mark: checkpoint.Fingerprint, like: TrainState, plan: Plan) -> Outcome | None:
    """Return how far a training has come, or None at its beginning."""
    saved = checkpoint.read(path, mark, like)
    found = devices.gathered(plan.mesh, -1 if saved is None else int(np.max(saved.tree.epoch)))
    if np.any(found != found[0]):
        raise ValueError(
            f"checkpoint {path}: expected a folder that all processes of the mesh see, got one in "
            f"which they find the epochs {found.tolist()} (-1 for none). Pass a shared folder."
        )
    if saved is None:
        return None
    # Copies, for the loop over epochs writes its state over what it is given.
    return Outcome(jax.tree.map(jnp.array, saved.tree), **saved.about)


def _write(path: Path, mark: checkpoint.Fingerprint, outcome: Outcome) -> None:
    """Write down how far a training has come; one that failed is not gone on with."""
    state, about = outcome.state, outcome._asdict()
    del about["state"]
    if not np.any(np.asarray(state.failed)):
        checkpoint.write(path, mark, state, about)


def _keep_nothing(outcome: Outcome) -> None:
    """Without a checkpoint."""


def _program(plan: Plan) -> str:
    """Return which compiled program trains: on CPUs faster code takes longer to compile."""
    if jax.default_backend() != "cpu":
        return "accelerator"
    return "cpu, long" if plan.rows > LONG_ROWS else "cpu"


def _run(
    run: Any,
    state: TrainState,
    plan: Plan,
    longest: int,
    progress: bool,
    keep: Callable[[TrainState], None],
) -> tuple[TrainState, bool]:
    """Run chunks of at most `longest` epochs until every member is done, or the user interrupts.

    `keep` writes the state down now and then.
    """
    epochs, chunk, done, interrupted = int(np.max(state.epoch)), 1, False, False
    kept = time.perf_counter()
    with (
        Interrupt() as interrupt,
        tqdm(
            total=plan.max_epochs, initial=epochs, desc="fit", unit="epoch", disable=not progress
        ) as bar,
    ):
        while not done and not interrupted:
            begin = time.perf_counter()
            state = run(state, epochs, min(epochs + chunk, plan.max_epochs))
            # One small copy per chunk is all the host ever waits for.
            now, done_now, best = jax.device_get((state.epoch, state.done, state.best_loss))
            seconds = time.perf_counter() - begin
            ran = int(now.max()) - epochs
            epochs = int(now.max())
            done = bool(done_now.all()) or epochs >= plan.max_epochs
            bar.update(ran)
            bar.set_postfix(validation=f"{best.mean():.4f}")
            chunk = max(1, min(longest, round(ran * CHUNK_SECONDS / max(seconds, 1e-3))))
            # All processes run the same chunks, and stop together.
            chunk = int(devices.gathered(plan.mesh, chunk).min())
            interrupted = bool(devices.gathered(plan.mesh, interrupt.seen).any())
            if not done and time.perf_counter() - kept >= checkpoint.EVERY_SECONDS:
                keep(state)
                kept = time.perf_counter()
    return state, interrupted and not done


def _check_finite(state: TrainState, plan: Plan) -> None:
    failed = np.asarray(state.failed)
    if not failed.any():
        return
    member = int(np.argmax(failed))
    epoch = int(state.epoch[member])
    which = f" of member {member}" if failed.size > 1 else ""
    raise FloatingPointError(
        f"fit: the loss{which} became NaN or infinite in epoch {epoch} (of {plan.max_epochs}). "
        "Try a smaller learning rate, optax.clip_by_global_norm, and look for extreme values in "
        "simulations.x (heavy tails: take logarithms); jax.config.update('jax_debug_nans', True) "
        "finds the operation."
    )


def fitted(
    method: Method,
    prior: Prior,
    about: tuple[DataSpec, Reach | None],
    ensemble: int | None,
    state: TrainState,
    history: History,
) -> Fitted:
    """Return the posterior of what was kept, and the history."""
    variables = {"params": state.best, "statistics": state.statistics}
    if ensemble is None:
        variables = _only(variables)
    else:
        method = Ensemble(method=method, size=ensemble)
    return Fitted(Posterior(variables, prior, method, *about), history)


def about(method: Method, x: Data) -> tuple[DataSpec, Reach | None]:
    """Return what a posterior keeps of the data of training (all of them, or the first)."""
    data = DataSpec.of(x, batched=True)
    if getattr(method, "noiseless", False):
        return data, None
    return data, Reach.of(x, members=getattr(method, "iid", False))


def history(
    outcome: Outcome, plan: Plan, num_simulations: tuple[int, int], num_invalid: int
) -> History:
    """Return what a training tells its user."""
    state = outcome.state
    epochs = int(np.max(state.epoch))
    train = np.asarray(state.train_loss)[:, :epochs]
    validation = np.asarray(state.validation_loss)[:, :epochs]
    best = np.asarray(state.best_epoch)
    if best.size == 1:
        train, validation, best = train[0], validation[0], best[0]
    stopped = "interrupted" if outcome.interrupted else "patience"
    if not outcome.interrupted and bool(np.any(np.asarray(state.epoch) >= plan.max_epochs)):
        stopped = "max_epochs"
    return History(
        train_loss=train,
        validation_loss=validation,
        best_epoch=best,
        stopped=stopped,
        compile_seconds=outcome.compile_seconds,
        run_seconds=outcome.run_seconds,
        num_simulations=num_simulations,
        num_invalid=num_invalid,
    )


@functools.lru_cache(maxsize=256)
def default_optimizer(num_steps: int, peak: float = 4e-3) -> optax.GradientTransformation:
    """Return Adam with gradient clipping and a warmed-up cosine schedule of `num_steps` steps.

    Cached, so that fits of equal size share one compiled program.
    """
    warmup = max(1, min(100, num_steps // 20))
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(num_steps, warmup + 1))
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))


def check_options(key: Any, method: Any, optimizer: Any, ensemble: int | None) -> None:
    """Raise an error for what can't be trained, or trained with."""
    check_key(key)
    if not isinstance(method, Method) or isinstance(method, type):
        raise TypeError(
            "method: expected a configured method such as jaxsbi.npe(), got "
            f"{getattr(method, '__name__', None) or repr(method)}. Did you forget to call it?"
        )
    check_modules(method)
    if optimizer is not None and not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer: expected an Optax transformation such as optax.adam(1e-3), got "
            f"{getattr(optimizer, '__name__', None) or repr(optimizer)}."
        )
    if ensemble is not None and ensemble < 1:
        raise ValueError(f"ensemble: expected a positive number of members, got {ensemble}.")


def start_from(
    initial: Posterior | None, method: Method, prior: Prior, ensemble: int | None
) -> Variables | None:
    """Return the variables to start from, with a leading axis of members; None for new ones."""
    if initial is None:
        return None
    wanted = method if ensemble is None else Ensemble(method=method, size=ensemble)
    if not equal(initial.method, wanted):
        raise ValueError(
            f"initial: expected a posterior of {wanted}, got one of {initial.method}. Go on with "
            "the method and the `ensemble` it was trained with, or leave `initial` out."
        )
    if not equal(initial.prior, prior):
        raise ValueError(
            "initial: expected a posterior trained under this prior, whose coordinates its network "
            "works in, got one under another. Pass `prior=initial.prior`."
        )
    # Copies, for the loop over epochs writes its state over what it is given.
    return jax.tree.map(jnp.copy, initial.variables if ensemble else _one(initial.variables))


def equal(a: Any, b: Any) -> bool:
    """Whether two configurations have equal structure and equal arrays."""
    some, others = jax.tree.leaves(a), jax.tree.leaves(b)
    structure: Any = jax.tree.structure(a)
    return structure == jax.tree.structure(b) and all(map(np.array_equal, some, others))


@jax.jit
def _one(variables: Variables) -> Variables:
    """Return the variables as those of one member of several."""
    return jax.tree.map(lambda a: a[None], variables)


@jax.jit
def _only(variables: Variables) -> Variables:
    """Return the variables of the only member."""
    return jax.tree.map(lambda a: a[0], variables)
