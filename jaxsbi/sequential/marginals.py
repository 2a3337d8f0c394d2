"""Rounds for marginal posteriors: the prior, cut where each of them has ended."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import (
    Array,
    Data,
    DataSpec,
    Fitted,
    Key,
    Method,
    Simulations,
    Simulator,
)
from jaxsbi.boxed import Boxed, boxed, whole
from jaxsbi.marginals import Group, parts_of
from jaxsbi.marginals import marginals as learn
from jaxsbi.priors import Prior
from jaxsbi.sequential.journal import Drawn, Journal, journal
from jaxsbi.sequential.pool import chosen, concatenate
from jaxsbi.sequential.proposal import drawn
from jaxsbi.sequential.rounds import check, ended, in_turn
from jaxsbi.sequential.truncated import DRAWS, holds, in_box
from jaxsbi.simulate import simulator_shape


@dataclasses.dataclass(frozen=True)
class MarginalRound:
    """One round, as it was run.

    Attributes:
        simulations: This round's simulations.
        prior: The law that their parameters were drawn from: the prior within a box.
        log_proposal: Its log-density at each of them, shape `(n,)`.
        prior_mass: The share of the prior that lies in the box.
        kept: How many simulations, of all rounds so far, the round was trained on.
        marginals: Group → the posterior of its parameters, and the history of its training.
    """

    simulations: Simulations
    prior: Boxed
    log_proposal: np.ndarray
    prior_mass: float
    kept: int
    marginals: dict[Group, Fitted]


@dataclasses.dataclass(frozen=True)
class MarginalResult:
    """What `sequential.marginals` returns.

    Attributes:
        rounds: Every round, the first from the prior.
        finished: Whether all rounds asked for were run, and none was interrupted.
    """

    rounds: tuple[MarginalRound, ...]
    finished: bool = True

    @property
    def marginals(self) -> dict[Group, Fitted]:
        """The last round's: right for observations whose posterior lies in its box."""
        return self.rounds[-1].marginals

    @property
    def prior(self) -> Boxed:
        """The prior within the last round's box."""
        return self.rounds[-1].prior

    @property
    def simulations(self) -> Simulations:
        """All rounds' simulations within that box: draws of `prior`, for whatever is learned next.

        Other groups by `jaxsbi.marginals(key, method, result.prior, result.simulations, groups)`.
        """
        pool = concatenate([r.simulations for r in self.rounds])
        keep = np.concatenate([holds(self.prior, r.simulations.theta) for r in self.rounds])
        return jax.tree.map(lambda a: a[keep], pool)


