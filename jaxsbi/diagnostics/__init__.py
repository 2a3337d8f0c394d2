"""Is the posterior right? Calibration, distances between samples, and information."""

from jaxsbi.diagnostics.c2st import C2ST, c2st, c2st_folds, c2st_standard, c2st_twin
from jaxsbi.diagnostics.calibration import CalibrationReport, Ranks, calibration
from jaxsbi.diagnostics.check import Check, check
from jaxsbi.diagnostics.distortions import Distortions, distortions
from jaxsbi.diagnostics.divergences import Divergences, Estimate, divergences
from jaxsbi.diagnostics.fisher import Fisher, fisher_information, gaussian_fisher
from jaxsbi.diagnostics.information import Information, information_lost, mutual_information
from jaxsbi.diagnostics.local import (
    Classifier,
    LocalC2ST,
    LocalClassifiers,
    local_c2st,
    local_classifiers,
)
from jaxsbi.diagnostics.misspecification import Misspecification, misspecification
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
    log_predictive,
    posterior_predictive,
    prior_predictive,
)
from jaxsbi.diagnostics.ranks import Calibration, sbc
from jaxsbi.diagnostics.strata import Stratified, stratified
from jaxsbi.diagnostics.two_sample import (
    ClassifierTest,
    MarginalJSD,
    TwoSample,
    classifier_test,
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
    "Classifier",
    "ClassifierTest",
    "Density",
    "Distance",
    "Distortions",
    "Divergences",
    "Estimate",
    "Fisher",
    "Information",
    "LocalC2ST",
    "LocalClassifiers",
    "LogLikelihood",
    "LogPrior",
    "MarginalJSD",
    "Misspecification",
    "Parameters",
    "Predictive",
    "Problem",
    "Projections",
    "Ranks",
    "Stratified",
    "TwoSample",
    "c2st",
    "c2st_folds",
    "c2st_standard",
    "c2st_twin",
    "calibration",
    "check",
    "classifier_test",
    "contraction",
    "distortions",
    "divergences",
    "energy_distance",
    "fisher_information",
    "gaussian_fisher",
    "information_lost",
    "local_c2st",
    "local_classifiers",
    "log_predictive",
    "marginal_jsd",
    "misspecification",
    "mmd",
    "mutual_information",
    "posterior_predictive",
    "prior_predictive",
    "sbc",
    "sliced_wasserstein",
    "stratified",
]
