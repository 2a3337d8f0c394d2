"""Sequential inference: rounds of simulations where the last round's posterior says they matter."""

from jaxsbi.sequential.atomic import Atomic, atomic
from jaxsbi.sequential.dynamic import dynamic
from jaxsbi.sequential.likelihood import likelihood
from jaxsbi.sequential.marginals import MarginalResult, MarginalRound, marginals
from jaxsbi.sequential.rounds import Result, Round
from jaxsbi.sequential.truncated import truncated

__all__ = [
    "Atomic",
    "MarginalResult",
    "MarginalRound",
    "Result",
    "Round",
    "atomic",
    "dynamic",
    "likelihood",
    "marginals",
    "truncated",
]
