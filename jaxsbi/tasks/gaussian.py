"""The three Gaussian tasks (arXiv:2101.04653, T.1, T.2 and T.7)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.tasks.task import Task

_DIM = 10
# The benchmark calls 0.1 a scale but uses it as a variance: of the noise, and of the prior.
_SCALE = math.sqrt(0.1)
_MIXTURE_SCALES = (1.0, 0.1)


def gaussian_linear() -> Task:
    """Return the linear Gaussian task: theta ~ N(0, 0.1 I), x ~ N(theta, 0.1 I), both (10,).

    The posterior is N(x / 2, 0.05 I).
    """
    return Task(
        name="gaussian_linear",
        prior=Prior(theta=dist.Normal(np.zeros(_DIM), _SCALE).to_event(1)),
        simulator=_linear_simulator,
        log_likelihood=_linear_log_likelihood,
        x_shape=(_DIM,),
    )


def gaussian_linear_uniform() -> Task:
    """Return the linear Gaussian task with theta (10,) uniform on [-1, 1]^10; x ~ N(theta, 0.1 I).

    The posterior is N(x, 0.1 I) truncated to the prior's box.
    """
    return Task(
        name="gaussian_linear_uniform",
        prior=Prior(theta=dist.Uniform(-np.ones(_DIM), np.ones(_DIM)).to_event(1)),
        simulator=_linear_simulator,
        log_likelihood=_linear_log_likelihood,
        x_shape=(_DIM,),
    )


def gaussian_mixture() -> Task:
    """Return the mixture task: x (2,) is N(theta, I) or N(theta, 0.01 I), each with half the mass.

    `theta` (2,) is uniform on [-10, 10]².
    """
    return Task(
        name="gaussian_mixture",
        prior=Prior(theta=dist.Uniform(-10 * np.ones(2), 10 * np.ones(2)).to_event(1)),
        simulator=_mixture_simulator,
        log_likelihood=_mixture_log_likelihood,
        x_shape=(2,),
    )


def _linear_simulator(key: Key, theta: Theta) -> Array:
    return theta["theta"] + _SCALE * jax.random.normal(key, (_DIM,))


def _linear_log_likelihood(theta: Theta, x: Array) -> Array:
    return dist.Normal(theta["theta"], _SCALE).log_prob(x).sum()


def _mixture_simulator(key: Key, theta: Theta) -> Array:
    key_component, key_noise = jax.random.split(key)
    wide, narrow = _MIXTURE_SCALES
    scale = jnp.where(jax.random.bernoulli(key_component), wide, narrow)
    return theta["theta"] + scale * jax.random.normal(key_noise, (2,))


def _mixture_log_likelihood(theta: Theta, x: Array) -> Array:
    # Both coordinates share one component: the sum over coordinates comes before the mixture.
    components = jnp.stack(
        [dist.Normal(theta["theta"], scale).log_prob(x).sum() for scale in _MIXTURE_SCALES]
    )
    return jax.nn.logsumexp(components) - math.log(len(_MIXTURE_SCALES))
