"""Samplers: `(key, log_density, dim, n) -> (draws, info)` on the latent space, and its modes.

- `smc`: separated modes with their weights, and the evidence; the default of every road with a
  likelihood.
- `nuts`, `hmc`: gradients, many short chains.
- `ensemble`, `slice`: many chains, no gradients.
- `sir`, `rejection`: no gradients, and the evidence, where the posterior is not much narrower than
  the prior.
- `nested`: an oracle on the host, by dynesty, where that is installed.

Every report of the others names r_hat, ess_bulk, ess_tail, divergences, acceptance and log_density.
"""

from jaxsbi.samplers.convergence import ChainInfo, chain_statistics
from jaxsbi.samplers.ensemble import Ensemble, ensemble
from jaxsbi.samplers.evolution import Evolution
from jaxsbi.samplers.hmc import HMC, hmc
from jaxsbi.samplers.modes import Laplace, Modes, laplace, modes
from jaxsbi.samplers.moves import Hamiltonian
from jaxsbi.samplers.nested import NestedInfo, nested
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
    "Evolution",
    "Hamiltonian",
    "Laplace",
    "Modes",
    "NestedInfo",
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
    "nested",
    "nuts",
    "rejection",
    "sir",
    "slice",
    "smc",
]
