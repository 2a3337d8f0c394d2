"""Simple likelihood, complex posterior; with and without distractors (arXiv:2101.04653, T.3, T.4).

The distractors' mixture and the permutation are not shipped: they are the first draws of NumPy's
legacy generator (whose stream NumPy guarantees) seeded with 42, and equal the files in the
published wheel (the permutation exactly, the mixture to one unit in the last place of float64).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.tasks.task import Task

_POINTS = 4
_SIGNAL = 2 * _POINTS
_JITTER = 1e-6  # added to both variances by the benchmark
_NOISE_DIM, _NOISE_COMPONENTS = 92, 20


def slcp() -> Task:
    """Return the SLCP task: four draws from a two-dimensional Gaussian, x (4, 2).

    `theta` (5,) is uniform on [-3, 3]^5. The mean is (theta_1, theta_2), the standard deviations
    s_1 = theta_3², s_2 = theta_4², the correlation tanh(theta_5). `x` is the set of points, (4, 2).
    The signs of theta_3 and theta_4 do not matter: every posterior has four equal parts.
    """
    return Task(
        name="slcp",
        prior=_prior(),
        simulator=_simulator,
        log_likelihood=_log_likelihood,
        x_shape=(_POINTS, 2),
        exchangeable=True,
    )


def slcp_distractors() -> Task:
    """Return SLCP with 92 entries of noise that hides the eight informative ones, x (100,).

    The noise is a mixture of 20 Student-t distributions (2 degrees of freedom) that does not
    depend on theta; all 100 entries are permuted. The posterior is SLCP's.

    The log-likelihood leaves out the distractors' density, a constant in theta: the mixture's
    scale matrices have condition numbers up to 1e18, so that it has no digits even in float64.
    """
    return Task(
        name="slcp_distractors",
        prior=_prior(),
        simulator=_distractors_simulator,
        log_likelihood=_distractors_log_likelihood,
        x_shape=(_SIGNAL + _NOISE_DIM,),
    )


def _prior() -> Prior:
    return Prior(theta=dist.Uniform(-3 * np.ones(5), 3 * np.ones(5)).to_event(1))


def _cholesky(theta: Array) -> tuple[Array, Array, Array]:
    """Return the factor's entries L11, L21, L22 of the points' covariance.

    The determinant is written with 1 - tanh² = sech², term by term: the difference of products
    cancels in float32 when the correlation is near 1 or the deviations are small.
    """
    s1, s2, correlation = theta[2] ** 2, theta[3] ** 2, jnp.tanh(theta[4])
    variance1 = s1**2 + _JITTER
    sech = 1 / jnp.cosh(theta[4])
    determinant = (s1 * s2 * sech) ** 2 + _JITTER * (s1**2 + s2**2) + _JITTER**2
    root = jnp.sqrt(variance1)
    return root, correlation * s1 * s2 / root, jnp.sqrt(determinant / variance1)


def _simulator(key: Key, theta: Theta) -> Array:
    """Draw four points, shape (4, 2)."""
    l11, l21, l22 = _cholesky(theta["theta"])
    e1, e2 = jax.random.normal(key, (2, _POINTS))
    m1, m2 = theta["theta"][0], theta["theta"][1]
    return jnp.stack([m1 + l11 * e1, m2 + l21 * e1 + l22 * e2], axis=1)


def _log_likelihood(theta: Theta, x: Array) -> Array:
    """Return log p(x | theta) for x of shape (4, 2)."""
    l11, l21, l22 = _cholesky(theta["theta"])
    e1 = (x[:, 0] - theta["theta"][0]) / l11
    e2 = (x[:, 1] - theta["theta"][1] - l21 * e1) / l22
    normaliser = jnp.log(l11) + jnp.log(l22) + math.log(2 * math.pi)
    return -0.5 * jnp.sum(e1**2 + e2**2) - _POINTS * normaliser


@functools.cache
def _distractors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mixture's locations (20, 92), its scale factors (20, 92, 92), the permutation.

    The order of the draws, the lower triangle's own diagonal and the factors 15 and 3 are the
    benchmark's. Some diagonals are negative: a factor for drawing, not a Cholesky factor.
    """
    generator = np.random.RandomState(42)
    shape = (_NOISE_COMPONENTS, _NOISE_DIM)
    loc = 15 * generator.normal(size=shape)
    factors = np.empty((*shape, _NOISE_DIM))
    for factor in factors:
        triangle = np.tril(generator.normal(size=(_NOISE_DIM, _NOISE_DIM)))
        factor[:] = 3 * (triangle + np.diag(np.exp(generator.normal(size=_NOISE_DIM))))
    permutation = generator.permutation(_SIGNAL + _NOISE_DIM)
    return loc.astype(np.float32), factors.astype(np.float32), permutation


def _distractors_simulator(key: Key, theta: Theta) -> Array:
    """Draw the points and the distractors, permuted, shape (100,)."""
    key_signal, key_component, key_normal, key_scale = jax.random.split(key, 4)
    loc, factors, permutation = _distractors()
    component = jax.random.randint(key_component, (), 0, _NOISE_COMPONENTS)
    # A normal over the root of chi² / 2, where chi² with 2 degrees of freedom is 2 Exponential.
    normal = jax.random.normal(key_normal, (_NOISE_DIM,))
    student = normal / jnp.sqrt(jax.random.exponential(key_scale))
    # All components' products, then one of them: under vmap this is one matrix product, where
    # choosing the factor first would copy a matrix per draw.
    noise = jnp.asarray(loc)[component] + (jnp.asarray(factors) @ student)[component]
    return jnp.concatenate([_simulator(key_signal, theta).ravel(), noise])[permutation]


def _distractors_log_likelihood(theta: Theta, x: Array) -> Array:
    """Return log p(x | theta) without the distractors' density, for x of shape (100,)."""
    _, _, permutation = _distractors()
    return _log_likelihood(theta, x[np.argsort(permutation)[:_SIGNAL]].reshape(_POINTS, 2))
