"""Conditional densities: Flax modules that map a context to a law of numbers, real or whole."""

from jaxsbi.densities.autoregressive import MaskedAutoregressive, SplineAutoregressive
from jaxsbi.densities.base import Density, View
from jaxsbi.densities.coupling import SplineCoupling
from jaxsbi.densities.discrete import (
    MaskedBernoulli,
    MaskedBinomial,
    MaskedCategorical,
    MaskedLogisticMixture,
)
from jaxsbi.densities.gaussian import Gaussian, GaussianMixture
from jaxsbi.densities.mixed import Mixed, Parts

__all__ = [
    "Density",
    "Gaussian",
    "GaussianMixture",
    "MaskedAutoregressive",
    "MaskedBernoulli",
    "MaskedBinomial",
    "MaskedCategorical",
    "MaskedLogisticMixture",
    "Mixed",
    "Parts",
    "SplineAutoregressive",
    "SplineCoupling",
    "View",
]
