"""Whether float32 can carry a distribution's quantiles: asked once, when a route is chosen."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from jaxsbi.latent.maps import truncation_bounds
from jaxsbi.latent.routes import TRUNCATED, choose
from jaxsbi.notice import is_concrete

# A lower tail x^a underflows for small a, and a mass piled up against an end that is not zero (a
# Beta's at 1) lies between two floats. The thresholds are where a float32 round trip at |z| = 4
# still holds 1e-3 (measured in tests/test_latent.py).
_CONDITIONS: dict[type, Callable[[Any], Any]] = {
    dist.Beta: lambda d: (d.concentration1 >= 0.3) & (d.concentration0 >= 1.0),
    dist.BetaProportion: lambda d: (d.concentration1 >= 0.3) & (d.concentration0 >= 1.0),
    dist.Gamma: lambda d: jnp.asarray(d.concentration) >= 0.3,
    dist.Chi2: lambda d: jnp.asarray(d.concentration) >= 0.3,
    dist.StudentT: lambda d: jnp.asarray(d.df) >= 0.5,
    dist.Weibull: lambda d: jnp.asarray(d.concentration) >= 0.3,
    dist.Kumaraswamy: lambda d: (d.concentration1 >= 0.3) & (d.concentration0 >= 1.0),
    dist.Dagum: lambda d: (d.sharpness >= 0.3) & (d.concentration * d.sharpness >= 0.3),
    dist.Pareto: lambda d: jnp.asarray(d.alpha) <= 8.0,
    dist.LowerTruncatedPowerLaw: lambda d: jnp.asarray(d.alpha) >= -9.0,
    dist.DoublyTruncatedPowerLaw: lambda d: jnp.asarray(d.low) > 0,
}
# Beyond this (in z of the base) a truncation keeps a tail too narrow for the floats around it.
_DEEP = 2.0


def usable(d: Any) -> Array:
    """Whether the quantiles of a leaf distribution hold up to |z| = 4: bool array, traceable."""
    if type(d) in _CONDITIONS:
        return jnp.asarray(_CONDITIONS[type(d)](d))
    if type(d) in TRUNCATED:
        low, high = truncation_bounds(choose(d.base_dist, lambda _: True), d)
        return (low < _DEEP) & (high > -_DEEP) & usable(d.base_dist)
    return jnp.asarray(True)


_usable = jax.jit(usable)  # one small program instead of many operations


def is_usable(d: Any) -> bool:
    """`usable` as a Python bool; False where the answer depends on traced parameters."""
    if type(d) not in _CONDITIONS and type(d) not in TRUNCATED:
        return True
    if not is_concrete(d):
        return False
    return bool(np.all(_usable(d)))
