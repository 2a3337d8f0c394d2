"""Approximate Bayesian computation: simulate, compare, keep what comes near (arXiv:1802.09720).

>>> import jax
>>> import jax.numpy as jnp
>>> import numpyro.distributions as dist
>>> import jaxsbi
>>> prior = jaxsbi.Prior(mean=dist.Normal(0.0, 1.0))
>>> def simulator(key, theta):
...     return theta["mean"] + jax.random.normal(key, (2,))
>>> draws, info = jaxsbi.abc.rejection(
...     jax.random.key(0), prior, simulator, jnp.ones(2), num_simulations=10_000, keep=100
... )
>>> draws["mean"].shape, float(info.kept_fraction)
((100,), 0.01)
"""

from jaxsbi.abc.distances import (
    Distance,
    Energy,
    Euclidean,
    Mahalanobis,
    MaximumMeanDiscrepancy,
    Summary,
    mahalanobis,
    scaled_euclidean,
)
from jaxsbi.abc.kde import KernelDensity, kde
from jaxsbi.abc.regression import adjust
from jaxsbi.abc.rejection import RejectionInfo, rejection
from jaxsbi.abc.smc import SMCInfo, smc
from jaxsbi.abc.summaries import LinearSummary, linear_summary

__all__ = [
    "Distance",
    "Energy",
    "Euclidean",
    "KernelDensity",
    "LinearSummary",
    "Mahalanobis",
    "MaximumMeanDiscrepancy",
    "RejectionInfo",
    "SMCInfo",
    "Summary",
    "adjust",
    "kde",
    "linear_summary",
    "mahalanobis",
    "rejection",
    "scaled_euclidean",
    "smc",
]
