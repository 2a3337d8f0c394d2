"""What every sequential method shares: propose, simulate, train on what counts, write it down."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import (
    Data,
    DataSpec,
    Fitted,
    History,
    Key,
    Method,
    Posterior,
    Simulations,
    Simulator,
    check_key,
)
from jaxsbi.fit import fit
from jaxsbi.loop import equal
from jaxsbi.methods.likelihood import is_learned_by
from jaxsbi.priors import Prior
from jaxsbi.recentred import Recentred, latents, recentre
from jaxsbi.sequential.journal import Drawn, Journal, journal
from jaxsbi.sequential.pool import chosen, concatenate
from jaxsbi.sequential.proposal import Propose, at_draws, drawn, proposed
from jaxsbi.simulate import simulator_shape


@dataclasses.dataclass(frozen=True)
class Round:
    """One round, as it was run.

    Attributes:
        simulations: This round's simulations.
        log_proposal: Log-density of the round's proposal at each of their parameter sets, shape
            `(n,)`; in rounds proposed by a learned likelihood it is not normalised.
        prior_mass: The share of the prior that the proposal covers (1 where it is not truncated).
        kept: How many simulations, of all rounds so far, the round was trained on.
        posterior: The posterior after the round.
        history: Of its training.
        x: The observation that it was proposed for.
    """

    simulations: Simulations
    log_proposal: np.ndarray
    prior_mass: float
    kept: int
    posterior: Posterior
    history: History
    x: Data


@dataclasses.dataclass(frozen=True)
class Result:
    """What a sequential method returns.

    Attributes:
        rounds: Every round, the first from the prior.
        finished: Whether all rounds asked for were run, and none was interrupted.
    """

    rounds: tuple[Round, ...]
    finished: bool = True

    @property
    def posterior(self) -> Posterior:
        """The last round's posterior: right for this observation, and no other."""
        return self.rounds[-1].posterior

    @property
    def simulations(self) -> Simulations:
        """All rounds' simulations."""
        return concatenate([r.simulations for r in self.rounds])


R = TypeVar("R")  # a round


def run(
    key: Key,
    method: Method,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    propose: Propose,
    *,
    num_rounds: int,
    simulations_per_round: int,
    previous: Result | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool,
    later: Method | None = None,
) -> Result:
    """Run rounds one after the other; what is finished is returned if the user interrupts.

    `later` is the method by which rounds after the first are trained, where it is another.
    `checkpoint` is the folder in which they are written down.

    Raises:
        TypeError: If the observation has another structure than the simulator's data.
        ValueError: If it has another shape, or is not finite.
        KeyboardInterrupt: If no round was finished.
    """
    check(key, num_rounds, simulations_per_round)
    if previous is not None:
        check_previous(previous, method, prior, simulator, x, propose)
    DataSpec.of(simulator_shape(prior, simulator)).conform(x)  # before anything is simulated
    rounds = list(previous.rounds) if previous is not None else []
    # Every training is compiled for all simulations there will be: once.
    capacity = num_rounds * simulations_per_round + sum(len(r.simulations) for r in rounds)
    written = journal(
        checkpoint, "round", prior, simulator, x, propose, num_rounds=num_rounds,
        simulations_per_round=simulations_per_round,
    )  # fmt: skip

    def take(number: int, rounds: list[Round]) -> Round:
        trained = later if later is not None and rounds else method
        done = _round(
            jax.random.fold_in(key, number), trained, prior, simulator, x, propose, rounds,
            simulations_per_round, capacity, written, progress,
        )  # fmt: skip
        # Draws and densities are those of the method, whatever it was trained by.
        return dataclasses.replace(
            done, posterior=dataclasses.replace(done.posterior, method=method)
        )

    return Result(*in_turn(rounds, num_rounds, take))


def in_turn(
    rounds: list[R], more: int, take: Callable[[int, list[R]], R]
) -> tuple[tuple[R, ...], bool]:
    """Add rounds one after the other; what is finished is returned if the user interrupts.

    Args:
        rounds: Those that there are.
        more: How many to add.
        take: Makes the round of a number, given those before.

    Returns:
        All rounds, and whether all that were asked for are among them.

    Raises:
        KeyboardInterrupt: If no round was finished.
    """
    try:
        for number in range(len(rounds), len(rounds) + more):
            rounds.append(take(number, rounds))
    except KeyboardInterrupt:
        if not rounds:
            raise
        return tuple(rounds), False
    return tuple(rounds), True


def ended(*fitted: Fitted) -> None:
    """Raise KeyboardInterrupt again where a training returned what it had by then.

    That is no round, for its posterior is half trained.
    """
    if any(each.history.stopped == "interrupted" for each in fitted):
        raise KeyboardInterrupt


