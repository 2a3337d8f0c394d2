"""Is the posterior right? Calibration, distances between samples, and information."""

from jaxsbi.diagnostics.c2st import C2ST, c2st, c2st_folds, c2st_standard, c2st_twin
from jaxsbi.diagnostics.calibration import CalibrationReport, Ranks, calibration
from jaxsbi.diagnostics.check import Check, check
from jaxsbi.diagnostics.divergences import Divergences, Estimate, divergences
from jaxsbi.diagnostics.fisher import Fisher, fisher_information, gaussian_fisher
from jaxsbi.diagnostics.information import Information, information_lost, mutual_information
from jaxsbi.diagnostics.orderings import (
    Density,
    Distance,
    LogLikelihood,
    LogPrior,
    Parameters,
    Problem,
    Projections,
)
from jaxsbi.diagnostics.predictive import (
    Predictive,
    contraction,
    posterior_predictive,
    prior_predictive,
)
from jaxsbi.diagnostics.ranks import Calibration, sbc
from jaxsbi.diagnostics.two_sample import (
    MarginalJSD,
    TwoSample,
    energy_distance,
    marginal_jsd,
    mmd,
    sliced_wasserstein,
)

__all__ = [
    "C2ST",
    "Calibration",
    "CalibrationReport",
    "Check",
    "Density",
    "Distance",
    "Divergences",
    "Estimate",
    "Fisher",
    "Information",
    "LogLikelihood",
    "LogPrior",
    "MarginalJSD",
    "Parameters",
    "Predictive",
    "Problem",
    "Projections",
    "Ranks",
    "TwoSample",
    "c2st",
    "c2st_folds",
    "c2st_standard",
    "c2st_twin",
    "calibration",
    "check",
    "contraction",
    "divergences",
    "energy_distance",
    "fisher_information",
    "gaussian_fisher",
    "information_lost",
    "marginal_jsd",
    "mmd",
    "mutual_information",
    "posterior_predictive",
    "prior_predictive",
    "sbc",
    "sliced_wasserstein",
]
