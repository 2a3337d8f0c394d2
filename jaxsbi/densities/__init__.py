"""Conditional densities: Flax modules that map a context to a distribution over R^d."""

from jaxsbi.densities.autoregressive import MaskedAutoregressive, SplineAutoregressive
from jaxsbi.densities.base import Density, View
from jaxsbi.densities.coupling import SplineCoupling
from jaxsbi.densities.gaussian import Gaussian, GaussianMixture

__all__ = [
    "Density",
    "Gaussian",
    "GaussianMixture",
    "MaskedAutoregressive",
    "SplineAutoregressive",
    "SplineCoupling",
    "View",
]
