"""Training on simulations made within the compiled step: no data set, and nothing seen twice."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxsbi import checkpoint as checkpoints
from jaxsbi import devices, loop
from jaxsbi.base import (
    Data,
    Fitted,
    Key,
    Method,
    Posterior,
    Simulations,
    Simulator,
    Theta,
)
from jaxsbi.missing import cleared
from jaxsbi.priors import Prior
from jaxsbi.simulate import all_finite, draw, report, simulator_shape
from jaxsbi.splitting import check_there, ready, split
from jaxsbi.training import Plan
from jaxsbi.workarounds import register_dataclass

STEPS = 100
"""Steps between two looks at the validation set: an "epoch" of the history."""
FIRST, VALIDATION = 4096, 2048
"""Simulations made beforehand: data statistics come from some, the others validate."""
HELD_OUT = 0.1

Noise = Callable[[Key, Theta, Data], Data]


@dataclasses.dataclass(frozen=True)
class Signals:
    """Stored signals that are seen with new noise each time.

    Noise is cheap where signals are dear, and new noise in each step lowers the variance of
    gradients: nothing can be learned by heart but the signals.

    Attributes:
        simulations: Parameters and noiseless signals, `simulate(key, prior, signal, n)`.
        noise: `noise(key, theta, signal) -> x`, one data set; pure JAX code.
        extrinsic: Names of parameters that the signals don't depend on, for `noise` applies them:
            a distance, say, or a time. They are drawn from the prior anew each time, too.
    """

    simulations: Simulations
    noise: Noise
    extrinsic: tuple[str, ...] = ()


@register_dataclass
@dataclasses.dataclass(frozen=True)
class _Simulated:
    """A stream from the prior and a simulator."""

    method: Method
    prior: Prior
    simulator: Simulator = dataclasses.field(metadata={"static": True})

    def draws(self, key: Key, n: int) -> Simulations:
        keys = jax.random.split(key, n)
        theta, x, valid = jax.vmap(lambda key: draw(self.simulator, self.prior, key))(keys)
        return Simulations(theta, x, valid.astype(jnp.float32))

    def batch(self, key: Key, n: int) -> Simulations:
        return ready(self.method, self.prior, self.draws(key, n))


@register_dataclass
@dataclasses.dataclass(frozen=True)
class _Noisy:
    """A stream of stored signals with new noise, and new extrinsic parameters."""

    method: Method
    prior: Prior
    signals: Simulations
    extrinsic: Prior | None
    noise: Noise = dataclasses.field(metadata={"static": True})

    def draws(self, key: Key, n: int) -> Simulations:
        key_rows, key_noise = jax.random.split(key)
        rows = self.signals[jax.random.randint(key_rows, (n,), 0, len(self.signals))]
        theta = rows.theta
        if self.extrinsic is not None:
            key_noise, key_extrinsic = jax.random.split(key_noise)
            keys = jax.random.split(key_extrinsic, n)
            theta = theta | jax.vmap(self.extrinsic.sample)(keys)
        x = cleared(jax.vmap(self.noise)(jax.random.split(key_noise, n), theta, rows.x))
        valid = jax.vmap(all_finite)((theta, x))
        return Simulations(theta, x, valid.astype(jnp.float32))

    def batch(self, key: Key, n: int) -> Simulations:
        return ready(self.method, self.prior, self.draws(key, n))


def fit_online(
    key: Key,
    method: Method,
    prior: Prior,
    simulator: Simulator | Signals,
    *,
    num_steps: int,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    ensemble: int | None = None,
    initial: Posterior | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
    progress: bool = True,
) -> Fitted:
    """Train a method on new simulations in every step, made on the device within it.

    For simulators that cost no more than a training step: what is learned is limited by time, not
    by a number of simulations, and can't be over-fitted. Simulation, gradient and update are one
    compiled program.

    Args:
        key: A typed key: the same key gives the same posterior on the same machine.
        method: As for `fit`.
        prior: The prior to simulate from (for stored signals, the prior they came from).
        simulator: `simulator(key, theta) -> x`, as for `simulate`; or `Signals`, stored ones
            with a noise function, of which a tenth is held out.
        num_steps: Optimiser steps; rounded up to whole hundreds, above one hundred.
        batch_size: Simulations per step. An ensemble's members see simulations of their own.
        optimizer: Any Optax transformation; by default that of `fit`, for `num_steps`.
        ensemble: Train this many members at once.
        initial: A posterior to go on from, as for `fit`.
        checkpoint: A folder to write the training down in, as for `fit`.
        mesh: The devices that simulate and train together, as for `fit`.
        progress: Show a progress bar.

    Returns:
        The posterior and the history: an epoch is a hundred steps, the validation set 2,048 fixed
        simulations. The last variables (their running average) are kept. `history.num_simulations`
        over `history.run_seconds` is the throughput.

    Raises:
        TypeError: As `fit`, or the simulator returns something else than a pytree of arrays.
        ValueError: If a number is out of range, or the stored signals have other parameters;
            or if the checkpoint is damaged, or of another call.
        FloatingPointError: If the loss becomes NaN or infinite; the message names the epoch.
    """
    loop.check_options(key, method, optimizer, ensemble)
    if num_steps < 1 or batch_size < 2:
        raise ValueError(
            "num_steps and batch_size: expected at least 1 and 2, got "
            f"{num_steps} and {batch_size}."
        )
    mesh = devices.checked(mesh, ensemble, batch_size)
    path = checkpoints.file_in(checkpoints.folder_at(checkpoint), "training")
    key_first, key_validation, key_fit = jax.random.split(key, 3)
    source, other, law = _streams(method, prior, simulator)
    first, x = _made(source, key_first, FIRST, law)
    check_there(first)
    about = loop.about(method, x)
    held_out, _ = _made(other, key_validation, VALIDATION, law)
    plan = _plan(num_steps, batch_size, len(held_out), optimizer is not None, mesh)
    if optimizer is None:
        optimizer = loop.default_optimizer(plan.steps * plan.max_epochs)
    outcome = loop.train(
        method,
        prior.latent if getattr(method, "latent", False) else prior,
        optimizer,
        plan,
        first,
        source,
        held_out,
        jax.random.split(key_fit, ensemble or 1),
        loop.start_from(initial, method, prior, ensemble),
        progress,
        path,
    )
    state = outcome.state
    used = int(np.sum(state.epoch)) * plan.steps * batch_size
    missed = int(np.sum(state.invalid))
    history = loop.history(outcome, plan, (used - missed, len(held_out)), missed)
    return loop.fitted(method, prior, about, ensemble, state, history)


def _plan(num_steps: int, batch: int, held_out: int, trees: bool, mesh: Mesh | None) -> Plan:
    steps = min(STEPS, num_steps)
    epochs = -(-num_steps // steps)
    return Plan(
        batch=batch,
        steps=steps,
        evaluation_batch=held_out,
        max_epochs=epochs,
        patience=epochs + 1,
        trees=trees,
        select=False,
        mesh=mesh,
    )


def _streams(
    method: Method, prior: Prior, simulator: Simulator | Signals
) -> tuple[_Simulated | _Noisy, _Simulated | _Noisy, Simulator | Noise]:
    """Return the stream to train on, the one to validate on, and the user's function in them."""
    if isinstance(simulator, Signals):
        rows, cut = split(simulator.simulations, HELD_OUT, prior)
        extrinsic = prior.marginal(*simulator.extrinsic) if simulator.extrinsic else None
        training, held_out = (
            _Noisy(method, prior, part, extrinsic, simulator.noise)
            for part in (rows[:cut], rows[cut:])
        )
        return training, held_out, simulator.noise
    simulator_shape(prior, simulator)  # errors that say what is wrong
    stream = _Simulated(method, prior, simulator)
    return stream, stream, simulator


def _made(
    stream: _Simulated | _Noisy, key: Key, n: int, law: Simulator | Noise
) -> tuple[Simulations, Data]:
    """Return what is finite of `n` rows, as `loss` sees them, and their data as they were made."""
    rows, x = jax.tree.map(np.asarray, _batch(stream, key, n))
    report(rows.weight > 0, law)
    return jax.tree.map(lambda a: jnp.asarray(a[rows.weight > 0]), (rows, x))


@functools.partial(jax.jit, static_argnames="n")
def _batch(stream: _Simulated | _Noisy, key: Key, n: int) -> tuple[Simulations, Data]:
    rows = stream.draws(key, n)
    return ready(stream.method, stream.prior, rows), rows.x
