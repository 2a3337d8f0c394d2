"""Training as one compiled program: epochs, validation, early stopping and best variables.

The host only decides how many epochs the next chunk runs (about half a second of them); the
result does not depend on it. Progress, Ctrl-C and failures are seen between chunks.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxsbi import checkpoint as checkpoints
from jaxsbi import devices, loop
from jaxsbi.base import (
    ONCE_OPTIONS,
    Array,
    Fitted,
    Key,
    Method,
    Posterior,
    Simulations,
    Variables,
)
from jaxsbi.priors import Prior
from jaxsbi.splitting import check_there, repeated, seen, split, usual_fraction
from jaxsbi.training import Plan, TrainState
from jaxsbi.windows import Stored, Windows, held_out, valid

MAX_EVALUATION_BATCH = 2048
MAX_EPOCHS, PATIENCE = 200, 24
"""Where the method does not say otherwise."""
TARGET_STEPS = 5_600
"""Optimiser steps that the default number of epochs aims at, where the method does not say."""

REFIT, STREAM = 2**31 - 1, 2**31 - 2
"""What else a key is for. `fold_in(key, i)` is `split(key, n)[i]`, a member's: of these there are
never so many."""


def fit(
    key: Key,
    method: Method,
    prior: Prior,
    simulations: Simulations | Stored,
    *,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    patience: int | None = None,
    validation_fraction: float | None = None,
    ensemble: int | None = None,
    refit: bool = False,
    initial: Posterior | None = None,
    capacity: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
) -> Fitted:
    """Train a method on simulations and return the amortized posterior.

    The whole validation set is scored after each epoch, and the variables of the best epoch are
    kept. Pressing Ctrl-C once stops cleanly and returns the best so far; twice raises.

    Args:
        key: A typed key: the same key gives the same posterior on the same machine.
        method: `jaxsbi.npe()`, `fmpe()`, `npse()`, `nle()`, `nre()`, `emulator(...)`.
        prior: The prior that the simulations were drawn from.
        simulations: What `simulate` returned; rows of weight 0 are left out. Or a `Store`, which
            stays on disk: see below.
        optimizer: Any Optax transformation; by default Adam with gradient clipping and a
            warmed-up cosine schedule that ends with `max_epochs`. Its steps
            are made smaller, from the best variables so far, each time a quarter of `patience`
            passes without a better validation loss.
        batch_size: Rows per step; by default chosen from the number of simulations.
        max_epochs: Passes over the training part; by default fewer for more simulations.
        patience: Stop after this many epochs without a better validation loss; by default 24;
            more for a method that wants long trainings.
        validation_fraction: Share of the simulations held out; by default a tenth, of fewer than
            200 more: up to a quarter, for a loss of a few rows says nothing.
        ensemble: Train this many members at once, each with its own initialisation, order of
            batches and stopping.
        refit: Train a second time, on all simulations and for as many epochs as were best, and
            keep its last variables. The history is that of the first training, with the seconds
            of both.
        initial: A posterior to go on from: what it has learned is where training starts, and its
            data statistics are kept. It must be of the same method, prior and `ensemble`. (An
            emulator can learn another one's error instead: `emulator(approximation=…)`.)
        capacity: Train as if there were this many simulations, by repeating those there are: one
            compiled program then serves data that grow from fit to fit.
        checkpoint: A folder in which the training is written down every 20 seconds and at its end,
            and from which the same call goes on after Ctrl-C or a killed process: to the same
            bits as if nothing had happened, on the same machine with the same versions. Called
            again after its end, it returns what it has learned at once. Other arguments are an
            error; but of functions within the method only the names are compared.
        mesh: The devices to train on, for instance `jax.sharding.Mesh(jax.devices(), ("batch",))`:
            the rows of each step are split over its axis "batch", the members of an ensemble over
            its axis "ensemble". Each device holds all simulations, and the result is that of one
            device up to rounding. With several processes (`jax.distributed`), all of them call
            with the same arguments; a checkpoint's folder is one that all of them see.
        progress: Show a progress bar.

    Returns:
        The posterior and the history of its training.

    A store is read in windows of 131,072 draws (fewer, if these were more than 128 MB), made of
    whole chunks in a new order in every pass, while the window before is trained on. An entry of
    the history is one window; `max_epochs` and `patience` count passes. The last draws validate,
    at most 16,384, and statistics of the data come from the first window.

    Raises:
        TypeError: If the key is not typed, `method` is not a configured method, `optimizer`
            is no Optax transformation, or `mesh` no mesh.
        ValueError: If there are too few simulations, a batch is larger than the training part,
            an option is out of its range, or a masked part of x has nothing there in any example;
            or if the checkpoint is damaged, or of another call (the message names what differs).
        FloatingPointError: If the loss becomes NaN or infinite; the message names the epoch.
    """
    loop.check_options(key, method, optimizer, ensemble)
    mesh = devices.checked(mesh, ensemble, batch_size)
    sizes = functools.partial(_plan, optimizer, batch_size, max_epochs, patience, method, mesh)
    start = loop.start_from(initial, method, prior, ensemble)
    folder = checkpoints.folder_at(checkpoint)
    path, second = (checkpoints.file_in(folder, name) for name in ("training", "refit"))
    keys = jax.random.split(key, ensemble or 1)
    if validation_fraction is None:
        validation_fraction = usual_fraction(method, capacity or len(simulations))
    if not isinstance(simulations, Simulations):
        _check_stored(simulations, prior, refit, capacity)
        stream = (simulations, validation_fraction, jax.random.fold_in(key, STREAM))
        return _fit_stored(
            method, prior, stream, sizes, optimizer, start, progress, keys, path, ensemble
        )

    rows, cut = split(simulations, validation_fraction, prior)
    getattr(method, "check", lambda rows: None)(simulations)
    check_there(rows)
    used = (cut, len(rows) - cut)
    about = loop.about(method, rows.x)
    num_invalid = len(simulations) - len(rows)
    if capacity is not None:
        rows, cut = repeated(rows, cut, capacity, validation_fraction)
    plan = sizes(cut, len(rows) - cut)
    train = functools.partial(
        _train, method, prior, rows, _chosen(optimizer, plan), start, progress
    )
    outcome = train(plan, cut, keys, path)
    kept = outcome.state
    if refit and not outcome.interrupted:
        outcome, kept = _refit(train, outcome, plan, len(rows), key, second)
    history = loop.history(outcome, plan, used, num_invalid)
    return loop.fitted(method, prior, about, ensemble, kept, history)


def _check_stored(store: Stored, prior: Prior, refit: bool, capacity: int | None) -> None:
    """Raise an error for what can't be trained on where it lies."""
    if not hasattr(store, "simulations"):
        raise TypeError(
            "simulations: expected what jaxsbi.simulate returned, or a jaxsbi.Store, got "
            f"{type(store).__name__}."
        )
    if refit or capacity is not None:
        raise ValueError(
            "refit, capacity: expected simulations in memory, got a store. Load it: "
            "fit(…, store.simulations()), or leave them out."
        )
    if not loop.equal(store.proposal, prior):
        raise ValueError(
            "prior: expected the law that the store's parameters were drawn from, got another. "
            "Pass prior=store.proposal."
        )


def _fit_stored(
    method: Method,
    prior: Prior,
    stream: tuple[Stored, float, Key],
    sizes: Callable[[int, int], Plan],
    optimizer: optax.GradientTransformation | None,
    start: Variables | None,
    progress: bool,
    keys: Array,
    path: Path | None,
    ensemble: int | None,
) -> Fitted:
    """Train on draws that stay on disk: their last part validates, the others come by windows."""
    store, fraction, key = stream
    kept = held_out(store, fraction, prior)
    getattr(method, "check", lambda rows: None)(kept.rows)
    cut, invalid = len(store) - kept.drawn, len(store) - store.status.get("ok", 0)
    windows = Windows(store, method, prior, key, cut, kept.row_bytes)
    plan = sizes(windows.rows, len(kept.rows))
    plan = dataclasses.replace(
        plan,
        max_epochs=plan.max_epochs * windows.in_a_pass,
        patience=plan.patience * windows.in_a_pass,
    )
    _, validation = _parts(method, prior, kept.rows, 0, plan.evaluation_batch)
    drawn = windows.drawn(0)
    first = valid(windows.seen(drawn))
    check_there(first)
    about = loop.about(method, valid(drawn).x)
    del drawn  # it may be as large as memory allows
    outcome = loop.train(
        method,
        prior.latent if getattr(method, "latent", False) else prior,
        _chosen(optimizer, plan),
        plan,
        first,
        windows,
        validation,
        keys,
        start,
        progress,
        path,
    )
    history = loop.history(outcome, plan, (cut, len(kept.rows)), invalid)
    return loop.fitted(method, prior, about, ensemble, outcome.state, history)


def _chosen(
    optimizer: optax.GradientTransformation | None, plan: Plan
) -> optax.GradientTransformation:
    return loop.default_optimizer(plan.steps * plan.max_epochs) if optimizer is None else optimizer


def _train(
    method: Method,
    prior: Prior,
    rows: Simulations,
    optimizer: optax.GradientTransformation,
    start: Variables | None,
    progress: bool,
    plan: Plan,
    cut: int,
    keys: Array,
    path: Path | None,
) -> loop.Outcome:
    """Run one training on the first `cut` rows."""
    training, validation = _parts(method, prior, rows, cut, plan.evaluation_batch)
    by = prior.latent if getattr(method, "latent", False) else prior
    return loop.train(
        method, by, optimizer, plan, training, training, validation, keys, start, progress, path
    )


def _refit(
    train: Callable[..., loop.Outcome],
    first: loop.Outcome,
    plan: Plan,
    rows: int,
    key: Key,
    path: Path | None,
) -> tuple[loop.Outcome, TrainState]:
    """Train on all rows for as many epochs as were best.

    Returns:
        The first training, with the seconds of both, and the state that is kept: the second's, or
        the first's if the user interrupts.
    """
    again = dataclasses.replace(
        plan,
        steps=rows // plan.batch,
        max_epochs=max(1, round(float(np.mean(first.state.best_epoch)))),
        select=False,
    )
    keys = jax.random.split(jax.random.fold_in(key, REFIT), first.state.best_epoch.size)
    second = train(again, rows, keys, path)
    both = first._replace(
        compile_seconds=first.compile_seconds + second.compile_seconds,
        run_seconds=first.run_seconds + second.run_seconds,
    )
    return both, first.state if second.interrupted else second.state


def _plan(
    optimizer: optax.GradientTransformation | None,
    batch_size: int | None,
    max_epochs: int | None,
    patience: int | None,
    method: Method,
    mesh: Mesh | None,
    train: int,
    validation: int,
) -> Plan:
    target = getattr(method, "steps", TARGET_STEPS)
    most = getattr(method, "epochs", MAX_EPOCHS)
    patience = max(PATIENCE, most // 9) if patience is None else patience
    share = devices.size(mesh, devices.BATCH)
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
        batch_size = max(1, batch_size // share) * share  # as many for each device
    if max_epochs is None:
        max_epochs = int(np.clip(target * batch_size // train, 30, most))
    batch = min(validation, MAX_EVALUATION_BATCH)
    return Plan(
        batch=batch_size,
        steps=train // batch_size,
        evaluation_batch=batch,
        max_epochs=max_epochs,
        patience=patience,
        trees=optimizer is not None,
        mesh=mesh,
    )


@functools.partial(jax.jit, static_argnames=("cut", "batch"), compiler_options=ONCE_OPTIONS)
def _parts(
    method: Method, prior: Prior, rows: Simulations, cut: int, batch: int
) -> tuple[Simulations, Simulations]:
    """Return the training part and the validation part, as the method's `loss` will see them.

    The validation part is padded to whole batches with copies of its first row, of weight 0.
    """
    rows = seen(method, prior, rows)
    training, validation = rows[:cut], rows[-batch:] if cut == len(rows) else rows[cut:]
    missing = -len(validation) % batch

    def pad(a: Array) -> Array:
        return jnp.concatenate([a, jnp.broadcast_to(a[:1], (missing, *a.shape[1:]))])

    padded = jax.tree.map(pad, validation)
    weight = jnp.concatenate([validation.weight, jnp.zeros(missing, rows.weight.dtype)])
    return training, dataclasses.replace(padded, weight=weight)
