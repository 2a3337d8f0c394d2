"""The SIR model of an epidemic (arXiv:2101.04653, T.9)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.tasks.ode import solve
from jaxsbi.tasks.task import Task

_POPULATION = 1e6
_TESTED = 1000
_TIMES = np.arange(0.0, 160.0, 17.0)  # ten days, every 17th of the 161 the benchmark saves


def sir() -> Task:
    """Return the SIR task: how many of 1000 people tested are infected, on ten days, x (10,).

    `beta` ~ LogNormal(log 0.4, 0.5) is the contact rate, `gamma` ~ LogNormal(log 0.125, 0.2) the
    recovery rate. One person in a million is infected on day 0. The counts are
    Binomial(1000, infected / population), integers.
    """
    return Task(
        name="sir",
        prior=Prior(
            beta=dist.LogNormal(math.log(0.4), 0.5),
            gamma=dist.LogNormal(math.log(0.125), 0.2),
        ),
        simulator=_simulator,
        log_likelihood=_log_likelihood,
        x_shape=(len(_TIMES),),
        x_dtype=jnp.int32,
    )


def _field(t: Any, state: Array, rates: tuple[Array, Array]) -> Array:
    # Logarithms of the fractions: the infected span 20 decades, and log s = -1e-6 has all its
    # digits where s = 1 - 1e-6 has none to spare.
    beta, gamma = rates
    # Fractions are at most 1; the cap binds in trial steps only, which would overflow without.
    log_susceptible, log_infected = jnp.minimum(state, 0.0)
    return jnp.stack([-beta * jnp.exp(log_infected), beta * jnp.exp(log_susceptible) - gamma])


def _log_infected(theta: Theta) -> Array:
    """Return the logarithm of the infected fraction on the ten days, shape (10,)."""
    initial = jnp.array([math.log1p(-1 / _POPULATION), -math.log(_POPULATION)])
    rates = (theta["beta"], theta["gamma"])
    return solve(_field, initial, jnp.asarray(_TIMES, initial.dtype), rates)[:, 1]


def _simulator(key: Key, theta: Theta) -> Array:
    """Draw ten counts, shape (10,)."""
    fraction = jnp.exp(_log_infected(theta))
    return jax.random.binomial(key, _TESTED, jnp.minimum(fraction, 1.0)).astype(jnp.int32)


def _log_likelihood(theta: Theta, x: Array) -> Array:
    """Return the log-probability of ten counts (10,)."""
    log_p = jnp.minimum(_log_infected(theta), -1e-7)
    x = jnp.asarray(x, log_p.dtype)
    coefficient = gammaln(_TESTED + 1.0) - gammaln(x + 1) - gammaln(_TESTED - x + 1)
    log_q = jnp.log(-jnp.expm1(log_p))
    return jnp.sum(coefficient + x * log_p + (_TESTED - x) * log_q)
