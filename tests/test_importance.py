"""Importance sampling on the conjugate Gaussian: theta ~ N(0, 1), x | theta ~ N(theta, 0.5²)."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi.base import DataSpec, configuration, leaf
from jaxsbi.importance import weigh
from jaxsbi.samplers.pareto import pareto_k

SIGMA = 0.5
X = jnp.array([0.7])
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
MEAN, SD = 0.7 / 1.25, (SIGMA**2 / 1.25) ** 0.5
EVIDENCE = scipy.stats.norm.logpdf(0.7, 0.0, 1.25**0.5)


@configuration
class Normal:
    """A proposal N(mean + x shift, sd²) that nobody trained."""

    def init(self, key, prior, simulations):
        raise NotImplementedError

    def loss(self, variables, prior, key, batch):
        raise NotImplementedError

    def sample(self, variables, prior, key, x, n):
        noise = jax.random.normal(key, (n,))
        return {"theta": variables["mean"] + variables["sd"] * noise}, ()

    def log_prob(self, variables, prior, theta, x):
        return jax.scipy.stats.norm.logpdf(theta["theta"], variables["mean"], variables["sd"])


@configuration
class Likelihood(Normal):
    """The exact likelihood in the place of a learned one."""

    def log_likelihood(self, variables, prior, z, x):
        return log_likelihood(prior.from_latent(z), x)


def log_likelihood(theta, x):
    return jax.scipy.stats.norm.logpdf(x[0], theta["theta"], SIGMA)


def posterior(mean=MEAN, sd=SD, method=None):
    variables = {"mean": jnp.asarray(mean, float), "sd": jnp.asarray(sd, float)}
    return jaxsbi.Posterior(variables, PRIOR, method or Normal(), DataSpec.of(X))


def importance(proposal, target=log_likelihood, seed=0, prior=PRIOR, n=10_000, x=X):
    return jaxsbi.importance(jax.random.key(seed), proposal, target, prior, x, n)


def test_the_exact_posterior_has_equal_weights():
    weighted = importance(posterior())
    np.testing.assert_allclose(weighted.ess, 10_000, rtol=1e-4)
    np.testing.assert_allclose(weighted.efficiency, 1.0, rtol=1e-4)
    np.testing.assert_allclose(weighted.log_weights, EVIDENCE, atol=1e-4)
    np.testing.assert_allclose(weighted.log_evidence, EVIDENCE, atol=1e-4)


@pytest.mark.parametrize("target", [log_likelihood, "learned"])
def test_a_wrong_proposal_is_corrected(target):
    if target == "learned":
        target = posterior(method=Likelihood())
    weighted = importance(posterior(MEAN + 0.3, 1.3 * SD), target)
    assert weighted.pareto_k < 0.7
    error = float(weighted.log_evidence_error)
    assert abs(float(weighted.log_evidence) - EVIDENCE) < 4 * error < 0.05
    w = np.exp(weighted.log_weights - weighted.log_evidence)
    theta = np.asarray(weighted.draws["theta"])
    mean = np.mean(w * theta)
    assert abs(mean - MEAN) < 4 * SD / float(weighted.ess) ** 0.5
    again = np.asarray(weighted.resample(jax.random.key(1), 20_000)["theta"])
    assert again.shape == (20_000,)
    # Systematic resampling adds next to nothing to the error of the weights.
    np.testing.assert_allclose(again.mean(), mean, atol=0.005)
    np.testing.assert_allclose(again.std(), SD, rtol=0.05)


def test_another_prior_changes_the_target_only():
    narrow = jaxsbi.Prior(theta=dist.Normal(0.2, 0.4))
    weighted = importance(posterior(sd=1.5 * SD), prior=narrow)
    expected = scipy.stats.norm.logpdf(0.7, 0.2, (0.4**2 + SIGMA**2) ** 0.5)
    assert abs(float(weighted.log_evidence) - expected) < 4 * float(weighted.log_evidence_error)


@pytest.mark.slow
def test_the_reported_error_of_the_evidence_is_its_error():
    proposal = posterior(MEAN + 0.2, 1.5 * SD)
    keys = jax.random.split(jax.random.key(3), 200)
    run = jax.vmap(lambda key: jaxsbi.importance(key, proposal, log_likelihood, PRIOR, X, 1000))
    weighted = run(keys)
    off = np.abs(weighted.log_evidence - EVIDENCE) < 2 * weighted.log_evidence_error
    # Of 200 repeats 95.4 % lie within two errors, give or take 1.5 %.
    assert off.mean() >= 0.91
    assert np.abs(weighted.log_evidence - EVIDENCE).max() < 0.15


def test_observations_can_be_vmapped_and_nothing_is_traced_again():
    traced = chex.assert_max_traces(lambda theta, x: log_likelihood(theta, x), n=2)
    xs = jnp.array([[0.0], [0.7], [1.5]])
    one = lambda key, x: jaxsbi.importance(key, posterior(sd=1.0), traced, PRIOR, x, 5000)  # noqa: E731
    for seed, shift in ((4, 0.0), (5, 0.1)):
        weighted = jax.vmap(one)(jax.random.split(jax.random.key(seed), 3), xs + shift)
        expected = scipy.stats.norm.logpdf(xs[:, 0] + shift, 0.0, 1.25**0.5)
        error = np.abs(weighted.log_evidence - expected) / weighted.log_evidence_error
        assert np.all(error < 4)


def test_a_proposal_that_misses_the_target_is_named():
    with pytest.warns(UserWarning, match=r"efficiency 0\.\d+%.*Pareto k"):
        importance(posterior(MEAN - 5.0, 0.3))


def test_a_target_that_vanishes_everywhere():
    with pytest.raises(ValueError, match=r"vanishes .* at all 100 draws"):
        importance(posterior(), lambda theta, x: jnp.nan * theta["theta"], n=100)


def test_what_is_no_proposal_and_no_target():
    with pytest.raises(TypeError, match=r"Pass fitted\.posterior"):
        importance(Normal())
    with pytest.raises(ValueError, match="not normalised"):
        importance(posterior(method=Likelihood()))
    with pytest.raises(ValueError, match="no likelihood to weigh with"):
        importance(posterior(), posterior())
    with pytest.raises(TypeError, match="expected a function"):
        importance(posterior(), 3.0)
    with pytest.raises(ValueError, match="expected the proposal's parameters"):
        importance(posterior(), prior=jaxsbi.Prior(phi=dist.Normal(0.0, 1.0)))
    with pytest.raises(TypeError, match="typed key"):
        jaxsbi.importance(jax.random.PRNGKey(0), posterior(), log_likelihood, PRIOR, X, 10)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_is_that_of_arviz(k):
    arviz = pytest.importorskip("arviz")
    rng = np.random.default_rng(0)
    weights = scipy.stats.genpareto.rvs(k, size=4000, random_state=rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = float(arviz.psislw(np.log(weights))[1])
    assert float(pareto_k(jnp.log(jnp.asarray(weights)))) == pytest.approx(expected, abs=0.02)


def test_equal_weights_at_the_cut_do_not_hide_a_heavy_tail():
    weights = scipy.stats.genpareto.rvs(1.2, size=10_000, random_state=np.random.default_rng(0))
    exact = float(pareto_k(jnp.asarray(np.log(weights), jnp.float32)))
    # Beside 1e6, a float has two digits after the point, and hundreds of log-weights are equal.
    shifted = jnp.asarray(np.log(weights) - 1e6, jnp.float32)
    assert len(np.unique(shifted)) < 1000
    assert float(pareto_k(shifted)) == pytest.approx(exact, abs=0.1)


def test_a_likelihood_may_be_a_pytree():
    @configuration
    class Measured:
        sigma: jax.Array = leaf()

        def __call__(self, theta, x):
            return jax.scipy.stats.norm.logpdf(x[0], theta["theta"], self.sigma)

    weighted = importance(posterior(), Measured(sigma=jnp.array(SIGMA)))
    np.testing.assert_allclose(weighted.log_evidence, EVIDENCE, atol=1e-4)


def test_pareto_k_of_few_or_equal_weights():
    assert np.isnan(pareto_k(jnp.zeros(10)))
    assert pareto_k(jnp.zeros(1000)) == -jnp.inf
    one = jnp.full(1000, -jnp.inf).at[3].set(0.0)
    assert pareto_k(one) == jnp.inf
    weighted = weigh({"theta": jnp.arange(1000.0)}, one)
    assert float(weighted.ess) == pytest.approx(1.0)
    assert np.all(weighted.resample(jax.random.key(0), 7)["theta"] == 3.0)


def test_a_prior_beyond_the_proposals_is_told():
    """Draws stay within the training prior: weights look good, and the evidence is a part of it."""
    narrow = jaxsbi.Prior(theta=dist.Uniform(-1.0, 1.0))
    wide = jaxsbi.Prior(theta=dist.Uniform(-5.0, 5.0))
    inside = jaxsbi.Posterior(posterior().variables, narrow, Normal(), DataSpec.of(X))
    with pytest.warns(UserWarning, match="importance: .*% of the new prior lies outside"):
        importance(inside, prior=wide)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_undefined_weights_are_counted_and_told(value):
    def broken(theta, x):
        return jnp.where(theta["theta"] > MEAN, value, log_likelihood(theta, x))

    with pytest.warns(UserWarning, match="importance: .* of 10000 draws have weight 0 because"):
        result = importance(posterior(), broken)
    assert abs(int(result.num_undefined) - 5_000) < 4 * 50
    assert bool(jnp.isfinite(result.log_evidence))


def test_good_weights_are_not_called_bad_by_their_tail():
    """Of nearly equal weights the tail may have any shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importance(posterior(sd=1.002 * SD), n=5_000)
        importance(posterior(), n=10)


def test_what_is_no_scalar_no_prior_and_no_number():
    with pytest.raises(ValueError, match=r"log_likelihood: expected a scalar, got shape \(1,\)"):
        importance(posterior(), lambda theta, x: log_likelihood(theta, x)[None])
    with pytest.raises(TypeError, match=r"prior: expected a jaxsbi.Prior .*, got Normal"):
        importance(posterior(), prior=dist.Normal(0.0, 1.0))
    for n in (0, -3, 10.7):
        with pytest.raises(ValueError, match="n: expected a positive integer"):
            importance(posterior(), n=n)
        with pytest.raises(ValueError, match="n: expected a positive integer"):
            weigh({"theta": jnp.zeros(3)}, jnp.zeros(3)).resample(jax.random.key(0), n)
