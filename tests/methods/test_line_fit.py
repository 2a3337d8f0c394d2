"""A straight line through noisy points: an amortised Gaussian against the exact posterior.

t = a + b x + noise of 0.25 at 20 points on [0, 1], a ~ U(-1, 1), b ~ U(-2, 2). Away from the
prior's edges the posterior is a Gaussian with sigma_a = 0.108, sigma_b = 0.184, rho = -0.855.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

pytestmark = pytest.mark.slow

PRIOR = jaxsbi.Prior(a=dist.Uniform(-1.0, 1.0), b=dist.Uniform(-2.0, 2.0))
POINTS = jnp.linspace(0.0, 1.0, 20)
NOISE = 0.25
DESIGN = np.stack([np.ones(20), np.asarray(POINTS)], axis=1)
COVARIANCE = NOISE**2 * np.linalg.inv(DESIGN.T @ DESIGN)
ENTROPY = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * COVARIANCE))


def simulator(key, theta):
    return theta["a"] + theta["b"] * POINTS + NOISE * jax.random.normal(key, (20,))


@pytest.fixture(scope="module")
def fitted():
    simulations = jaxsbi.simulate(jax.random.key(1), PRIOR, simulator, 20_000, progress=False)
    method = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=32))
    return jaxsbi.fit(jax.random.key(2), method, PRIOR, simulations, progress=False)


def test_the_exact_numbers_are_the_courses():
    widths = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(widths, [0.108, 0.184], atol=1e-3)
    assert COVARIANCE[0, 1] / widths.prod() == pytest.approx(-0.855, abs=1e-3)
    assert pytest.approx(-1.738, abs=1e-2) == ENTROPY


@pytest.mark.parametrize("truth", [(0.0, 0.0), (0.3, -0.5), (-0.4, 0.8)])
def test_interior_posteriors(fitted, truth):
    a, b = map(jnp.array, truth)
    x = simulator(jax.random.key(3), {"a": a, "b": b})
    draws = fitted.posterior.sample(jax.random.key(4), x, 10_000)
    draws = np.stack([draws["a"], draws["b"]])
    exact = np.linalg.lstsq(DESIGN, np.asarray(x), rcond=None)[0]
    widths = np.sqrt(np.diag(COVARIANCE))
    # 1,900 weights learned from 18,000 pairs cost about 1900 / 36000 = 0.05 nat on average, and
    # three times that at an unlucky x: a shift of the mean by s costs s' C^-1 s / 2, and a width
    # wrong by 20 % costs 0.04; 10,000 draws add a hundredth.
    shift = draws.mean(1) - exact
    assert 0.5 * shift @ np.linalg.solve(COVARIANCE, shift) < 0.15
    np.testing.assert_allclose(draws.std(1) / widths, 1.0, atol=0.2)
    assert np.corrcoef(draws)[0, 1] == pytest.approx(-0.855, abs=0.04)


def test_the_loss_floor_is_the_entropy(fitted):
    """Of the interior: -log q(theta | x) of fresh pairs averages to the exact entropy."""
    posterior = fitted.posterior
    keys = jax.random.split(jax.random.key(5), 4_000)
    inside = jaxsbi.Prior(a=dist.Uniform(-0.5, 0.5), b=dist.Uniform(-1.0, 1.0))

    def one(key):
        key_theta, key_x = jax.random.split(key)
        theta = inside.sample(key_theta)
        return posterior.log_prob(theta, simulator(key_x, theta))

    loss = -jax.jit(jax.vmap(one))(keys)
    # Four standard errors, sqrt(d / 2) / sqrt(4000) = 0.016 each, and the cost of learning.
    assert np.mean(loss) == pytest.approx(ENTROPY, abs=0.064 + 0.05)
