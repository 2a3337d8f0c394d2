"""Samplers: `(key, log_density, dim, n) -> (draws, info)` on the latent space."""

from jaxsbi.samplers.convergence import ChainInfo, chain_statistics
from jaxsbi.samplers.nuts import NUTS, nuts

__all__ = ["NUTS", "ChainInfo", "chain_statistics", "nuts"]
