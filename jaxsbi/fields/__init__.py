"""Vector fields: Flax modules that rotate noise into posterior draws, and their solvers."""

from jaxsbi.fields.compose import compose, precision_of
from jaxsbi.fields.ode import ODE, FieldInfo, ode
from jaxsbi.fields.paths import (
    EDM,
    FlowMatching,
    Path,
    VarianceExploding,
    VariancePreserving,
    denoised,
    log_ratio,
    score,
    velocity,
    widest_angle,
)
from jaxsbi.fields.residual import Field, ResidualField
from jaxsbi.fields.sde import SDE, sde
from jaxsbi.fields.transformer import JointTransformer

__all__ = [
    "EDM",
    "ODE",
    "SDE",
    "Field",
    "FieldInfo",
    "FlowMatching",
    "JointTransformer",
    "Path",
    "ResidualField",
    "VarianceExploding",
    "VariancePreserving",
    "compose",
    "denoised",
    "log_ratio",
    "ode",
    "precision_of",
    "score",
    "sde",
    "velocity",
    "widest_angle",
]
