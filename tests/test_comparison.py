"""Model comparison against analytic evidences: every number of x is N(mean, noise²)."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi.comparison import _calibration, _log_probabilities
from jaxsbi.diagnostics.uniformity import ks_p_value

DIM, N = 3, 4000
# Name → mean and deviation of the prior on the common mean, and the noise.
NUMBERS = {"narrow": (0.0, 0.5, 1.0), "wide": (1.0, 2.0, 1.0), "noisy": (-1.0, 1.0, 2.0)}


def make(centre, spread, noise):
    def simulator(key, theta):
        return theta["mean"] + noise * jax.random.normal(key, (DIM,))

    return jaxsbi.Prior(mean=dist.Normal(centre, spread)), simulator


MODELS = {name: make(*numbers) for name, numbers in NUMBERS.items()}
TWO = {name: MODELS[name] for name in ("narrow", "wide")}


def log_evidence(name, x):
    centre, spread, noise = NUMBERS[name]
    covariance = spread**2 * np.ones((DIM, DIM)) + noise**2 * np.eye(DIM)
    return scipy.stats.multivariate_normal.logpdf(x, centre * np.ones(DIM), covariance)


def observations(models, n=500):
    keys = jax.random.split(jax.random.key(7), len(models))
    parts = [
        jaxsbi.simulate(key, *model, n, progress=False).x
        for key, model in zip(keys, models.values(), strict=True)
    ]
    return jnp.concatenate(parts)


@pytest.fixture(scope="module", params=["two", "three"])
def compared(request):
    models = TWO if request.param == "two" else MODELS
    return models, jaxsbi.compare(jax.random.key(1), models, N, progress=False)


@pytest.mark.slow
def test_log_bayes_factors_are_the_analytic_ones(compared):
    models, comparison = compared
    x = observations(models)
    found = jax.vmap(comparison.log_bayes_factors)(x)
    np.testing.assert_array_equal(found["narrow"], 0.0)
    for name in list(models)[1:]:
        exact = log_evidence(name, x) - log_evidence("narrow", x)
        near = np.abs(exact) < 4
        assert near.mean() > 0.6
        off = np.asarray(found[name])[near] - exact[near]
        # 4,000 simulations of each model leave errors of 0.09 (two models) and 0.2 (three).
        assert np.abs(off).mean() < (0.15 if len(models) == 2 else 0.3)
        assert np.corrcoef(found[name][near], exact[near])[0, 1] > 0.9


@pytest.mark.slow
def test_probabilities_are_the_analytic_ones_and_calibrated(compared):
    models, comparison = compared
    x = observations(models)
    found = jax.vmap(comparison.probabilities)(x)
    exact = scipy.special.softmax(np.stack([log_evidence(name, x) for name in models], 1), 1)
    for name, column in zip(models, exact.T, strict=True):
        assert np.abs(found[name] - column).mean() < 0.03  # 0.013 found
    check = comparison.check(jax.random.key(3), models, 2000)
    assert check.p_value > 0.01
    assert check.error < 0.03
    assert "passes" in check.verdict
    assert check.confusion.sum() == check.counts.sum(1)[0] == 2000
    best = np.argmax(exact, 1) == np.repeat(np.arange(len(models)), 500)
    # Both shares are of finitely many simulations: 1,000 or 1,500 here, 2,000 there.
    assert check.accuracy == pytest.approx(best.mean(), abs=4 * (0.25 / 1000 + 0.25 / 2000) ** 0.5)
    assert check.log_score > check.log_score_prior
    if len(models) == 2:
        return
    # Simulations of other models than it was trained on.
    other = {**models, "wide": make(1.0, 2.0, 2.5)}
    check = comparison.check(jax.random.key(4), other, 2000)
    assert check.p_value < 0.01
    assert "FAILS" in check.verdict


@pytest.mark.slow
def test_importance_sampling_and_the_classifier_agree_on_the_evidence(compared):
    models, comparison = compared
    if len(models) > 2:
        pytest.skip("two models are enough")
    x = jnp.array([0.4, 1.5, 0.2])
    method = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8))
    results = {}
    for name, (prior, simulator) in models.items():
        keys = jax.random.split(jax.random.key(2), 3)
        rows = jaxsbi.simulate(keys[0], prior, simulator, 1000, progress=False)
        fitted = jaxsbi.fit(keys[1], method, prior, rows, max_epochs=5, progress=False)
        # Both simulators have unit noise.
        weighted = jaxsbi.importance(keys[2], fitted.posterior, log_likelihood, prior, x, 4000)
        error = float(weighted.log_evidence_error)
        assert abs(float(weighted.log_evidence) - log_evidence(name, x)) < 4 * error < 0.1
        results[name] = float(weighted.log_evidence)
    exact = log_evidence("wide", x) - log_evidence("narrow", x)
    learned = float(comparison.log_bayes_factors(x)["wide"])
    assert results["wide"] - results["narrow"] == pytest.approx(exact, abs=0.1)
    assert learned == pytest.approx(exact, abs=0.3)  # three times its mean error


def log_likelihood(theta, x):
    return jnp.sum(jax.scipy.stats.norm.logpdf(x, theta["mean"], 1.0))


@pytest.mark.slow
def test_weights_move_probabilities_and_not_bayes_factors(compared):
    models, comparison = compared
    if len(models) == 2:
        pytest.skip("three models say more")
    x = observations(models, 1)[0]
    weights = dict(zip(models, range(1, 1 + len(models)), strict=True))
    log_weights = jnp.log(jnp.asarray(list(weights.values()), float) / sum(weights.values()))
    weighed = comparison.__class__(
        comparison.posterior, log_weights, comparison.validation_loss, comparison.names
    )
    before, after = comparison.probabilities(x), weighed.probabilities(x)
    total = sum(before[name] * weights[name] for name in models)
    for name in models:
        np.testing.assert_allclose(after[name], before[name] * weights[name] / total, rtol=1e-4)
        np.testing.assert_allclose(
            weighed.log_bayes_factors(x)[name], comparison.log_bayes_factors(x)[name], atol=1e-4
        )
    check = weighed.check(jax.random.key(3), models, 1000)
    assert check.p_value > 0.01  # the truths are drawn with the weights
    share = check.confusion.sum(1) / 1000
    np.testing.assert_allclose(share, np.exp(log_weights), atol=4 * (0.25 / 1000) ** 0.5)


def small(n=300, key=0, **options):
    return jaxsbi.compare(jax.random.key(key), TWO, n, progress=False, **options)


@pytest.fixture(scope="module")
def comparison():
    return small(weights={"wide": 3.0, "narrow": 1.0})


def test_nothing_is_traced_twice(comparison):
    x = jnp.arange(3.0)
    comparison.probabilities(x)
    size = _log_probabilities._cache_size()
    again = small(key=1)
    for seed in range(3):
        again.log_bayes_factors(x + seed, "wide")
        comparison.probabilities(x - seed)
    assert _log_probabilities._cache_size() == size

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def probabilities(comparison, x):
        return comparison.probabilities(x)

    for one in (comparison, again):
        np.testing.assert_allclose(
            probabilities(one, x)["wide"], one.probabilities(x)["wide"], rtol=1e-5
        )


def test_the_posterior_of_the_index_is_a_histogram(comparison):
    np.testing.assert_allclose(comparison.log_weights, np.log([0.25, 0.75]), rtol=1e-6)
    x = jnp.array([0.3, -0.2, 2.0])
    density = jax.vmap(comparison.posterior.log_prob, (0, None))
    log_p = density({"model": jnp.array([-0.4, 0.4, 0.6, 1.4, 1.6])}, x)
    np.testing.assert_allclose(log_p[::2][:2], log_p[1::2], rtol=1e-6)
    assert log_p[4] == -jnp.inf
    assert float(jnp.exp(log_p[0]) + jnp.exp(log_p[2])) == pytest.approx(1.0, rel=1e-5)
    draws = comparison.posterior.sample(jax.random.key(0), x, 4000)["model"]
    share = float(np.mean(np.round(draws) == 1))
    assert share == pytest.approx(float(jnp.exp(log_p[2])), abs=4 * 0.5 / 4000**0.5)


def test_a_model_that_often_fails_has_less_evidence():
    def often_fails(key, theta):
        key_fail, key_x = jax.random.split(key)
        x = TWO["wide"][1](key_x, theta)
        return jnp.where(jax.random.bernoulli(key_fail), x, jnp.nan)

    models = {"whole": TWO["wide"], "half": (TWO["wide"][0], often_fails)}
    with pytest.warns(UserWarning, match="not finite"):
        comparison = jaxsbi.compare(jax.random.key(0), models, 600, progress=False)
    found = jax.vmap(comparison.log_bayes_factors)(observations(TWO, 100))["half"]
    # log 1/2, within the scatter of 300 of 600 (0.06) and of what 900 rows teach.
    assert np.median(found) == pytest.approx(np.log(0.5), abs=0.2)


def test_any_data_and_any_network():
    def simulator(rate):
        def one(key, theta):
            key_counts, key_image = jax.random.split(key)
            counts = jax.random.poisson(key_counts, rate, (4,)).astype(jnp.int32)
            return {"counts": counts, "image": jax.random.normal(key_image, (2, 2))}

        return one

    prior = jaxsbi.Prior(nothing=dist.Normal(0.0, 1.0))
    models = {"few": (prior, simulator(2.0)), "many": (prior, simulator(8.0))}
    comparison = jaxsbi.compare(
        jax.random.key(0), models, 200, progress=False,
        classifier=jaxsbi.networks.MLP(16), summary=jaxsbi.networks.MLP(16, out=4),
    )  # fmt: skip
    x = {"counts": jnp.array([9, 7, 8, 6]), "image": jnp.zeros((2, 2))}
    assert comparison.probabilities(x)["many"] > 0.9
    assert comparison.validation_loss < 0.3


@pytest.mark.parametrize("power", [1.0, 1.3])
def test_the_calibration_test_is_exact_and_sees_overconfidence(power):
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(60):
        p = generator.dirichlet([0.5, 0.7, 1.0], 300)
        truth = np.sum(np.cumsum(p, 1)[:, :2] < generator.random((300, 1)), 1)
        log_p = np.log(p + 1e-12) * power
        log_p -= scipy.special.logsumexp(log_p, 1, keepdims=True)
        check = _calibration(generator, ("a", "b", "c"), np.log(np.ones(3) / 3), log_p, truth)
        p_values.append(check.p_value)
    if power == 1.0:
        assert ks_p_value(np.asarray(p_values)) > 0.01
    else:
        assert np.mean(np.asarray(p_values) < 0.05) > 0.3


def test_errors_say_how_to_mend_them(comparison):
    key = jax.random.key(0)
    prior, simulator = TWO["wide"]
    with pytest.raises(ValueError, match=r"at least two to compare, got \['wide'\]"):
        jaxsbi.compare(key, {"wide": TWO["wide"]}, 100)
    with pytest.raises(TypeError, match="models: expected a dict"):
        jaxsbi.compare(key, [TWO["wide"], TWO["narrow"]], 100)
    with pytest.raises(TypeError, match=r"models\['other'\]: expected \(prior, simulator\)"):
        jaxsbi.compare(key, {**TWO, "other": (simulator, prior)}, 100)
    longer = lambda key, theta: jnp.zeros(4)  # noqa: E731
    with pytest.raises(TypeError, match=r"'longer'.*expected data float32\[3\].*got float32\[4\]"):
        jaxsbi.compare(key, {**TWO, "longer": (prior, longer)}, 100)
    with pytest.raises(TypeError, match=r"got \{\['a'\]: float32\[4\]\}"):
        jaxsbi.compare(key, {**TWO, "d": (prior, lambda k, t: {"a": longer(k, t)})}, 100)
    for weights in ({"wide": 1.0}, [0.5, 0.5]):
        with pytest.raises(ValueError, match=r"weights: expected one for each of \['narrow'"):
            jaxsbi.compare(key, TWO, 100, weights=weights)
    with pytest.raises(ValueError, match="weights: expected positive numbers"):
        jaxsbi.compare(key, TWO, 100, weights={"wide": 1.0, "narrow": 0.0})
    with pytest.raises(ValueError, match="at least 10 simulations of each model, got 5"):
        jaxsbi.compare(key, TWO, 5)
    with pytest.raises(TypeError, match="typed key"):
        jaxsbi.compare(jax.random.PRNGKey(0), TWO, 100)
    with pytest.raises(ValueError, match=r"expected shape \(3,\), got \(4,\)"):
        comparison.probabilities(jnp.zeros(4))
    with pytest.raises(ValueError, match=r"reference: expected one of \['narrow', 'wide'\]"):
        comparison.log_bayes_factors(jnp.zeros(3), "other")
    with pytest.raises(ValueError, match=r"expected the models \['narrow', 'wide'\].*n=50"):
        comparison.check(key, TWO, 50)
    with pytest.raises(TypeError, match=r"'narrow'.*expected data float32\[3\]"):
        comparison.check(key, {"narrow": (prior, longer), "wide": (prior, longer)}, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison.check(key, TWO, 100)
