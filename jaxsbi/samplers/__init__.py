"""Samplers: `(key, log_density, dim, n) -> (draws, info)` on the latent space."""

from jaxsbi.samplers.convergence import ChainInfo, chain_statistics
from jaxsbi.samplers.hmc import HMC, hmc
from jaxsbi.samplers.nuts import NUTS, nuts
from jaxsbi.samplers.smc import SMC, SMCInfo, smc

__all__ = ["HMC", "NUTS", "SMC", "ChainInfo", "SMCInfo", "chain_statistics", "hmc", "nuts", "smc"]
