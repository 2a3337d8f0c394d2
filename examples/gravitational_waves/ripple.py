"""What is used of ripplegw, without its switch of JAX's precision."""

import jax

# ripplegw switches JAX to double precision when it is imported, for the whole program.
_DOUBLE = jax.config.jax_enable_x64
from ripplegw.waveforms.cbc.IMRPhenomD.IMRPhenomD import gen_IMRPhenomD  # noqa: E402
from ripplegw.waveforms.cbc.IMRPhenomD.IMRPhenomPv2 import gen_IMRPhenomPv2  # noqa: E402
from ripplegw.waveforms.cbc.IMRPhenomD.IMRPhenomPv2_utils import (  # noqa: E402
    SpinWeightedY,
    convert_spins,
)
from ripplegw.waveforms.cbc.IMRPhenomX.IMRPhenomXAS import gen_IMRPhenomXAS  # noqa: E402

jax.config.update("jax_enable_x64", _DOUBLE)

__all__ = [
    "SpinWeightedY",
    "convert_spins",
    "gen_IMRPhenomD",
    "gen_IMRPhenomPv2",
    "gen_IMRPhenomXAS",
]
