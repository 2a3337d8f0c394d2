"""Fisher forecasts against closed forms."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.diagnostics import fisher_information, gaussian_fisher

# x ~ N(a + b t, sigma²), a line: the errors of least squares.
T = jnp.linspace(0.0, 3.0, 20)
SIGMA = 0.3
LINE = {"b": jnp.array(2.0), "a": jnp.array(-1.0)}


def line(theta):
    return theta["a"] + theta["b"] * T


def log_likelihood(theta, x):
    return jnp.sum(jax.scipy.stats.norm.logpdf(x, line(theta), SIGMA))


def exact():
    design = np.stack([np.ones(20), np.asarray(T)], 1)
    return design.T @ design / SIGMA**2


def data(n, key, theta=LINE):
    return line(theta)[None] + SIGMA * jax.random.normal(key, (n, 20))


def test_a_line_has_the_errors_of_least_squares():
    fisher = gaussian_fisher(line, SIGMA**2 * jnp.ones(20), LINE)
    assert fisher.names == ("a", "b")  # in JAX's order, whatever the dict's
    np.testing.assert_allclose(fisher.matrix, exact(), rtol=1e-5)
    inverse = np.linalg.inv(exact())
    np.testing.assert_allclose(fisher.covariance, inverse, rtol=1e-4)
    np.testing.assert_allclose(fisher.standard_errors["b"], inverse[1, 1] ** 0.5, rtol=1e-5)
    np.testing.assert_allclose(fisher.conditional_errors["a"], exact()[0, 0] ** -0.5, rtol=1e-5)
    assert fisher.conditional_errors["a"] < fisher.standard_errors["a"]


def test_correlated_noise():
    covariance = 0.1 * jnp.exp(-jnp.abs(T[:, None] - T[None])) + 0.01 * jnp.eye(20)
    fisher = gaussian_fisher(line, covariance, LINE)
    design = np.stack([np.ones(20), np.asarray(T)], 1)
    exact = design.T @ np.linalg.solve(np.asarray(covariance), design)
    np.testing.assert_allclose(fisher.matrix, exact, rtol=1e-4)


def test_the_blob():
    # 32 × 32 pixels on [-1, 1]², width 0.15, noise 0.45. In the continuum the information on a
    # coordinate is (pi / 2) / pixel area / noise², whatever the width.
    grid = jnp.linspace(-1.0, 1.0, 32)

    def blob(theta):
        square = (grid[:, None] - theta["centre"][0]) ** 2 + (grid[None] - theta["centre"][1]) ** 2
        return jnp.exp(-0.5 * square / 0.15**2)

    fisher = gaussian_fisher(blob, 0.45**2 * jnp.ones(32 * 32), {"centre": jnp.array([0.2, -0.1])})
    assert fisher.names == ("centre[0]", "centre[1]")
    # Pixels are 2 / 31 apart, from edge to edge.
    sigma = 0.45 * (2 / 31) / (np.pi / 2) ** 0.5
    np.testing.assert_allclose(fisher.standard_errors["centre"], 2 * [sigma], rtol=1e-3)
    assert sigma == pytest.approx(0.023, abs=5e-4)
    np.testing.assert_allclose(fisher.matrix[0, 1], 0.0, atol=1e-3 * fisher.matrix[0, 0])


def test_scores_of_simulated_data_give_the_same(key):
    n = 20_000
    fisher = fisher_information(log_likelihood, LINE, data(n, key))
    # An element F_ij of n outer products of Gaussian scores scatters by
    # sqrt((F_ii F_jj + F_ij²) / n).
    f = exact()
    error = np.sqrt((np.outer(np.diag(f), np.diag(f)) + f**2) / n)
    assert np.all(np.abs(np.asarray(fisher.matrix) - f) < 4 * error)
    np.testing.assert_allclose(
        fisher.standard_errors["b"], np.linalg.inv(f)[1, 1] ** 0.5, rtol=4 * (0.5 / n) ** 0.5
    )


def test_a_scale_that_only_the_likelihood_knows(key):
    # x ~ N(0, s²): the information on s is 2 / s² a number; the mean does not depend on it.
    def log_likelihood(theta, x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, 0.0, theta["s"]))

    x = 0.7 * jax.random.normal(key, (20_000, 5))
    fisher = fisher_information(log_likelihood, {"s": 0.7}, x)
    # The score is (5 / s)(mean u² - 1): of kurtosis 3 + 12 / 5, so a scatter of sqrt(4.4 / n).
    assert float(fisher.matrix[0, 0]) == pytest.approx(10 / 0.49, rel=4 * (4.4 / 20_000) ** 0.5)


def test_many_forecasts_are_one_program():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def errors(theta):
        curved = lambda theta: theta["a"] * jnp.exp(-theta["b"] * T)  # noqa: E731
        return gaussian_fisher(curved, jnp.ones(20), theta)

    theta = {"a": jnp.linspace(1.0, 2.0, 4), "b": jnp.linspace(0.1, 0.4, 4)}
    many = jax.vmap(errors)(theta)
    assert many.matrix.shape == (4, 2, 2)
    one = errors(jax.tree.map(lambda a: a[2], theta))
    np.testing.assert_allclose(many.standard_errors["b"][2], one.standard_errors["b"], rtol=1e-4)


def test_what_is_not_constrained_is_named():
    # Only a + b and c: along (1, -1) nothing changes.
    def sums(theta):
        return jnp.stack([theta["a"] + theta["b"], theta["a"] + theta["b"] + theta["c"]])

    theta = {"a": 1.0, "b": 2.0, "c": 3.0}
    fisher = gaussian_fisher(sums, jnp.ones(2), theta)
    with pytest.raises(ValueError, match=r"direction \(([+-])1 a (?!\1)[+-]1 b\)"):
        _ = fisher.standard_errors
    assert np.isfinite(fisher.conditional_errors["a"])
    with pytest.raises(ValueError, match=r"no information on \['c'\]"):
        _ = gaussian_fisher(lambda t: sums({**t, "c": 0.0})[:1], jnp.ones(1), theta).covariance


def test_errors_say_how_to_mend_them(key):
    key_some, key_more = jax.random.split(key)
    with pytest.raises(TypeError, match="expected a dict of named arrays"):
        gaussian_fisher(line, jnp.ones(20), jnp.ones(2))
    with pytest.raises(ValueError, match=r"expected shape \(20, 20\) or \(20,\).*got \(1024,\)"):
        gaussian_fisher(line, jnp.ones(1024), LINE)
    with pytest.raises(ValueError, match="expected positive variances, got 0"):
        gaussian_fisher(line, jnp.zeros(20), LINE)
    with pytest.raises(ValueError, match=r"got 1 NaN or infinite numbers of 20"):
        gaussian_fisher(lambda t: jnp.sqrt(t["a"] * T), jnp.ones(20), {"a": 1.0})
    with pytest.raises(ValueError, match="expected at least 3 data sets for 2 numbers"):
        fisher_information(log_likelihood, LINE, data(2, key_some))
    with pytest.raises(ValueError, match="NaN or infinity for 50 of 50"):
        fisher_information(lambda t, x: jnp.log(t["a"] + 0 * x[0]), {"a": 0.0}, jnp.ones((50, 1)))
    x = data(100, key_more)
    with pytest.warns(UserWarning, match="x was not drawn from this likelihood at this theta"):
        fisher_information(log_likelihood, {"a": -1.0, "b": 2.5}, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fisher_information(log_likelihood, LINE, x)
