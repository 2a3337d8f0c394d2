"""Generalised ranks on problems with known answers: what fails, what passes, and by how much."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi import diagnostics
from jaxsbi.base import DataSpec, configuration
from jaxsbi.diagnostics.uniformity import holm, ks_band, ks_p_value

# A flat prior for all that matters: the posterior of x ~ N(theta, sigma²) is N(x, sigma²).
SIGMA = 0.1
WIDE = jaxsbi.Prior(theta=dist.Normal(0.0, 100.0))
N = 4_000


@configuration
class Analytic:
    """A posterior N(slope x[0] + shift, width²) that nobody trained."""

    slope: float = 1.0
    shift: float = 0.0
    width: float = SIGMA

    def init(self, key, prior, simulations):
        raise NotImplementedError

    def loss(self, variables, prior, key, batch):
        raise NotImplementedError

    def sample(self, variables, prior, key, x, n):
        noise = jax.random.normal(key, (n,))
        return {"theta": self.slope * x[0] + self.shift + self.width * noise}, ()

    def log_prob(self, variables, prior, theta, x):
        mean = self.slope * x[0] + self.shift
        return jax.scipy.stats.norm.logpdf(theta["theta"], mean, self.width)


def posterior(method, prior=WIDE, size=1):
    return jaxsbi.Posterior({}, prior, method, DataSpec.of(jnp.zeros(size)))


def simulator(key, theta):
    return theta["theta"][None] + SIGMA * jax.random.normal(key, (1,))


def run(method, seed=0, prior=WIDE, simulate=simulator, size=1, **options):
    options = {"num_datasets": N, "num_draws": 100, **options}
    return diagnostics.calibration(
        jax.random.key(seed), posterior(method, prior, size), prior, simulate, **options
    )


def test_the_exact_posterior_passes_everything():
    report = run(Analytic())
    assert report.passed
    assert set(report.tests) == {"parameters", "projections", "density", "distance"}
    for ranks in report.tests.values():
        assert ranks.ranks.shape[0] == N
        ecdf = np.abs(np.sort(ranks.ranks[:, 0]) - (np.arange(N) + 0.5) / N).max()
        assert ecdf < 1.4 * ranks.band
        assert "passes" in ranks.verdict
        assert ranks.blind in str(report)


@pytest.mark.parametrize(
    ("method", "coverage"),
    [
        (Analytic(width=1.3 * SIGMA), 0.806),
        (Analytic(width=0.8 * SIGMA), 0.576),
        (Analytic(shift=0.5 * SIGMA), 0.625),
    ],
    ids=["too wide", "too narrow", "biased"],
)
def test_highest_density_coverage_of_wrong_gaussians(method, coverage):
    ranks = run(method)["density"]
    # Binomial scatter of 4,000 data sets 0.0078, of the level's 100 draws next to nothing.
    assert ranks.coverage(0.6827)[0] == pytest.approx(coverage, abs=4 * 0.0078)
    assert ranks.corrected.min() < 1e-6
    assert "FAILS" in ranks.verdict


def pair(key, theta):
    return theta["theta"] + jax.random.normal(key, (2,))


UNIT = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))


def pair_likelihood(theta, x):
    return jnp.sum(jax.scipy.stats.norm.logpdf(x, theta["theta"], 1.0))


def second(x):
    return {"theta": x[1]}


def test_lost_information_is_seen_by_the_likelihood_and_by_points_that_depend_on_x():
    # The posterior given x[0] alone, N(x[0] / 2, 1/2): calibrated, and 0.203 nat short.
    orderings = (
        *diagnostics.calibration.__kwdefaults__["orderings"],
        diagnostics.LogLikelihood(function=pair_likelihood),
        diagnostics.Distance(reference=second, name="distance from x[1]"),
    )
    half = Analytic(slope=0.5, width=0.5**0.5)
    report = run(half, prior=UNIT, simulate=pair, size=2, orderings=orderings)
    for name in ("parameters", "projections", "density", "distance"):
        assert report[name].corrected.min() > 0.01
    # Mean share of draws less likely than the truth: 1 - 0.383, scatter 0.29 / sqrt(4000).
    assert report["likelihood"].ranks.mean() == pytest.approx(0.617, abs=4 * 0.0046)
    assert report["likelihood"].corrected.min() < 1e-6
    ordered = np.sort(report["distance from x[1]"].ranks[:, 0])
    assert np.abs(ordered - (np.arange(N) + 0.5) / N).max() == pytest.approx(0.22, abs=0.03)
    assert not report.passed


@configuration
class Uncorrelated(Analytic):
    """The right marginals of a correlated posterior, without the correlation."""

    def sample(self, variables, prior, key, x, n):
        return {"theta": x[None] + jax.random.normal(key, (n, 2))}, ()

    def log_prob(self, variables, prior, theta, x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(theta["theta"], x, 1.0))


def test_a_wrong_correlation_fails_projections_only_among_linear_orderings():
    flat = jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 100.0).to_event(1))

    def correlated(key, theta):
        u = jax.random.normal(key, (2,))
        return theta["theta"] + jnp.array([u[0], 0.8 * u[0] + 0.6 * u[1]])

    report = run(Uncorrelated(), prior=flat, simulate=correlated, size=2)
    assert report["parameters"].corrected.min() > 0.01
    assert report["projections"].corrected.min() < 1e-6


@pytest.mark.slow
def test_p_values_are_uniform_under_the_null():
    # 500 studies of 100 data sets in one go, ranks discrete (20 draws): ties broken at random.
    report = run(Analytic(), num_datasets=50_000, num_draws=20, seed=3)
    for name in ("parameters", "density", "distance"):
        blocks = report[name].ranks[:, 0].reshape(500, 100)
        p_values = ks_p_value(blocks.T)
        assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_p_values_bands_and_corrections_are_those_of_others():
    values = np.random.default_rng(0).uniform(size=(200, 3)) ** np.array([1.0, 1.1, 1.5])
    expected = [scipy.stats.kstest(column, "uniform").pvalue for column in values.T]
    np.testing.assert_allclose(ks_p_value(values), expected, atol=0.01)
    assert ks_band(1000) == pytest.approx(scipy.stats.kstwo.ppf(0.95, 1000), rel=0.01)
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])


def test_options_out_of_range():
    with pytest.raises(ValueError, match="at least 10 data sets and 10 draws"):
        run(Analytic(), num_draws=5)
    with pytest.raises(ValueError, match="expected different names"):
        run(Analytic(), orderings=(diagnostics.LogPrior(), diagnostics.LogPrior()))
    nan = diagnostics.LogLikelihood(function=lambda theta, x: jnp.nan)
    with pytest.raises(ValueError, match="'likelihood': expected numbers, got NaN for 20"):
        run(Analytic(), orderings=(nan,), num_datasets=20)
    with pytest.raises(TypeError, match="typed key"):
        diagnostics.calibration(jax.random.PRNGKey(0), posterior(Analytic()), WIDE, simulator)
