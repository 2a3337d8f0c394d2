"""A live data set: simulated, trained on and pruned in small steps, without rounds."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Literal

import jax
import numpy as np

from jaxsbi.base import Data, DataSpec, Key, Method, Posterior, Simulations, Simulator
from jaxsbi.fit import fit
from jaxsbi.loop import equal
from jaxsbi.methods.likelihood import is_learned_by
from jaxsbi.priors import Prior
from jaxsbi.recentred import Recentred, latents, recentre
from jaxsbi.sequential.journal import Drawn, Journal, journal
from jaxsbi.sequential.pool import concatenate
from jaxsbi.sequential.proposal import Propose, at_draws, drawn, proposed
from jaxsbi.sequential.rounds import (
    Result,
    Round,
    check,
    check_previous,
    check_whole,
    ended,
    in_turn,
    settled,
    unmoved,
)
from jaxsbi.sequential.truncated import within
from jaxsbi.simulate import simulator_shape

EPOCHS = 10
"""Passes over the live set between two steps."""
SHRINKS = 10.0
"""How much smaller than when its coordinates were chosen the live set's volume may become, before
training starts afresh in coordinates that fit it."""


def dynamic(
    key: Key,
    method: Method,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    *,
    num_steps: int,
    simulations_per_step: int,
    live: int | None = None,
    region: Literal["density", "box"] = "density",
    previous: Result | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Result:
    """Learn a posterior from a live set of simulations that follows it (arXiv:2510.13997).

    In each step new simulations are made where the posterior of now allows them, those that lie
    outside are dropped, the oldest too where more than `live` remain, and training goes on for a
    few epochs from where it was. The last step trains to the end. What is trained on is always the
    prior cut to a region (or, for learned likelihoods and ratios, simulations at any parameters, of
    which none are dropped while new ones are unlike the observation): nothing needs to be
    corrected.

    Args:
        key: A typed key.
        method: Any method; `nle`, `nre` and `emulator` propose draws of their posterior, others
            the prior within a region, as `sequential.truncated`.
        prior: The prior; the first step is simulated from it.
        simulator: `simulator(key, theta) -> x`.
        x: The observation; the result holds for it alone.
        num_steps: How many steps to take.
        simulations_per_step: New simulations in each.
        live: The most simulations that are trained on; by default five steps'.
        region: "density" or "box", as for `sequential.truncated`.
        previous: What an earlier call returned: its steps are kept, and these are added. As
            for `sequential.truncated`, what is not right to train on is refused.
        checkpoint: A folder in which every step is written down, as for `sequential.truncated`.
        progress: Show progress bars.

    Returns:
        Every step as a round, and the last posterior. Ctrl-C loses the step that is being taken.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If a number is out of range, `live` is smaller than a step, `previous` cannot
            be used here, the region is impossible or empty, or the checkpoint is damaged or of
            another call.
    """
    check(key, num_steps, simulations_per_step, "step")
    live = 5 * simulations_per_step if live is None else live
    check_whole("live", live)
    if live < simulations_per_step:
        raise ValueError(
            f"live: expected at least the {simulations_per_step} simulations of a step, got {live}."
        )
    propose = at_draws if is_learned_by(method) else within(region, prior)
    if previous is not None:
        check_previous(previous, method, prior, simulator, x, propose)
    DataSpec.of(simulator_shape(prior, simulator)).conform(x)  # before anything is simulated
    rounds = list(previous.rounds) if previous is not None else []
    last = len(rounds) + num_steps - 1
    written = journal(
        checkpoint, "step", prior, simulator, x, propose, num_steps=num_steps,
        simulations_per_step=simulations_per_step, live=live,
    )  # fmt: skip
    step = _Step(
        method, prior, simulator, x, propose, simulations_per_step, live, written, progress
    )
    pool = previous.simulations if previous is not None else None

    def take(number: int, rounds: list[Round]) -> Round:
        nonlocal pool
        this = jax.random.fold_in(key, number)
        done, pool = step.take(this, number, rounds, pool, number == last)
        return done

    return Result(*in_turn(rounds, num_steps, take))


@dataclasses.dataclass(frozen=True)
class _Step:
    """What does not change from step to step."""

    method: Method
    prior: Prior
    simulator: Simulator
    x: Data
    propose: Propose
    size: int
    live: int
    written: Journal
    progress: bool

    def take(
        self, key: Key, number: int, rounds: list[Round], pool: Simulations | None, last: bool
    ) -> tuple[Round, Simulations]:
        """Simulate, prune and train once; return the step, and the live set, oldest first."""
        key_propose, key_simulate, key_fit, key_order = jax.random.split(key, 4)
        earlier = [] if pool is None else [pool]
        before = rounds[-1] if rounds else None
        last_posterior = None if before is None else before.posterior

        def draw() -> Drawn:
            where = proposed(
                key_propose, last_posterior, self.prior, self.x, self.propose, self.size
            )
            return drawn(
                key_simulate, where, self.simulator, self.x, lambda new: [self._with(earlier, new)],
                first=before is None, progress=self.progress,
            )  # fmt: skip

        found = self.written.drawn(number, key, (earlier, last_posterior), draw)
        new = found.simulations
        pool = self._pruned(found.keep, self._with(earlier, new))
        kept = int(np.sum(pool.weight > 0))
        seen, start = self._coordinates(before, pool, kept)
        method = settled(self.method, self.prior, rounds[0].simulations if rounds else new)
        # Shuffled: the last rows validate, and all steps should.
        order = np.asarray(jax.random.permutation(key_order, self.live))
        fitted = fit(
            key_fit,
            method,
            seen,  # type: ignore[arg-type]
            jax.tree.map(lambda a: a[order], pool),
            initial=start and dataclasses.replace(start, method=method),
            max_epochs=None if last else EPOCHS,
            capacity=self.live,
            checkpoint=self.written.of(number),
            progress=self.progress,
        )
        ended(fitted)
        done = Round(
            simulations=new,
            log_proposal=found.log_proposal,
            prior_mass=found.prior_mass,
            kept=kept,
            posterior=dataclasses.replace(fitted.posterior, method=self.method),
            history=fitted.history,
            x=fitted.posterior.conform(self.x),
        )
        return done, pool

    def _with(self, earlier: list[Simulations], new: Simulations) -> Simulations:
        """Return the live set and new simulations, padded to the most rows there will be."""
        pool = concatenate([*earlier, new])
        return _filled(pool, np.arange(len(pool)), max(len(pool), self.live + self.size))

    def _pruned(self, keep: np.ndarray, pool: Simulations) -> Simulations:
        """Return the newest simulations that are kept: `live` rows, padded by weight 0.

        Both shapes are the same in every step, so that nothing is compiled twice.
        """
        return _filled(pool, np.flatnonzero(keep)[-self.live :], self.live)

    def _coordinates(
        self, before: Round | None, pool: Simulations, kept: int
    ) -> tuple[Recentred, Posterior | None]:
        """Return the latent coordinates to train in, and the posterior to go on from."""
        if before is None:
            return unmoved(self.prior), None
        seen = before.posterior.prior
        assert isinstance(seen, Recentred)
        rows = np.arange(self.live) % kept
        z = latents(seen, pool.theta)[rows]
        log_volume = 0.5 * np.linalg.slogdet(np.atleast_2d(np.cov(z, rowvar=False)))[1]
        # Another method's, as rounds of `previous` may be: nothing that could be gone on from.
        trained = equal(before.posterior.method, self.method)
        if trained and log_volume > -np.log(SHRINKS):
            return seen, before.posterior
        return recentre(self.prior, latents(self.prior, pool.theta)[rows]), None


def _filled(pool: Simulations, index: np.ndarray, n: int) -> Simulations:
    """Return rows of a set, and then copies of the first of them with weight 0: `n` in all."""
    rows = np.concatenate([index, np.repeat(index[:1], n - index.size)])
    pool = jax.tree.map(lambda a: np.asarray(a)[rows], pool)
    used: Any = (np.arange(n) < index.size).astype(pool.weight.dtype)
    return dataclasses.replace(pool, weight=used * pool.weight)