def _round(
    key: Key,
    method: Method,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    propose: Propose,
    before: list[Round],
    n: int,
    capacity: int,
    written: Journal,
    progress: bool,
) -> Round:
    key_propose, key_simulate, key_fit, key_order = jax.random.split(key, 4)
    parts, last = [r.simulations for r in before], before[-1].posterior if before else None

    def draw() -> Drawn:
        return drawn(
            key_simulate, proposed(key_propose, last, prior, x, propose, n), simulator, x,
            lambda new: [*parts, new], first=not before, progress=progress,
        )  # fmt: skip

    found = written.drawn(len(before), key, (parts, last), draw)
    new = found.simulations
    pool = concatenate([*parts, new])
    kept = chosen(key_order, pool, found.keep, capacity)
    # Coordinates in which nothing that is trained on lies far out.
    near = pool if found.astray else new
    seen = recentre(prior, latents(prior, near.theta)) if before else unmoved(prior)
    fitted = fit(
        key_fit,
        settled(method, prior, parts[0] if parts else new),
        seen,  # type: ignore[arg-type]
        kept,
        capacity=capacity,
        checkpoint=written.of(len(before)),
        progress=progress,
    )
    ended(fitted)
    return Round(
        simulations=new,
        log_proposal=found.log_proposal,
        prior_mass=found.prior_mass,
        kept=len(kept),
        posterior=fitted.posterior,
        history=dataclasses.replace(
            fitted.history, num_invalid=int(np.sum(np.asarray(pool.weight) == 0))
        ),
        x=fitted.posterior.conform(x),
    )


def check(key: Key, number: int, size: int, part: str = "round") -> None:
    """Raise an error if there are too few rounds, or parts of another name."""
    check_key(key)
    for name, value in ((f"num_{part}s", number), (f"simulations_per_{part}", size)):
        check_whole(name, value)
    if number < 1 or size < 10:
        raise ValueError(
            f"num_{part}s and simulations_per_{part}: expected at least 1 and 10, got "
            f"{number} and {size}."
        )


def check_whole(name: str, value: Any) -> None:
    """Raise an error for what counts nothing: a fraction, a float, a boolean."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise ValueError(f"{name}: expected an integer, got {value!r}. Pass int({name}).")


def check_previous(
    previous: Result, method: Method, prior: Prior, simulator: Simulator, x: Data, propose: Propose
) -> None:
    """Raise an error for rounds that the new ones could not be trained on as well.

    What learns a law of x given θ, and atomic proposals, are right for simulations at any θ. Others
    learn from the prior cut to a region: that of this observation.
    """
    if not isinstance(previous, Result):
        raise TypeError(
            f"previous: expected what a function of jaxsbi.sequential returned, got "
            f"{type(previous).__name__}. Pass that, or leave it out."
        )
    if not previous.rounds:
        raise ValueError("previous: expected at least one round, got none. Leave it out.")
    then = previous.rounds[0].posterior.prior
    if then.shapes != prior.shapes:
        raise ValueError(
            f"previous: expected rounds for the parameters {prior.shapes}, got {then.shapes}. "
            "Leave it out."
        )
    if not _same(unmoved(prior), then):
        raise ValueError(
            "previous: expected rounds under this prior, got rounds under another. Pass the prior "
            "that they were run with, or leave them out."
        )
    spec = DataSpec.of(simulator_shape(prior, simulator))
    if previous.posterior.data != spec:
        raise ValueError(
            f"previous: expected rounds of data {spec}, as this simulator returns, got "
            f"{previous.posterior.data}. Pass the simulator that they were run with, or leave them "
            "out."
        )
    if propose is not at_draws and not is_learned_by(method):
        _check_cut(previous, prior, spec.conform(x), type(method).__name__)


def _check_cut(previous: Result, prior: Prior, x: Data, method: str) -> None:
    """Raise an error unless each round is the prior's, or for this observation a part of it."""
    for number, each in enumerate(previous.rounds):
        theta = jax.tree.map(jnp.asarray, each.simulations.theta)
        log_prior = np.asarray(jax.vmap(prior.log_prob)(theta))
        excess = np.asarray(each.log_proposal) - log_prior
        excess = excess[np.isfinite(excess)]
        # Constant but for rounding: draws of a posterior differ from the prior by much more.
        close = 0.01 + 1e-5 * float(np.abs(log_prior[np.isfinite(log_prior)]).max(initial=0.0))
        if not excess.size or np.ptp(excess) > close:
            raise ValueError(
                "previous: expected rounds proposed by the prior or a part of it, got draws of a "
                f"posterior in round {number}, from which {method} would learn a wrong one. Go on "
                "with the function that made them, or pass nle, nre or emulator, which learn from "
                "any."
            )
        if each.prior_mass < 1.0 and not _same(each.x, x):
            raise ValueError(
                "previous: expected rounds for this observation, got a part of the prior chosen "
                f"for another in round {number}, from which {method} would learn a wrong "
                "posterior. Leave them out, or pass nle, nre or emulator, which learn from any."
            )


def _same(a: Any, b: Any) -> bool:
    """Whether two pytrees are equal, as the arrays that a compiled program makes of them."""
    return equal(*(jax.tree.map(jnp.asarray, tree) for tree in (a, b)))


def unmoved(prior: Prior) -> Recentred:
    """Return the prior in its own coordinates, as the type that later rounds have too."""
    return Recentred(prior, jnp.zeros(prior.dim), jnp.eye(prior.dim))


def settled(method: Method, prior: Prior, first: Simulations) -> Method:
    """Return a method with what it chooses by a look at the data chosen by the first round's.

    Those are the prior's; what follows gathers, and would let it choose otherwise.
    """
    chooses = getattr(method, "settled", None)
    return method if chooses is None else chooses(prior, first)
