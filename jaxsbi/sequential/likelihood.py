"""Sequential estimation of a likelihood or a ratio: simulate where the posterior is."""

from __future__ import annotations

import os

from jaxsbi.base import Data, Key, Method, Simulator
from jaxsbi.methods import likelihood as learned
from jaxsbi.priors import Prior
from jaxsbi.sequential.proposal import at_draws
from jaxsbi.sequential.rounds import Result, run


def likelihood(
    key: Key,
    method: Method,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    *,
    num_rounds: int,
    simulations_per_round: int,
    previous: Result | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Result:
    """Learn a likelihood, or a ratio, from rounds of simulations at draws of its own posterior.

    Nothing needs to be corrected: what is learned is a law of x given θ (SNLE, Papamakarios et al.
    2019, arXiv:1805.07226; SNRE, Durkan et al. 2020, arXiv:2002.03712).

    A round is trained on the simulations within six standard deviations of the last posterior's
    draws, or on all if those that were made at these draws are unlike the observation: then that
    posterior was wrong. Beyond them what is learned is an extrapolation: a log-evidence that jumps
    in a round, as `posterior.sample_with_info` reports it, tells of mass there.

    Args:
        key: A typed key.
        method: `nle`, `nre` or `emulator`.
        prior: The prior; the first round is simulated from it.
        simulator: `simulator(key, theta) -> x`.
        x: The observation; the result holds for it alone.
        num_rounds: How many rounds to run.
        simulations_per_round: Simulations of each; all rounds' are trained on.
        previous: What an earlier call returned: its rounds are kept, and these are added. Rounds of
            any function and observation will do, under the same prior.
        checkpoint: A folder in which every round is written down, as for `sequential.truncated`.
        progress: Show progress bars.

    Returns:
        Every round, and the last posterior. Ctrl-C loses the round that is being run.

    Raises:
        TypeError: If the key is not typed, or the method learns no likelihood.
        ValueError: If a number is out of range, `previous` cannot be used here, or the checkpoint
            is damaged or of another call.
    """
    if not learned.is_learned_by(method):
        raise TypeError(
            f"sequential.likelihood: expected nle, nre or emulator, got {type(method).__name__}, "
            "which would learn the proposal's posterior. Use sequential.truncated for it."
        )
    return run(
        key,
        method,
        prior,
        simulator,
        x,
        at_draws,
        num_rounds=num_rounds,
        simulations_per_round=simulations_per_round,
        previous=previous,
        checkpoint=checkpoint,
        progress=progress,
    )
