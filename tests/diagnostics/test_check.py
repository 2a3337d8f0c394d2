"""The default report: a good posterior passes, and each kind of failure is named."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import diagnostics
from jaxsbi.base import DataSpec, configuration

# theta ~ N(0, 1), x | theta ~ N(theta, 0.5²): the posterior is N(0.8 x, 0.2).
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
SIZES = {"num_datasets": 500, "num_draws": 100}


def simulator(key, theta):
    return {"y": theta["theta"][None] + 0.5 * jax.random.normal(key, (1,))}


@configuration
class Conjugate:
    """The exact posterior, but for a factor of its width, and a shift for some data."""

    factor: float = 1.0
    shift: float = 0.0
    above: float = -100.0

    def init(self, key, prior, simulations):
        raise NotImplementedError

    def loss(self, variables, prior, key, batch):
        raise NotImplementedError

    def sample(self, variables, prior, key, x, n):
        noise = jax.random.normal(key, (n,))
        return {"theta": self.mean(x) + self.factor * 0.2**0.5 * noise}, ()

    def mean(self, x):
        return 0.8 * x["y"][0] + jnp.where(x["y"][0] > self.above, self.shift, 0.0)

    def log_prob(self, variables, prior, theta, x):
        width = self.factor * 0.2**0.5
        return jax.scipy.stats.norm.logpdf(theta["theta"], self.mean(x), width)


def posterior(factor=1.0):
    data = DataSpec.of({"y": jnp.zeros(1)})
    return jaxsbi.Posterior({}, PRIOR, Conjugate(factor=factor), data)


def test_a_right_posterior_passes_and_its_contraction_is_the_exact_one():
    x = {"y": jnp.array([0.4])}
    report = jaxsbi.check(jax.random.key(0), posterior(), PRIOR, simulator, x, **SIZES)
    assert report.passed
    # 1 - 0.2; the prior's variance is that of 200 truths: 10 % of 0.2 off, and more by chance.
    assert report.contraction[0] == pytest.approx(0.8, abs=0.06)
    text = str(report)
    assert "No test failed" in text
    assert "among posterior simulations: passes" in text
    assert "local C2ST: passes" in text
    assert report.misspecification.p_value > 0.01
    order = ["on average", "could the simulator", "right here", "No test"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert len(report.figure().axes) == 4


def test_a_narrow_posterior_and_an_impossible_observation_fail():
    x = {"y": jnp.array([9.0])}
    narrow = posterior(0.7)
    report = jaxsbi.check(jax.random.key(1), narrow, PRIOR, simulator, x, **SIZES)
    assert not report.passed
    assert "density: FAILS" in str(report)
    assert "SOMETHING FAILED" in str(report)
    assert not report.misspecification.passed
    assert report.prior_predictive.outside == 1
    assert "x['y'][0] lies in the outermost 0.002" in report.prior_predictive.verdict


def test_a_posterior_that_is_wrong_at_the_observation_only_fails_there():
    # Right on average over the prior as far as calibration tells, but shifted for x > 1.5.
    x = {"y": jnp.array([2.0])}
    method = Conjugate(shift=0.7, above=1.5)
    posterior = jaxsbi.Posterior({}, PRIOR, method, DataSpec.of({"y": jnp.zeros(1)}))
    report = jaxsbi.check(jax.random.key(5), posterior, PRIOR, simulator, x, **SIZES)
    assert report.misspecification.passed
    assert not report.local.passed
    assert "local C2ST: FAILS" in str(report)


def test_without_an_observation_only_the_average_is_checked():
    report = jaxsbi.check(jax.random.key(2), posterior(), PRIOR, simulator, **SIZES)
    assert report.prior_predictive is None
    assert "This observation" not in str(report)


def test_p_values_of_predictions_are_two_sided_and_count_ties():
    module = importlib.import_module("jaxsbi.diagnostics.predictive")
    rows = {"a": np.arange(99.0), "b": np.zeros((99, 2))}
    found = module._place(rows, {"a": 97.0, "b": np.zeros(2)})
    assert found.names == ("x['a']", "x['b'][0]", "x['b'][1]")
    # Two of 99 at or above: (2 + 1) / 100, twice. What never changes is no surprise.
    np.testing.assert_allclose(found.p_value, [0.06, 1.0, 1.0])
    assert found.smallest == pytest.approx(0.18)
    with pytest.raises(ValueError, match="expected 3 numbers"):
        module._place(rows, {"a": 1.0})


def test_z_scores_are_standard_normal_for_a_right_posterior():
    contraction, z = diagnostics.contraction(
        jax.random.key(3), posterior(), PRIOR, simulator, num_datasets=1000, num_draws=400
    )
    assert contraction.shape == z.shape == (1000, 1)
    assert abs(z.mean()) < 4 / 1000**0.5
    assert z.std() == pytest.approx(1.0, abs=4 / 2000**0.5 + 0.005)


def test_the_log_predictive_density_is_the_exact_one():
    # A posterior N(0.32, 0.2) predicts N(0.32, 0.2 + 0.25).
    def log_likelihood(theta, x):
        return jax.scipy.stats.norm.logpdf(x["y"][0], theta["theta"], 0.5)

    x, new = {"y": jnp.array([0.4])}, {"y": jnp.array([1.0])}
    found = diagnostics.log_predictive(
        jax.random.key(0), posterior(), log_likelihood, x, new, n=4000
    )
    exact = jax.scipy.stats.norm.logpdf(1.0, 0.32, 0.45**0.5)
    assert found.error < 0.02
    assert abs(found.value - float(exact)) < 4 * found.error
    with pytest.raises(ValueError, match="NaN for 1000 of 1000"):
        diagnostics.log_predictive(jax.random.key(0), posterior(), lambda theta, x: jnp.nan, x, new)
