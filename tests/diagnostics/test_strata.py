"""A bias that depends on the data: unseen over all data sets, seen among those that are alike."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import diagnostics
from jaxsbi.base import DataSpec, configuration

# A flat prior for all that matters: the posterior of x ~ N(theta, sigma²) is N(x, sigma²).
SIGMA = 0.1
WIDE = jaxsbi.Prior(theta=dist.Normal(0.0, 100.0))
PARAMETERS = (diagnostics.Parameters(), diagnostics.Density())


@configuration
class Signed:
    """The exact posterior, shifted by `bias` times the sign of x."""

    bias: float = 0.0

    def init(self, key, prior, simulations):
        raise NotImplementedError

    def loss(self, variables, prior, key, batch):
        raise NotImplementedError

    def sample(self, variables, prior, key, x, n):
        mean = x[0] + self.bias * jnp.sign(x[0])
        return {"theta": mean + SIGMA * jax.random.normal(key, (n,))}, ()

    def log_prob(self, variables, prior, theta, x):
        mean = x[0] + self.bias * jnp.sign(x[0])
        return jax.scipy.stats.norm.logpdf(theta["theta"], mean, SIGMA)


def simulator(key, theta):
    return theta["theta"][None] + SIGMA * jax.random.normal(key, (1,))


def first(x):
    return x[0]


def positive(x):
    return x[0] > 0


def run(bias=0.0, seed=0, n=2000, **options):
    method = jaxsbi.Posterior({}, WIDE, Signed(bias=bias), DataSpec.of(jnp.zeros(1)))
    options = {"orderings": PARAMETERS, "num_datasets": n, "num_draws": 50, **options}
    return diagnostics.calibration(jax.random.key(seed), method, WIDE, simulator, **options)


def test_a_bias_with_the_sign_of_x_is_seen_in_strata_only():
    report = run(0.3 * SIGMA, stratum=first)
    assert report["parameters"].corrected.min() > 0.01
    strata = diagnostics.stratified(report, bins=4)
    assert not strata.passed
    for number, (name, each) in enumerate(strata.reports.items()):
        assert len(each["parameters"].ranks) == 500
        assert each["parameters"].corrected.min() < 1e-3
        # The truth lies a bias below the draws' mean where x > 0: Φ(-0.3 / √2) = 0.416.
        mean = 0.584 if number < 2 else 0.416
        assert each["parameters"].ranks.mean() == pytest.approx(mean, abs=4 * 0.289 / 500**0.5)
        assert name.startswith(f"{number + 1}: ")
    assert "parameters: FAILS" in str(strata)
    assert "what cancels within a stratum" in str(strata)


def test_the_exact_posterior_passes_in_every_stratum_and_corrections_count_them_all():
    report = run(stratum=first)
    np.testing.assert_array_equal(run()["parameters"].ranks, report["parameters"].ranks)
    strata = diagnostics.stratified(report, bins=5)
    assert strata.passed
    tests = [r for each in strata.reports.values() for r in each.tests.values()]
    smallest = min(float(r.p_value.min()) for r in tests)
    assert min(float(r.corrected.min()) for r in tests) == pytest.approx(min(10 * smallest, 1.0))


def test_values_that_are_few_are_strata_of_their_own():
    report = run(0.3 * SIGMA, stratum=positive)
    strata = diagnostics.stratified(report)
    assert list(strata.reports) == ["stratum = 0", "stratum = 1"]
    assert not strata.passed


def test_a_region_is_local_coverage():
    report = run(0.5 * SIGMA, n=4000, region=positive)
    ranks = report["density"]
    assert len(ranks.ranks) == pytest.approx(2000, abs=4 * 32)
    assert f"{len(ranks.ranks)} of 4000 simulated data sets are in the region" in str(report)
    assert report["parameters"].corrected.min() < 1e-6
    # Coverage of a biased N(x + b, sigma²): 62.5 % of 68.27 %.
    assert ranks.coverage(0.6827)[0] == pytest.approx(0.625, abs=4 * 0.011)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="expected one with strata"):
        diagnostics.stratified(run(n=20))
    with pytest.raises(ValueError, match="got 0 of 20"):
        run(n=20, region=lambda x: x[0] > 1e6)
    with pytest.raises(ValueError, match=r"region: expected one number per data set"):
        run(n=20, region=lambda x: x > 0)
    with pytest.raises(ValueError, match="stratum: expected numbers, got NaN for 20"):
        run(n=20, stratum=lambda x: x[0] * jnp.nan)
    report = run(n=20, stratum=first)
    with pytest.raises(ValueError, match="of 10 data sets or more"):
        diagnostics.stratified(report, bins=4)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        diagnostics.stratified(report, bins=1)
    with pytest.raises(ValueError, match="one value for all"):
        diagnostics.stratified(run(n=20, stratum=lambda x: jnp.zeros(())))
