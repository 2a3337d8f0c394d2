"""Distances against their definitions, and the scales estimated for them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import abc


def test_euclidean_is_weighted_over_the_pytree():
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3, jnp.int32)}
    y = {"a": jnp.array([0.0, 2.0]), "b": jnp.array(1, jnp.int32)}
    assert float(abc.Euclidean()(x, y)) == pytest.approx(np.sqrt(5.0))
    weighted = abc.Euclidean(scale=jnp.array([0.5, 1.0, 4.0]))
    assert float(weighted(x, y)) == pytest.approx(np.sqrt(4.0 + 0.25))


def test_scales_are_robust():
    """The standard error of a normal's deviation by the median is 1.17 / sqrt(n) of itself."""
    n = 10_000
    x = jax.random.normal(jax.random.key(0), (n, 2)) * jnp.array([[1.0, 10.0]])
    wild = x.at[:100].set(1e6).at[100:110].set(jnp.nan)
    scale = abc.scaled_euclidean(wild).scale
    # One value in a hundred far away moves the median by 0.0126 deviations of the absolute values.
    np.testing.assert_allclose(scale, [1.0, 10.0], rtol=4 * 1.17 / np.sqrt(n) + 0.025)


def test_numbers_that_hardly_or_never_change_have_a_scale():
    x = jnp.zeros((100, 2)).at[:4, 0].set(1.0)
    scale = abc.scaled_euclidean(x).scale
    np.testing.assert_allclose(scale, [np.sqrt(0.04 * 0.96), 1.0], rtol=1e-5)


def test_mahalanobis_is_that_of_the_covariance():
    factor = jnp.array([[1.0, 0.0], [90.0, 50.0]])
    x = jax.random.normal(jax.random.key(0), (500, 2)) @ factor.T
    covariance = np.cov(np.asarray(x, np.float64).T, ddof=0)
    a, b = np.array([1.0, 2.0]), np.array([-1.0, 80.0])
    expected = np.sqrt((a - b) @ np.linalg.solve(covariance, a - b))
    known = x.at[3].set(jnp.inf)
    far = float(abc.mahalanobis(x)(jnp.asarray(a), jnp.asarray(b)))
    assert far == pytest.approx(expected, rel=1e-3)
    assert bool(jnp.all(jnp.isfinite(abc.mahalanobis(known).whiten)))


def test_energy_and_discrepancy_of_sets_against_all_pairs():
    key_a, key_b = jax.random.split(jax.random.key(0))
    a = jax.random.normal(key_a, (7, 2))
    b = jax.random.normal(key_b, (9, 2)) + 1.0
    scale = jnp.array([1.0, 2.0])

    def pairs(function, x, y):
        difference = (np.asarray(x)[:, None] - np.asarray(y)[None]) / np.asarray(scale)
        return function(np.sum(difference**2, -1)).mean()

    ab, aa, bb = (pairs(np.sqrt, *s) for s in ((a, b), (a, a), (b, b)))
    energy = abc.Energy(scale=scale)
    assert float(energy(a, b)) == pytest.approx(np.sqrt(2 * ab - aa - bb), rel=1e-4)
    ab, aa, bb = (pairs(lambda d: np.exp(-0.5 * d), *s) for s in ((a, b), (a, a), (b, b)))
    discrepancy = abc.MaximumMeanDiscrepancy(scale=scale)
    assert float(discrepancy(a, b)) == pytest.approx(np.sqrt(aa + bb - 2 * ab), rel=1e-4)
    for distance in (energy, discrepancy):
        assert float(distance(a, a[::-1])) < 1e-3  # the order of the members says nothing


def spread(key, theta):
    """Twenty draws whose width is the parameter: their mean says nothing of it."""
    return theta["width"] * jax.random.normal(key, (20, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"distance": abc.Energy()},
        {"distance": abc.MaximumMeanDiscrepancy(scale=1.0)},
        {"summary": lambda x: jnp.std(x)},
        {"summary": lambda x: {"spread": jnp.log(jnp.std(x))}, "distance": abc.Euclidean()},
        {"distance": lambda x, y: jnp.abs(jnp.std(x) - jnp.std(y))},
    ],
    ids=["energy", "discrepancy", "summary", "pytree summary", "function"],
)
def test_the_width_of_a_set_is_found(options):
    prior = jaxsbi.Prior(width=dist.Uniform(0.1, 4.0))
    x = jnp.linspace(-1.7, 1.7, 20)[:, None]
    draws, info = abc.rejection(
        jax.random.key(0), prior, spread, x, num_simulations=4_000, keep=100, **options
    )
    expected = float(jnp.std(x))
    # A width is known from 20 draws to 1/sqrt(40) = 16 %; the mean of 100 of them to a tenth of
    # that, beside the posterior's skewness, (1 + 3/40), and the kernel's width.
    assert float(jnp.mean(draws["width"])) == pytest.approx(expected, rel=0.16)
    assert float(jnp.std(draws["width"])) < 0.5
    assert info.x.shape == (100, 20, 1)
