"""What is used of ripplegw, without its switch of JAX's precision."""

import jax

# ripplegw switches JAX to double precision when it is imported, for the whole program.
_DOUBLE = jax.config.jax_enable_x64
try:
    from ripplegw.waveforms.cbc.IMRPhenomD.IMRPhenomD import gen_IMRPhenomD
    from ripplegw.waveforms.cbc.IMRPhenomD.IMRPhenomPv2 import gen_IMRPhenomPv2
    from ripplegw.waveforms.cbc.IMRPhenomD.IMRPhenomPv2_utils import SpinWeightedY, convert_spins
    from ripplegw.waveforms.cbc.IMRPhenomX.IMRPhenomXAS import gen_IMRPhenomXAS
finally:  # also of an import that fails half-way
    jax.config.update("jax_enable_x64", _DOUBLE)

__all__ = [
    "SpinWeightedY",
    "convert_spins",
    "gen_IMRPhenomD",
    "gen_IMRPhenomPv2",
    "gen_IMRPhenomXAS",
]
