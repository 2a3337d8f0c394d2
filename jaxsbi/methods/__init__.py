"""The roads from simulations to a posterior, one per file."""

from jaxsbi.methods.approximation import Emulated
from jaxsbi.methods.conditional import conditional, conditional_log_prob
from jaxsbi.methods.emulator import Emulator, emulator
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.methods.field import sample_iid, trajectories
from jaxsbi.methods.fmpe import FMPE, fmpe
from jaxsbi.methods.joint import Joint, joint
from jaxsbi.methods.nle import NLE, nle
from jaxsbi.methods.normalizing import Normalization, normalization
from jaxsbi.methods.npe import NPE, DirectInfo, npe
from jaxsbi.methods.npse import NPSE, npse
from jaxsbi.methods.nre import NRE, nre

__all__ = [
    "FMPE",
    "NLE",
    "NPE",
    "NPSE",
    "NRE",
    "DirectInfo",
    "Emulated",
    "Emulator",
    "Ensemble",
    "Joint",
    "Normalization",
    "conditional",
    "conditional_log_prob",
    "emulator",
    "fmpe",
    "joint",
    "nle",
    "normalization",
    "npe",
    "npse",
    "nre",
    "sample_iid",
    "trajectories",
]