def marginals(
    key: Key,
    method: Method,
    prior: Prior | Boxed,
    simulator: Simulator,
    x: Data,
    *,
    num_rounds: int,
    simulations_per_round: int,
    groups: Iterable[str | Group] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> MarginalResult:
    """Learn posteriors of few parameters each from rounds of simulations in an ever smaller box.

    A round is simulated from the prior between the smallest and the largest draw of every
    parameter's marginal posteriors (TMNRE, Miller et al. 2021, arXiv:2107.01214; Cole et al. 2022,
    arXiv:2111.08030). The posterior of all parameters at once, which is hard to learn if there are
    many, is never needed. Within the box a proposal is the prior: the marginals are amortized over
    it, and can be checked there by `result.prior`.

    Args:
        key: A typed key.
        method: `nre`, `npe`, or another that `jaxsbi.marginals` takes.
        prior: The prior, built from independent distributions by name; the first round is simulated
            from it. Or `result.prior` of an earlier call, to go on within its box.
        simulator: `simulator(key, theta) -> x`.
        x: The observation.
        num_rounds: How many rounds to run.
        simulations_per_round: Simulations of each; those of all rounds that lie in the box are
            trained on.
        groups: The parameters, or tuples of them, whose posteriors are learned, as for
            `jaxsbi.marginals`; by default every parameter on its own. What is in no group keeps
            its prior.
        checkpoint: A folder in which every round is written down, as for `sequential.truncated`.
        progress: Show progress bars.

    Returns:
        Every round, and the last one's marginals. Ctrl-C loses the round that is being run.

    Raises:
        TypeError: If the key is not typed, or the method does not see parameters by their latent
            numbers.
        PriorError: If a name is not one of the prior's, or its parameters depend on one another.
        ValueError: If a number is out of range, a group is empty, the prior's latent coordinates
            are not N(0, I), a marginal has no finite draws, or the checkpoint is damaged or of
            another call.
    """
    check(key, num_rounds, simulations_per_round)
    first = prior if isinstance(prior, Boxed) else whole(prior)
    wanted = tuple(parts_of(first, method, prior.names if groups is None else groups))  # type: ignore[arg-type]
    DataSpec.of(simulator_shape(first, simulator)).conform(x)  # type: ignore[arg-type]
    written = journal(
        checkpoint, "round", first, simulator, x, wanted, num_rounds=num_rounds,  # type: ignore[arg-type]
        simulations_per_round=simulations_per_round,
    )  # fmt: skip
    run = _Run(
        method, first, simulator, x, wanted, simulations_per_round,
        num_rounds * simulations_per_round, written, progress,
    )  # fmt: skip

    def take(number: int, rounds: list[MarginalRound]) -> MarginalRound:
        return run.take(jax.random.fold_in(key, number), rounds)

    return MarginalResult(*in_turn([], num_rounds, take))


@dataclasses.dataclass(frozen=True)
class _Run:
    """What does not change from round to round."""

    method: Method
    prior: Boxed
    simulator: Simulator
    x: Data
    groups: tuple[Group, ...]
    size: int
    capacity: int
    written: Journal
    progress: bool

    def take(self, key: Key, before: list[MarginalRound]) -> MarginalRound:
        """Cut the prior, simulate from what is left, and train on all that lies there."""
        key_box, key_propose, key_simulate, key_fit, key_order = jax.random.split(key, 5)
        parts = [r.simulations for r in before]
        box = self.prior
        if before:
            box = _cut(key_box, before[-1].prior, before[-1].marginals, self.x)

        def draw() -> Drawn:
            return drawn(
                key_simulate, in_box(key_propose, box, self.size), self.simulator, self.x,
                lambda new: [*parts, new], first=not before, progress=self.progress,
            )  # fmt: skip

        found = self.written.drawn(len(before), key, (parts, (box.low, box.high)), draw)
        new = found.simulations
        kept = chosen(key_order, concatenate([*parts, new]), found.keep, self.capacity)
        fitted = learn(
            key_fit, self.method, box, kept, self.groups, capacity=self.capacity,  # type: ignore[arg-type]
            checkpoint=self.written.of(len(before)), progress=self.progress,
        )  # fmt: skip
        ended(*fitted.values())
        return MarginalRound(
            simulations=new,
            prior=box,
            log_proposal=found.log_proposal,
            prior_mass=found.prior_mass,
            kept=len(kept),
            marginals=fitted,
        )


def _cut(key: Key, box: Boxed, fitted: dict[Group, Fitted], x: Data) -> Boxed:
    """Return the box between the smallest and the largest draws of all marginal posteriors.

    Raises:
        ValueError: If a marginal's draws are not finite, all the same, or all outside the box.
    """
    low, high = np.full(box.dim, np.inf), np.full(box.dim, -np.inf)
    for dim in sorted({f.posterior.prior.dim for f in fitted.values()}):
        alike = {g: f.posterior for g, f in fitted.items() if f.posterior.prior.dim == dim}
        first = next(iter(alike.values()))
        learned = [
            (each.variables, dataclasses.replace(each.prior, prior=first.prior.latent))  # type: ignore[call-arg]
            for each in alike.values()
        ]
        ends = _ends(jax.random.fold_in(key, dim), first.method, learned, first.conform(x))
        for group, smallest, largest in zip(alike, *map(np.asarray, ends), strict=True):
            where = np.asarray(box._columns(*group))
            low[where] = np.minimum(low[where], smallest)
            high[where] = np.maximum(high[where], largest)
    free = low > high  # what is in no group keeps the box that it has
    low = np.where(free, box.low, np.maximum(low, box.low))
    high = np.where(free, box.high, np.minimum(high, box.high))
    if not np.all(low < high):
        wrong = [g for g in fitted if not np.all((low < high)[np.asarray(box._columns(*g))])]
        raise ValueError(
            f"sequential.marginals: the posteriors of {wrong} have draws that are not finite, all "
            "the same, or all outside the box that they were trained in. Train on more simulations "
            "a round."
        )
    return boxed(box.prior, *(jnp.asarray(corner, box.low.dtype) for corner in (low, high)))


@jax.jit
def _ends(
    key: Key, method: Method, learned: list[tuple[Any, Boxed]], x: Data
) -> tuple[Array, Array]:
    """Return the smallest and largest of `DRAWS` draws of each group, `(groups, d)` both.

    The groups' posteriors differ by their variables and by the sides of their boxes only: they are
    drawn from together, as latent coordinates of the prior that is cut.
    """
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *learned)
    keys = jax.random.split(key, len(learned))

    def draw(key: Key, one: tuple[Any, Boxed]) -> Array:
        variables, prior = one
        return method.sample(variables, prior, key, x, DRAWS)[0]["z"]  # type: ignore[arg-type]

    t = jax.vmap(draw)(keys, stacked)
    return jnp.min(t, 1), jnp.max(t, 1)
