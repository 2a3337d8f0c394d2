"""The throw of a ball: a problem of one parameter whose posterior is known on a grid."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

LOW, HIGH = 0.05, np.pi / 2 - 0.05
REACH, NOISE = 10.0**2 / 9.81, 0.3
X_OBSERVED = REACH * np.sin(1.2)
GRID = np.linspace(LOW, HIGH, 4_001)


def throw(key, theta):
    return REACH * jnp.sin(2.0 * theta["angle"]) + NOISE * jax.random.normal(key)


def posterior(noise=NOISE):
    """Return the posterior density on the grid."""
    likelihood = np.exp(-0.5 * ((REACH * np.sin(2 * GRID) - X_OBSERVED) / noise) ** 2)
    return likelihood / np.trapezoid(likelihood, GRID)


def variation(density, other):
    """Return the total variation distance of two densities on the grid."""
    return 0.5 * np.trapezoid(np.abs(density - other), GRID)


def cumulative(density, grid=GRID):
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
    return np.concatenate([[0.0], np.cumsum(steps)])


def kolmogorov(draws, density, weights=None, grid=GRID):
    """Return the largest difference of the distribution functions of draws and a density."""
    draws = np.asarray(draws)
    order = np.argsort(draws)
    weights = np.full(draws.size, 1 / draws.size) if weights is None else np.asarray(weights)
    expected = np.interp(draws[order], grid, cumulative(density, grid))
    after = np.cumsum(weights[order])
    before = after - weights[order]
    return max(np.abs(after - expected).max(), np.abs(before - expected).max())


@pytest.fixture(scope="session")
def ball():
    return SimpleNamespace(
        prior=jaxsbi.Prior(angle=dist.Uniform(LOW, HIGH)),
        simulator=throw,
        x=jnp.array(X_OBSERVED, jnp.float32),
        noise=NOISE,
        grid=GRID,
        posterior=posterior,
        variation=variation,
        kolmogorov=kolmogorov,
        # sqrt(n) times that difference is larger once in a thousand cases.
        critical=1.95,
        metres=jaxsbi.abc.Euclidean(),
    )
