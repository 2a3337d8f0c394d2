"""The linear part of a posterior: exact where the problem is linear, absent elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.methods import regression
from jaxsbi.methods.regression import colour, fit_linear, whiten

N, SLOPES = 4_000, np.array([[0.6, 0.0, -0.3], [0.2, 0.5, 0.0]])
FACTOR = np.array([[0.5, 0.0], [0.2, 0.1]])


def linear_problem(features: int = 3):
    x = jax.random.normal(jax.random.key(0), (N, features))
    noise = jax.random.normal(jax.random.key(1), (N, 2))
    return x, 0.3 + x[:, :3] @ SLOPES.T + noise @ FACTOR.T


def test_a_linear_gaussian_problem_is_solved():
    x, z = linear_problem()
    found = jax.jit(fit_linear)(x, z)
    # A coefficient's standard error is noise / sqrt(N), at most 0.008; five of them.
    np.testing.assert_allclose(found["slopes"], SLOPES, atol=0.04)
    np.testing.assert_allclose(found["offset"], 0.3, atol=0.04)
    np.testing.assert_allclose(found["factor"], FACTOR, atol=0.03)


def test_noise_has_no_slopes():
    x = jax.random.normal(jax.random.key(2), (300, 100))
    z = jax.random.normal(jax.random.key(3), (300, 2))
    found = jax.jit(fit_linear)(x, z)
    # Least squares would explain a third of the variance (100 of 300): the penalty must not.
    predicted = x @ found["slopes"].T
    assert float(jnp.var(predicted)) < 0.05


@pytest.mark.parametrize("seed", range(20))
def test_hardly_more_rows_than_numbers_do_not_promise_a_precise_answer(seed):
    keys = jax.random.split(jax.random.key(seed), 4)

    def rows(key_z, key_x, n):
        z = jax.random.normal(key_z, (n, 2))
        return z[:, :1] + jnp.exp(0.5 * z[:, 1:]) * jax.random.normal(key_x, (n, 50)), z

    found = jax.jit(fit_linear)(*rows(*keys[:2], 60))
    x, z = rows(*keys[2:], 1000)
    u, _ = jax.vmap(whiten, (None, 0, 0))(found, z, x)
    # Of unit variance if the width is right; unpenalised slopes leave widths of almost nothing.
    assert float(jnp.mean(u**2)) < 3.0


def test_data_that_determine_a_parameter_leave_it_a_width():
    x = jax.random.normal(jax.random.key(4), (200, 1))
    found = jax.jit(fit_linear)(x, jnp.concatenate([x, -2.0 * x], 1))
    assert np.all(np.diagonal(found["factor"]) > 5e-4)
    assert all(np.all(np.isfinite(a)) for a in found.values())


def test_too_many_numbers_are_left_to_the_network(monkeypatch):
    monkeypatch.setattr(regression, "MAX_FEATURES", 2)
    x, z = linear_problem()
    found = fit_linear(x, z)
    assert not np.any(found["slopes"])
    np.testing.assert_array_equal(found["factor"], np.eye(2))


def test_a_posterior_whose_width_depends_on_the_data_is_left_to_the_network():
    x, _ = linear_problem()
    noise = jax.random.normal(jax.random.key(5), (N, 2))
    found = jax.jit(fit_linear)(x, x[:, :2] + jnp.exp(x[:, 2:]) * noise)
    assert not np.any(found["slopes"])
    assert not np.any(found["offset"])
    np.testing.assert_array_equal(found["factor"], np.eye(2))


@pytest.mark.parametrize("far", [1.0, 100.0])
def test_whiten_and_colour_are_inverse(far, x64):
    found = {"offset": jnp.ones(2), "slopes": jnp.asarray(SLOPES), "factor": jnp.asarray(FACTOR)}
    found["inverse"] = jnp.linalg.inv(found["factor"])
    x, z = far * jnp.arange(3.0), jnp.array([0.4, -2.0])
    u, log_det = whiten(found, z, x)
    back, again = colour(found, u, x)
    np.testing.assert_allclose(back, z, atol=1e-12)
    jacobian = jax.jacfwd(lambda z: whiten(found, z, x)[0])(z)
    np.testing.assert_allclose([log_det, again], np.linalg.slogdet(jacobian)[1], atol=1e-12)
