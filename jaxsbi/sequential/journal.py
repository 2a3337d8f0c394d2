"""What rounds write down, so that a killed run goes on: simulations first, then their training.

Rounds are run again from the first, with the same keys; what is written down is read, not made.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi import checkpoint as checkpoints
from jaxsbi.base import Data, Key, Simulations, Simulator
from jaxsbi.fingerprint import digest, program
from jaxsbi.priors import Prior


class Drawn(NamedTuple):
    """What a round simulates before it trains.

    Attributes:
        simulations: The new ones.
        log_proposal: Log-density of the proposal at each of them, shape `(n,)`.
        prior_mass: The share of the prior that the proposal covers.
        keep: Which simulations of all that there are are trained on, shape `(rows,)`.
        astray: Whether they are unlike the observation, and all are trained on for that.
    """

    simulations: Simulations
    log_proposal: np.ndarray
    prior_mass: float
    keep: np.ndarray
    astray: bool


@dataclasses.dataclass(frozen=True)
class Journal:
    """Where the rounds of a run are written down; nowhere without a folder.

    Attributes:
        folder: With a folder of its own for each round.
        part: What a round is called.
        names: The names of the parameters.
        x: An observation.
        fingerprint: What all rounds depend on.
    """

    folder: Path | None
    part: str
    names: tuple[str, ...]
    x: Data
    fingerprint: checkpoints.Fingerprint

    def of(self, number: int) -> Path | None:
        """Return the folder of one round, in which its training is written down too."""
        return None if self.folder is None else self.folder / f"{self.part}-{number:03d}"

    def drawn(
        self,
        number: int,
        key: Key,
        earlier: tuple[list[Simulations], Any],
        draw: Callable[[], Drawn],
    ) -> Drawn:
        """Return what `draw()` returns, which is called once only, however often the run begins.

        Args:
            number: Of the round.
            key: Of the round.
            earlier: The simulations that there are, and what is proposed by: a posterior, a box.
            draw: Makes new simulations.
        """

        def fingerprint() -> checkpoints.Fingerprint:
            return {**self.fingerprint, "key": digest(key), "earlier rounds": digest(earlier)}

        like = Drawn(Simulations(dict.fromkeys(self.names, 0), self.x, 0), 0, 0, 0, 0)  # type: ignore[arg-type]
        path = checkpoints.file_in(self.of(number), "simulations")
        found = checkpoints.once(path, fingerprint, like, draw)
        return Drawn(
            simulations=jax.tree.map(jnp.asarray, found.simulations),
            log_proposal=np.asarray(found.log_proposal),
            prior_mass=float(found.prior_mass),
            keep=np.asarray(found.keep),
            astray=bool(found.astray),
        )


def journal(
    folder: str | os.PathLike[str] | None,
    part: str,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    propose: Any,
    **options: Any,
) -> Journal:
    """Return where to write the rounds of a run down, given what decides their results."""
    path = checkpoints.folder_at(folder)
    if path is None:
        return Journal(None, part, prior.names, x, {})
    theta = jax.eval_shape(prior.sample, jax.random.key(0))
    fingerprint = {
        "prior": digest(prior),
        "simulator": program(simulator, jax.eval_shape(lambda: jax.random.key(0)), theta),
        "observation": digest(x),
        "proposal": digest(propose),
        **{name: str(value) for name, value in options.items()},
        **checkpoints.machine(),
    }
    return Journal(path, part, prior.names, x, fingerprint)
