"""Simulation-based calibration on posteriors that are exact, and that are not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import kstest

import jaxsbi
from jaxsbi.base import configuration

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))


def simulator(key, theta):
    return theta["theta"] + jax.random.normal(key)


@configuration
class Conjugate:
    """The exact posterior N(x/2, 1/2), widened and shifted."""

    width: float = 1.0
    bias: float = 0.0

    def init(self, key, prior, simulations):
        return {"params": {}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return jnp.zeros_like(batch.weight)

    def sample(self, variables, prior, key, x, n):
        sd = jnp.sqrt(0.5)
        draws = x / 2 + sd * (self.bias + self.width * jax.random.normal(key, (n,)))
        return {"theta": draws}, None

    def log_prob(self, variables, prior, theta, x):
        raise NotImplementedError("Conjugate has no density here; draw from it.")


def posterior(**options) -> jaxsbi.Posterior:
    data = jaxsbi.base.DataSpec.of(jnp.array(0.0))
    return jaxsbi.Posterior({}, PRIOR, Conjugate(**options), data)


def calibrate(**options):
    return jaxsbi.diagnostics.sbc(
        jax.random.key(0), posterior(**options), PRIOR, simulator, num_datasets=1000, num_draws=99
    )


def test_exact_posterior_is_uniform() -> None:
    result = calibrate()
    ranks = np.asarray(result.ranks["theta"])
    assert ranks.min() >= 0
    assert ranks.max() <= 99
    assert ranks.mean() == pytest.approx(49.5, abs=3 * 28.9 / np.sqrt(1000))
    assert float(result.p_value["theta"]) > 0.01


@pytest.mark.parametrize("options", [{"width": 0.6}, {"width": 1.6}, {"bias": 0.5}])
def test_wrong_posteriors_are_seen(options) -> None:
    assert float(calibrate(**options).p_value["theta"]) < 1e-3


def test_a_road_without_a_density_says_so() -> None:
    with pytest.raises(NotImplementedError, match="no density"):
        posterior().log_prob({"theta": jnp.array(0.0)}, jnp.array(0.0))


def test_every_number_of_a_parameter_has_its_rank() -> None:
    prior = jaxsbi.Prior(theta=dist.Normal(jnp.zeros((2, 3)), 1.0), other=dist.Normal(0.0, 1.0))
    data = jaxsbi.base.DataSpec.of(jnp.array(0.0))
    posterior = jaxsbi.Posterior({}, prior, FromPrior(), data)

    def ignored(key, theta):
        return jnp.zeros(())

    result = jaxsbi.diagnostics.sbc(
        jax.random.key(2), posterior, prior, ignored, num_datasets=200, num_draws=30
    )
    assert {k: v.shape for k, v in result.ranks.items()} == {"theta": (200, 2, 3), "other": (200,)}
    assert {k: v.shape for k, v in result.p_value.items()} == {"theta": (2, 3), "other": ()}
    # A posterior that ignores the data is the prior, and calibrated; seven tests at 1e-3.
    assert min(np.min(p) for p in result.p_value.values()) > 1e-3
    # The same numbers as SciPy's, up to the continuity correction of 31 ranks.
    ranks = (np.asarray(result.ranks["other"]) + 0.5) / 31
    expected = kstest(ranks, "uniform").pvalue
    assert float(result.p_value["other"]) == pytest.approx(expected, abs=0.03)


@configuration
class FromPrior(Conjugate):
    """A posterior that ignores the data."""

    def sample(self, variables, prior, key, x, n):
        return jax.vmap(prior.sample)(jax.random.split(key, n)), None


def test_a_legacy_key_is_refused() -> None:
    with pytest.raises(TypeError, match=r"jax.random.key\(seed\)"):
        jaxsbi.diagnostics.sbc(jax.random.PRNGKey(0), posterior(), PRIOR, simulator)
