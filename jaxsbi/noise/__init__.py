"""Noise models: the law of an observation around the emulator's prediction."""

from jaxsbi.noise.base import Noise, log_prob
from jaxsbi.noise.estimated import EstimatedNoise, WhitenedNormal, estimated
from jaxsbi.noise.gaussian import GaussianNoise, ModelledNoise, gaussian, gaussian_of
from jaxsbi.noise.spectra import (
    PeriodogramNoise,
    PoissonNoise,
    periodogram,
    poisson,
    whittle,
)
from jaxsbi.noise.student import StudentNoise, student_t

__all__ = [
    "EstimatedNoise",
    "GaussianNoise",
    "ModelledNoise",
    "Noise",
    "PeriodogramNoise",
    "PoissonNoise",
    "StudentNoise",
    "WhitenedNormal",
    "estimated",
    "gaussian",
    "gaussian_of",
    "log_prob",
    "periodogram",
    "poisson",
    "student_t",
    "whittle",
]
