"""Training as one compiled program: epochs, validation, early stopping and best variables.

The host only decides how many epochs the next chunk runs (about half a second of them); the
result does not depend on it. Progress, Ctrl-C and failures are seen between chunks.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jaxsbi.base import (
    ONCE_OPTIONS,
    Array,
    DataSpec,
    Fitted,
    History,
    Key,
    Method,
    Posterior,
    Simulations,
    Variables,
    check_key,
)
from jaxsbi.interrupt import Interrupt
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.priors import Prior
from jaxsbi.splitting import repeated, split
from jaxsbi.training import PROGRAMS, Plan, TrainState

CHUNK_SECONDS = 0.5
MAX_EVALUATION_BATCH = 2048
TARGET_STEPS = 5_600
"""Optimiser steps that the default number of epochs aims at, where the method does not say."""

LONG_ROWS = 500_000
"""Rows seen in all steps from which on faster code is worth two more seconds of compiling; the
default training on 10,000 simulations sees 700,000."""


def fit(
    key: Key,
    method: Method,
    prior: Prior,
    simulations: Simulations,
    *,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    patience: int = 24,
    validation_fraction: float = 0.1,
    ensemble: int | None = None,
    refit: bool = False,
    initial: Posterior | None = None,
    capacity: int | None = None,
    progress: bool = True,
) -> Fitted:
    """Train a method on simulations and return the amortized posterior.

    The whole validation set is scored after each epoch, and the variables of the best epoch are
    kept. Pressing Ctrl-C once stops cleanly and returns the best so far; twice raises.

    Args:
        key: A typed key: the same key gives the same posterior on the same machine.
        method: `jaxsbi.npe()`, `fmpe()`, `npse()`, `nle()`, `nre()`, `emulator(...)`.
        prior: The prior that the simulations were drawn from.
        simulations: What `simulate` returned; rows of weight 0 are left out.
        optimizer: Any Optax transformation; by default Adam with gradient clipping and a
            warmed-up cosine schedule that ends with `max_epochs`. Its steps
            are made smaller, from the best variables so far, each time a quarter of `patience`
            passes without a better validation loss.
        batch_size: Rows per step; by default chosen from the number of simulations.
        max_epochs: Passes over the training part; by default fewer for more simulations.
        patience: Stop after this many epochs without a better validation loss.
        validation_fraction: Share of the simulations held out.
        ensemble: Train this many members at once, each with its own initialisation, order of
            batches and stopping.
        refit: Train a second time, on all simulations and for as many epochs as were best, and
            keep its last variables. The history is that of the first training, with the seconds
            of both.
        initial: A posterior to go on from: what it has learned is where training starts, and its
            data statistics are kept. It must be of the same method, prior and `ensemble`.
        capacity: Train as if there were this many simulations, by repeating those there are: one
            compiled program then serves data that grow from fit to fit.
        progress: Show a progress bar.

    Returns:
        The posterior and the history of its training.

    Raises:
        TypeError: If the key is not typed, `method` is not a configured method, or `optimizer`
            is no Optax transformation.
        ValueError: If there are too few simulations, a batch is larger than the training part,
            or an option is out of its range.
        FloatingPointError: If the loss becomes NaN or infinite; the message names the epoch.
    """
    check_key(key)
    _check_method(method)
    rows, cut = split(simulations, validation_fraction, prior)
    used = (cut, len(rows) - cut)
    num_invalid = len(simulations) - len(rows)
    if capacity is not None:
        rows, cut = repeated(rows, cut, capacity, validation_fraction)
    held_out = len(rows) - cut
    target = getattr(method, "steps", TARGET_STEPS)
    plan = _plan(cut, held_out, batch_size, max_epochs, patience, target)
    plan = dataclasses.replace(plan, trees=optimizer is not None)
    if optimizer is None:
        optimizer = default_optimizer(plan.steps * plan.max_epochs)
    _check_optimizer(optimizer)
    members = _check_members(ensemble)
    start = None if initial is None else _start(initial, method, prior, ensemble)

    train = functools.partial(_train, method, prior, rows, optimizer, progress)
    state, seconds, interrupted = train(plan, cut, jax.random.split(key, members), start)
    _check_finite(state, plan)
    kept = state
    if refit and not interrupted:
        kept, seconds = _refit(train, state, plan, len(rows), key, seconds, start)
    history = _history(state, plan, interrupted, seconds, used, num_invalid)
    variables = {"params": kept.best, "statistics": kept.statistics}
    if ensemble is None:
        variables = _only(variables)
    else:
        method = Ensemble(method=method, size=members)
    data = DataSpec.of(simulations.x, batched=True)
    return Fitted(Posterior(variables, prior, method, data), history)


def _train(
    method: Method,
    prior: Prior,
    rows: Simulations,
    optimizer: optax.GradientTransformation,
    progress: bool,
    plan: Plan,
    cut: int,
    keys: Array,
    start: Variables | None,
) -> tuple[TrainState, tuple[float, float], bool]:
    """Compile and run one training on the first `cut` rows.

    Returns:
        The final state, the seconds spent compiling and running, and whether the user stopped it.
    """
    begin = time.perf_counter()
    initial, chunk = PROGRAMS[_program(plan)]
    latent = getattr(method, "latent", False)
    training, validation = _parts(prior, rows, latent, cut, plan.evaluation_batch)
    seen = prior.latent if latent else prior
    state = initial(optimizer, plan, method, seen, training, keys, start)
    run = functools.partial(chunk, optimizer, plan, method, seen, training, validation)
    # Zero epochs: this call only compiles.
    state = jax.block_until_ready(run(state, jnp.int32(0)))
    compile_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    state, interrupted = _run(run, state, plan, progress)
    return state, (compile_seconds, time.perf_counter() - begin), interrupted


def _refit(
    train: Any,
    state: TrainState,
    plan: Plan,
    rows: int,
    key: Key,
    seconds: tuple[float, float],
    start: Variables | None,
) -> tuple[TrainState, tuple[float, float]]:
    """Train on all rows for as many epochs as were best; the first training if interrupted."""
    again = dataclasses.replace(
        plan,
        steps=rows // plan.batch,
        max_epochs=max(1, round(float(np.mean(state.best_epoch)))),
        select=False,
    )
    keys = jax.random.split(jax.random.fold_in(key, 1), state.best_epoch.size)
    final, more, interrupted = train(again, rows, keys, start)
    _check_finite(final, again)
    return state if interrupted else final, (seconds[0] + more[0], seconds[1] + more[1])


@functools.lru_cache(maxsize=256)
def default_optimizer(num_steps: int, peak: float = 4e-3) -> optax.GradientTransformation:
    """Return Adam with gradient clipping and a warmed-up cosine schedule of `num_steps` steps.

    Cached, so that fits of equal size share one compiled program.
    """
    warmup = max(1, min(100, num_steps // 20))
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(num_steps, warmup + 1))
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))


def _check_method(method: Any) -> None:
    if not isinstance(method, Method) or isinstance(method, type):
        raise TypeError(
            "method: expected a configured method such as jaxsbi.npe(), got "
            f"{getattr(method, '__name__', None) or repr(method)}. Did you forget to call it?"
        )


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer: expected an Optax transformation such as optax.adam(1e-3), got "
            f"{getattr(optimizer, '__name__', None) or repr(optimizer)}."
        )


def _check_members(ensemble: int | None) -> int:
    if ensemble is None:
        return 1
    if ensemble < 1:
        raise ValueError(f"ensemble: expected a positive number of members, got {ensemble}.")
    return int(ensemble)


def _start(initial: Posterior, method: Method, prior: Prior, ensemble: int | None) -> Variables:
    """Return the variables to start from, with a leading axis of members."""
    wanted = method if ensemble is None else Ensemble(method=method, size=ensemble)
    if not _equal(initial.method, wanted):
        raise ValueError(
            f"initial: expected a posterior of {wanted}, got one of {initial.method}. Go on with "
            "the method and the `ensemble` it was trained with, or leave `initial` out."
        )
    if not _equal(initial.prior, prior):
        raise ValueError(
            "initial: expected a posterior trained under this prior, whose coordinates its network "
            "works in, got one under another. Pass `prior=initial.prior`."
        )
    # Copies, for the loop over epochs writes its state over what it is given.
    return jax.tree.map(jnp.copy, initial.variables if ensemble else _one(initial.variables))


def _equal(a: Any, b: Any) -> bool:
    """Whether two configurations have equal structure and equal arrays."""
    (some, kind), (others, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    return kind == other and all(map(np.array_equal, some, others))


def _plan(
    train: int,
    validation: int,
    batch_size: int | None,
    max_epochs: int | None,
    patience: int,
    target: int,
) -> Plan:
    if batch_size is not None and not 2 <= batch_size <= train:
        raise ValueError(
            f"batch_size: expected between 2 and {train} (the training part of the "
            f"simulations), got {batch_size}. Use a smaller batch or simulate more."
        )
    if patience < 1 or (max_epochs is not None and max_epochs < 1):
        raise ValueError(
            "patience and max_epochs: expected at least 1, got "
            f"patience={patience}, max_epochs={max_epochs}."
        )
    if batch_size is None:
        # Small sets need many steps more than they need smooth gradients.
        batch_size = int(min(train, 64 if train < 2_000 else 128 if train < 20_000 else 256))
    if max_epochs is None:
        max_epochs = int(np.clip(target * batch_size // train, 30, 200))
    batch = min(validation, MAX_EVALUATION_BATCH)
    return Plan(
        batch=batch_size,
        steps=train // batch_size,
        evaluation_batch=batch,
        max_epochs=max_epochs,
        patience=patience,
    )


@functools.partial(
    jax.jit, static_argnames=("latent", "cut", "batch"), compiler_options=ONCE_OPTIONS
)
def _parts(
    prior: Prior, rows: Simulations, latent: bool, cut: int, batch: int
) -> tuple[Simulations, Simulations]:
    """Return the training part and the validation part, as the method's `loss` will see them.

    The validation part is padded to whole batches with copies of its first row, of weight 0.
    """
    if latent:
        z = jax.vmap(prior.to_latent)(rows.theta)
        rows = Simulations({"z": z}, rows.x, rows.weight)
    training, validation = rows[:cut], rows[-batch:] if cut == len(rows) else rows[cut:]
    missing = -len(validation) % batch

    def pad(a: Array) -> Array:
        return jnp.concatenate([a, jnp.broadcast_to(a[:1], (missing, *a.shape[1:]))])

    padded = jax.tree.map(pad, validation)
    weight = jnp.concatenate([validation.weight, jnp.zeros(missing, rows.weight.dtype)])
    return training, Simulations(padded.theta, padded.x, weight)


@jax.jit
def _one(variables: Variables) -> Variables:
    """Return the variables as those of one member of several."""
    return jax.tree.map(lambda a: a[None], variables)


@jax.jit
def _only(variables: Variables) -> Variables:
    """Return the variables of the only member."""
    return jax.tree.map(lambda a: a[0], variables)


def _program(plan: Plan) -> str:
    """Return which compiled program trains: on CPUs faster code takes longer to compile."""
    if jax.default_backend() != "cpu":
        return "accelerator"
    return "cpu, long" if plan.rows > LONG_ROWS else "cpu"


def _run(run: Any, state: TrainState, plan: Plan, progress: bool) -> tuple[TrainState, bool]:
    """Run chunks until every member is done, or the user interrupts."""
    epochs, done, chunk = 0, False, 1
    with (
        Interrupt() as interrupt,
        tqdm(total=plan.max_epochs, desc="fit", unit="epoch", disable=not progress) as bar,
    ):
        while not done and not interrupt.seen:
            begin = time.perf_counter()
            state = run(state, jnp.int32(min(epochs + chunk, plan.max_epochs)))
            # One small copy per chunk is all the host ever waits for.
            now, done_now, best = jax.device_get((state.epoch, state.done, state.best_loss))
            seconds = time.perf_counter() - begin
            ran = int(now.max()) - epochs
            epochs = int(now.max())
            done = bool(done_now.all()) or epochs >= plan.max_epochs
            bar.update(ran)
            bar.set_postfix(validation=f"{best.mean():.4f}")
            chunk = max(1, min(plan.max_epochs, round(ran * CHUNK_SECONDS / max(seconds, 1e-3))))
    return state, interrupt.seen and not done


def _history(
    state: TrainState,
    plan: Plan,
    interrupted: bool,
    seconds: tuple[float, float],
    used: tuple[int, int],
    num_invalid: int,
) -> History:
    epochs = int(np.max(state.epoch))
    train = np.asarray(state.train_loss)[:, :epochs]
    validation = np.asarray(state.validation_loss)[:, :epochs]
    best = np.asarray(state.best_epoch)
    if best.size == 1:
        train, validation, best = train[0], validation[0], best[0]
    stopped = "interrupted" if interrupted else "patience"
    if not interrupted and bool(np.any(np.asarray(state.epoch) >= plan.max_epochs)):
        stopped = "max_epochs"
    return History(
        train_loss=train,
        validation_loss=validation,
        best_epoch=best,
        stopped=stopped,
        compile_seconds=seconds[0],
        run_seconds=seconds[1],
        num_simulations=used,
        num_invalid=num_invalid,
    )


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
