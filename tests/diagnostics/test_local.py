"""The local classifier test on a conjugate posterior: exact under the null, and local."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi import diagnostics
from jaxsbi.base import DataSpec, configuration
from jaxsbi.diagnostics import classifiers

# theta ~ N(0, 1), x | theta ~ N(theta, 0.5²): the posterior is N(0.8 x, 0.2).
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
WIDTH = 0.2**0.5
SIZES = {"num_datasets": 1000, "permutations": 19}


def simulator(key, theta):
    return theta["theta"][None] + 0.5 * jax.random.normal(key, (1,))


@configuration
class Exact:
    """The exact posterior, but for a shift and a factor, both in widths, where x > `above`."""

    shift: float = 0.0
    factor: float = 1.0
    above: float = -jnp.inf

    def init(self, key, prior, simulations):
        raise NotImplementedError

    def loss(self, variables, prior, key, batch):
        raise NotImplementedError

    def sample(self, variables, prior, key, x, n):
        noise = jax.random.normal(key, (n,))
        wrong = self.shift + self.factor * noise
        return {"theta": 0.8 * x[0] + WIDTH * jnp.where(x[0] > self.above, wrong, noise)}, ()

    def log_prob(self, variables, prior, theta, x):
        raise NotImplementedError


def posterior(**wrong):
    return jaxsbi.Posterior({}, PRIOR, Exact(**wrong), DataSpec.of(jnp.zeros(1)))


def learn(method, seed=0, simulate=simulator, **options):
    key = jax.random.key(seed)
    return diagnostics.local_classifiers(key, method, PRIOR, simulate, **{**SIZES, **options})


def at(learned, x, seed=1):
    return learned.at(jax.random.key(seed), jnp.array([x]), num_draws=500)


def test_p_values_are_uniform_under_the_null(monkeypatch):
    # However short the training: exchanged labels are as likely as those that came. A number of
    # data sets of its own, since the length of training is read when the program is traced.
    monkeypatch.setattr(classifiers, "STEPS", 40)
    p_values = np.array(
        [
            at(learn(posterior(), seed, num_datasets=150), 0.5, 1000 + seed).p_value
            for seed in range(100)
        ]
    )
    # Multiples of 1/20; spread within their step they are uniform on (0, 1).
    spread = p_values - np.random.default_rng(0).uniform(0, 0.05, 100)
    assert scipy.stats.kstest(spread, "uniform").pvalue > 0.01
    assert np.min(p_values) >= 0.05


def test_a_wrong_posterior_fails_and_the_map_shows_where():
    found = at(learn(posterior(shift=0.4)), 0.5)
    assert found.p_value == 0.05
    assert "FAILS" in found.verdict
    assert found.statistic > 5 * found.null.mean()
    # q / (p + q) at its own draws, for which the classifier stands: low on the right, where q is
    # too high.
    z = (np.asarray(found.draws["theta"]) - 0.4) / WIDTH
    exact = 1 / (1 + np.exp(0.4 * z - 0.5 * 0.4**2))
    assert np.corrcoef(found.probability, exact)[0, 1] > 0.9
    assert np.abs(found.probability - exact).mean() < 0.05
    assert found.statistic == pytest.approx(np.mean((exact - 0.5) ** 2), rel=0.6)


def test_a_narrow_posterior_fails():
    found = at(learn(posterior(factor=0.7)), 0.5)
    assert found.p_value == 0.05
    z = np.asarray(found.draws["theta"]) - 0.4
    middle = np.abs(z) < 0.5 * WIDTH
    assert found.probability[middle].mean() < 0.5 < found.probability[np.abs(z) > WIDTH].mean()


def test_it_is_local():
    learned = learn(posterior(shift=0.6, above=0.0))
    assert at(learned, 1.0).p_value == 0.05
    passes = at(learned, -1.0)
    assert passes.p_value > 0.05
    assert "passes" in passes.verdict
    assert "errors at other observations" in passes.verdict


def test_one_call_does_both_and_other_observations_compile_nothing():
    key, x = jax.random.key(0), jnp.array([0.5])
    once = diagnostics.local_c2st(key, posterior(), PRIOR, simulator, x, num_draws=500, **SIZES)
    assert once.null.shape == (19,)
    assert once.draws["theta"].shape == once.probability.shape == (500,)
    module = diagnostics.local
    before = module._train._cache_size(), module._probabilities._cache_size()
    at(learn(posterior(), 5), 0.3)
    assert (module._train._cache_size(), module._probabilities._cache_size()) == before


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"at least 100 data sets.*num_datasets=50"):
        learn(posterior(), num_datasets=50)
    with pytest.raises(ValueError, match="permutations=5"):
        learn(posterior(), permutations=5)
    with pytest.raises(TypeError, match="typed key"):
        diagnostics.local_classifiers(jax.random.PRNGKey(0), posterior(), PRIOR, simulator)
    with pytest.raises(ValueError, match="got 1000 of 1000 with NaN"):
        learn(posterior(shift=float("nan")))
    with pytest.raises(ValueError, match="expected shape"):
        diagnostics.local_c2st(
            jax.random.key(0), posterior(), PRIOR, simulator, jnp.zeros(2), **SIZES
        )


def test_draws_that_are_all_the_same_are_refused():
    learned = learn(posterior())
    with pytest.raises(ValueError, match="at least 10, got 3"):
        learned.at(jax.random.key(0), jnp.zeros(1), num_draws=3)
    point = diagnostics.LocalClassifiers(
        posterior(factor=0.0), PRIOR, learned.params, learned.statistics
    )
    with pytest.raises(ValueError, match="500 equal ones in latent coordinates"):
        at(point, 0.5)


def test_simulations_that_are_not_finite_are_left_out():
    def sometimes(key, theta):
        x = simulator(key, theta)
        return jnp.where(x > 2.5, jnp.nan, x)

    with pytest.warns(UserWarning, match="are not finite"):
        learned = learn(posterior(), simulate=sometimes)
    assert at(learned, 0.5).p_value > 0.0


def test_calibration_by_a_classifiers_ranks_sees_what_depends_on_the_data():
    # Nothing is used of the data: each parameter by itself, and the density, are right.
    @configuration
    class Ignorant(Exact):
        def sample(self, variables, prior, key, x, n):
            return {"theta": jax.random.normal(key, (n,))}, ()

    ignorant = jaxsbi.Posterior({}, PRIOR, Ignorant(), DataSpec.of(jnp.zeros(1)))
    for method, right in ((posterior(), True), (ignorant, False)):
        orderings = (diagnostics.Parameters(), learn(method).ordering)
        report = diagnostics.calibration(
            jax.random.key(9),
            method,
            PRIOR,
            simulator,
            orderings=orderings,
            num_datasets=400,
            num_draws=50,
        )
        assert report["parameters"].corrected.min() > 0.01
        assert bool(report["classifier"].corrected.min() > 0.01) is right
        assert "small network" in str(report)
