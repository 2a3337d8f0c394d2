"""A Bernoulli generalised linear model of a neuron's spikes (arXiv:2101.04653, T.5 and T.6).

The stimulus is not shipped: it is the first 100 normal draws of NumPy's legacy generator (whose
stream NumPy guarantees) seeded with 42, and equals the published wheel's file bit by bit.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.tasks.task import Task

_BINS = 100
_LAGS = 9


def bernoulli_glm() -> Task:
    """Return the model with its ten sufficient statistics as data, x (10,).

    Spikes y in 100 bins are Bernoulli with log-odds `offset + filter * stimulus`. The data are
    `design.T @ y`: the number of spikes and the spike-triggered sums of the stimulus at lags
    0 to 8. The prior is offset ~ N(0, 2) and a filter (9,) with correlated, smooth entries.

    The log-likelihood is that of the spikes. It is also that of the statistics, because no two
    spike trains share them (the stimulus is a list of generic real numbers).
    """
    return Task(
        name="bernoulli_glm",
        prior=_prior(),
        simulator=_simulator,
        log_likelihood=_log_likelihood,
        x_shape=(_LAGS + 1,),
    )


def bernoulli_glm_raw() -> Task:
    """Return the model with the spikes themselves as data: x (100,) of booleans."""
    return Task(
        name="bernoulli_glm_raw",
        prior=_prior(),
        simulator=_raw_simulator,
        log_likelihood=_raw_log_likelihood,
        x_shape=(_BINS,),
        x_dtype=jnp.bool_,
    )


def _prior() -> Prior:
    """Return the prior: the filter's precision penalises its second differences."""
    difference = np.eye(_LAGS) - np.eye(_LAGS, k=-1)
    root = difference @ difference + np.diag(np.sqrt(np.arange(_LAGS) / _LAGS))
    # The factor of the covariance is made in float64: its entries span three decades.
    covariance = np.linalg.inv(root.T @ root)
    return Prior(
        offset=dist.Normal(0.0, np.sqrt(2.0)),
        filter=dist.MultivariateNormal(np.zeros(_LAGS), scale_tril=np.linalg.cholesky(covariance)),
    )


@functools.cache
def _design() -> np.ndarray:
    """Return the design matrix (100, 10): a column of ones, then the stimulus at each lag."""
    stimulus = np.random.RandomState(42).randn(_BINS).astype(np.float32)
    design = np.zeros((_BINS, _LAGS + 1), np.float32)
    design[:, 0] = 1.0
    for lag in range(_LAGS):
        design[lag:, lag + 1] = stimulus[: _BINS - lag]
    return design


def _weights(theta: Theta) -> Array:
    return jnp.concatenate([jnp.ravel(theta["offset"]), theta["filter"]])


def _raw_simulator(key: Key, theta: Theta) -> Array:
    """Draw one spike train, shape (100,)."""
    log_odds = jnp.asarray(_design()) @ _weights(theta)
    # The logistic noise keeps its tails; comparing a uniform with a sigmoid loses them.
    return log_odds + jax.random.logistic(key, (_BINS,)) > 0


def _raw_log_likelihood(theta: Theta, x: Array) -> Array:
    """Return the log-probability of one spike train (100,)."""
    return _log_likelihood(theta, _statistics(x))


def _simulator(key: Key, theta: Theta) -> Array:
    """Draw the sufficient statistics of one spike train, shape (10,)."""
    return _statistics(_raw_simulator(key, theta))


def _statistics(spikes: Array) -> Array:
    design = jnp.asarray(_design())
    return jnp.asarray(spikes, design.dtype) @ design


def _log_likelihood(theta: Theta, x: Array) -> Array:
    """Return the log-probability of the spike train whose sufficient statistics are x (10,)."""
    weights = _weights(theta)
    return x @ weights - jax.nn.softplus(jnp.asarray(_design()) @ weights).sum()
