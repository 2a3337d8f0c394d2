"""Samplers: `(key, log_density, dim, n) -> (draws, info)` on the latent space, and its modes.

nuts, hmc          gradients, many short chains; the default of every road with a likelihood
smc                gradients; separated modes with their weights, and the evidence
ensemble, slice    no gradients, many chains
sir, rejection     no gradients; only where the posterior fills a good part of the prior
"""

from jaxsbi.samplers.convergence import ChainInfo, chain_statistics
from jaxsbi.samplers.ensemble import Ensemble, ensemble
from jaxsbi.samplers.hmc import HMC, hmc
from jaxsbi.samplers.modes import Laplace, Modes, laplace, modes
from jaxsbi.samplers.nuts import NUTS, nuts
from jaxsbi.samplers.rejection import Rejection, RejectionInfo, rejection
from jaxsbi.samplers.sir import SIR, SIRInfo, sir
from jaxsbi.samplers.slice import Slice, slice
from jaxsbi.samplers.smc import SMC, SMCInfo, smc

__all__ = [
    "HMC",
    "NUTS",
    "SIR",
    "SMC",
    "ChainInfo",
    "Ensemble",
    "Laplace",
    "Modes",
    "Rejection",
    "RejectionInfo",
    "SIRInfo",
    "SMCInfo",
    "Slice",
    "chain_statistics",
    "ensemble",
    "hmc",
    "laplace",
    "modes",
    "nuts",
    "rejection",
    "sir",
    "slice",
    "smc",
]
