"""Noise models against SciPy, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxsbi import noise

COVARIANCE = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 1.0]])
RESIDUAL = jnp.array([0.5, -1.0, 2.0])
SCALE = jnp.array([1.0, 3.0, 0.5])


def test_known_covariance_gives_the_normal_density():
    model = noise.gaussian(COVARIANCE)
    expected = scipy.stats.multivariate_normal(cov=COVARIANCE).logpdf(RESIDUAL)
    np.testing.assert_allclose(model.log_prob(model.init(SCALE), RESIDUAL, SCALE), expected, 1e-5)


def test_variances_are_a_diagonal_covariance():
    model = noise.gaussian([2.0, 0.5, 1.0])
    expected = scipy.stats.norm(scale=np.sqrt([2.0, 0.5, 1.0])).logpdf(RESIDUAL).sum()
    np.testing.assert_allclose(model.log_prob({}, RESIDUAL, SCALE), expected, rtol=1e-5)


def test_known_noise_has_nothing_to_train_and_keeps_its_covariance_as_a_leaf():
    model = noise.gaussian(COVARIANCE)
    assert model.init(SCALE) == {}
    (cholesky,) = jax.tree.leaves(model)
    np.testing.assert_allclose(cholesky @ cholesky.T, COVARIANCE, atol=1e-6)
    other = noise.gaussian(2 * COVARIANCE)
    assert jax.tree.structure(model) == jax.tree.structure(other)


def test_it_can_be_made_inside_jit():
    @jax.jit
    def log_prob(covariance):
        return noise.gaussian(covariance).log_prob({}, RESIDUAL, SCALE)

    expected = scipy.stats.multivariate_normal(cov=COVARIANCE).logpdf(RESIDUAL)
    np.testing.assert_allclose(log_prob(COVARIANCE), expected, rtol=1e-5)


def test_estimated_noise_starts_at_the_datas_own_scatter():
    model = noise.estimated()
    expected = scipy.stats.norm(scale=SCALE).logpdf(RESIDUAL).sum()
    np.testing.assert_allclose(model.log_prob(model.init(SCALE), RESIDUAL, SCALE), expected, 1e-5)


def test_estimated_noise_is_a_normal_density_for_any_parameters(x64):
    model = noise.estimated()
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: jnp.asarray(generator.normal(size=a.shape)) / noise.NOISE_GAIN,
        model.init(SCALE.astype(float)),
    )

    def log_prob(residual):
        return model.log_prob(params, residual, SCALE.astype(float))

    # A normal density is given by its curvature: -log p = r' P r / 2 + log normalisation.
    precision = -jax.hessian(log_prob)(jnp.zeros(3))
    expected = scipy.stats.multivariate_normal(cov=np.linalg.inv(precision)).logpdf(RESIDUAL)
    np.testing.assert_allclose(log_prob(RESIDUAL), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e3])
def test_estimated_noise_stays_finite(scale):
    model = noise.estimated()
    params = jax.tree.map(lambda a: a + scale, model.init(SCALE))
    value, gradient = jax.value_and_grad(model.log_prob)(params, 0.0 * RESIDUAL, SCALE)
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves((value, gradient)))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones((2, 3)), r"expected shape \(d, d\) or \(d,\), got \(2, 3\)"),
        (1.0, r"expected shape \(d, d\) or \(d,\), got \(\)"),
        ([[1.0, 0.5], [0.0, 1.0]], "expected a symmetric covariance"),
        ([[1.0, 2.0], [2.0, 1.0]], r"positive definite.*smallest eigenvalue is -1.*diagonal"),
        ([1.0, -1.0], "positive definite"),
        ([1.0, np.nan], "expected finite numbers"),
    ],
)
def test_what_is_no_covariance(covariance, message):
    with pytest.raises(ValueError, match=rf"noise.gaussian: .*{message}"):
        noise.gaussian(covariance)


def test_a_covariance_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"covariance of shape \(3, 3\) .*3 numbers, got \(2, 2\)"):
        noise.gaussian(np.eye(2)).init(SCALE)
