"""NUTS on known densities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.samplers import nuts

COVARIANCE = jnp.array([[1.0, 0.6], [0.6, 0.5]])
PRECISION = jnp.linalg.inv(COVARIANCE)


def gaussian(z):
    return -0.5 * z @ PRECISION @ z


@pytest.mark.rank_promotion  # inside NumPyro's kernel
def test_gaussian_moments_and_report() -> None:
    draws, info = jax.jit(lambda k: nuts(chains=20)(k, gaussian, 2, 4000))(jax.random.key(0))
    assert draws.shape == (4000, 2)
    # ESS is above 1,000, so a mean is known to 0.03 and a variance to 5 %.
    assert float(jnp.min(info.ess_bulk)) > 1000
    assert float(jnp.max(info.r_hat)) < 1.05
    assert int(info.divergences) == 0
    assert 0.6 < float(info.acceptance) <= 1.0
    np.testing.assert_allclose(np.mean(draws, 0), 0.0, atol=0.12)
    np.testing.assert_allclose(np.cov(draws.T), COVARIANCE, atol=0.15)
    np.testing.assert_allclose(info.log_density, jax.vmap(gaussian)(draws), atol=1e-4)


@pytest.mark.rank_promotion
def test_separated_modes_keep_their_weights_and_read_as_stuck() -> None:
    def two_modes(z):
        sharp = jax.scipy.stats.norm.logpdf(z[0], jnp.array([-1.5, 1.5]), 0.05)
        return jax.scipy.special.logsumexp(sharp + jnp.log(jnp.array([0.3, 0.7])))

    draws, info = jax.jit(lambda k: nuts(chains=100)(k, two_modes, 1, 2000))(jax.random.key(1))
    # 100 systematically resampled starts from 4,096 candidates: about 100 land in either mode,
    # so a weight is known to about 0.05.
    assert float(jnp.mean(draws[:, 0] > 0)) == pytest.approx(0.7, abs=0.15)
    assert float(info.r_hat[0]) > 1.1
    with pytest.warns(UserWarning, match="R-hat"):
        info.warn()


@pytest.mark.rank_promotion
def test_a_key_of_another_kind_will_do() -> None:
    # NumPyro takes a raw key for one of JAX's default kind.
    key = jax.random.key(2, impl="rbg")
    draws, info = jax.jit(lambda k: nuts(chains=20)(k, gaussian, 2, 2000))(key)
    assert float(jnp.max(info.r_hat)) < 1.05
    # ESS is above 500: a mean is known to 0.045, a variance to 6 %.
    assert float(jnp.min(info.ess_bulk)) > 500
    np.testing.assert_allclose(np.mean(draws, 0), 0.0, atol=0.18)
    np.testing.assert_allclose(np.cov(draws.T), COVARIANCE, atol=0.2)


@pytest.mark.parametrize("options", [{"chains": 1}, {"warmup": 3}])
def test_bad_configuration(options) -> None:
    with pytest.raises(ValueError, match="expected chains >= 2 and warmup >= 20"):
        nuts(**options)
