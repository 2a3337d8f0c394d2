"""Modes and the Laplace approximation on densities whose modes are known."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.samplers import laplace, modes

# Symmetric positive definite, with axes that differ by a factor of 30.
COVARIANCE = jnp.array([[0.5, 0.28, 0.0], [0.28, 0.2, 0.0], [0.0, 0.0, 0.01]])
CENTRE = jnp.array([0.5, -1.0, 0.3])


@jax.jit
def search(key, centres, covariance, log_weights, edge):
    """Search a mixture of Gaussians in three dimensions that is zero where z_0 <= edge."""
    precision = jnp.linalg.inv(covariance)

    def log_density(z):
        away = z[None] - centres
        value = -0.5 * jnp.einsum("ij,jk,ik->i", away, precision, away) + log_weights
        return jnp.where(z[0] > edge, jax.scipy.special.logsumexp(value), -jnp.inf)

    found = modes(key, log_density, 3, starts=32)
    return found, jax.vmap(lambda z: laplace(log_density, z))(found.points)


def two(offset, weight=0.3):
    centres = jnp.stack([CENTRE, CENTRE + jnp.array(offset)])
    return centres, jnp.log(jnp.array([1 - weight, weight]))


def test_one_mode_is_found_by_all_starts(key):
    centres, _ = two([0.0, 0.0, 0.0])
    found, near = search(key, centres, COVARIANCE, jnp.log(jnp.array([0.5, 0.5])), -jnp.inf)
    assert found.points.shape == (32, 3)
    assert bool(jnp.all(found.converged))
    assert int(jnp.sum(found.distinct)) == 1
    assert bool(jnp.all(found.mode == 0))
    # A Newton step is shorter than a twentieth of a standard deviation.
    std = jnp.sqrt(jnp.diagonal(COVARIANCE))
    np.testing.assert_array_less(jnp.abs(found.points - CENTRE[None]) / std[None], 0.05)
    np.testing.assert_allclose(near.covariance[0], COVARIANCE, rtol=2e-3, atol=1e-5)
    exact = 1.5 * math.log(2 * math.pi) + 0.5 * float(jnp.linalg.slogdet(COVARIANCE)[1])
    assert float(near.log_evidence[0]) == pytest.approx(exact, abs=2e-3)


def test_two_modes_are_told_apart_and_sorted(key):
    centres, log_weights = two([0.0, 0.0, -1.0])
    found, near = search(key, centres, COVARIANCE, log_weights, -jnp.inf)
    assert bool(jnp.all(jnp.diff(found.log_density) <= 0.0))
    assert bool(jnp.all(found.converged))
    assert int(jnp.sum(found.distinct)) == 2
    np.testing.assert_allclose(found.points[found.distinct], centres, atol=0.02)
    # Of modes ten standard deviations apart the approximation gives the weights.
    share = jax.nn.softmax(near.log_evidence[found.distinct])
    np.testing.assert_allclose(share, [0.7, 0.3], atol=5e-3)


def test_regions_of_no_density_are_left(key):
    centres, log_weights = two([0.0, 0.0, 0.0])
    found, _ = search(key, centres, COVARIANCE, log_weights, 0.0)
    # Half of the starts are draws of the prior, and half of those lie where there is nothing.
    assert bool(found.converged[0])
    assert int(jnp.sum(found.converged)) >= 16
    assert int(jnp.sum(found.distinct & found.converged)) == 1
    assert not bool(jnp.any(found.converged & ~jnp.isfinite(found.log_density)))


def test_no_density_at_all_has_no_mode(key):
    centres, log_weights = two([0.0, 0.0, 0.0])
    found, _ = search(key, centres, COVARIANCE, log_weights, jnp.inf)
    assert not bool(jnp.any(found.converged))
    assert bool(jnp.all(jnp.isneginf(found.log_density)))
    with pytest.warns(UserWarning, match="modes: the search .* Raise steps"):
        found.warn()


def test_a_saddle_has_no_laplace_approximation():
    near = laplace(lambda z: z[0] ** 2 - z[1] ** 2, jnp.zeros(2))
    assert bool(jnp.isnan(near.log_evidence))


@pytest.mark.parametrize("options", [{"starts": 1}, {"steps": 0}, {"tolerance": 0.0}])
def test_bad_arguments(key, options):
    with pytest.raises(ValueError, match="modes: expected starts >= 2"):
        modes(key, lambda z: -z @ z, 2, **options)


def test_a_density_in_float32_will_do_where_doubles_are_on(x64):
    def log_density(z):
        return -0.5 * jnp.sum((z.astype(jnp.float32) - 1.0) ** 2)

    found = modes(jax.random.key(0), log_density, 2, starts=8)
    np.testing.assert_allclose(found.points[0], [1.0, 1.0], atol=1e-3)
