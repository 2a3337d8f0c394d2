"""One joint network against the exact conditionals of a linear Gaussian law of (a, b, x1, x2)."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi.base import ONCE_OPTIONS, DataSpec, _log_prob, draw_program
from jaxsbi.loop import default_optimizer
from jaxsbi.methods import conditional, conditional_log_prob
from jaxsbi.methods.conditional import _density, _draw
from jaxsbi.methods.joint import apply, question, tokens

PRIOR = jaxsbi.Prior(a=dist.Normal(1.0, 2.0), b=dist.Normal(0.0, 1.0))
MATRIX = np.array([[1.0, 0.8], [-0.5, 1.0]], np.float32)
SIGMA = 0.7
NETWORK = jaxsbi.fields.JointTransformer(width=24, layers=2, heads=2)
METHOD = jaxsbi.joint(network=NETWORK)
# An untrained field is zero: one step is exact, and compiles fast.
QUICK = jaxsbi.joint(
    network=NETWORK, sampler=jaxsbi.fields.ode(solver="euler", steps=2, density_steps=2)
)
A, B, X1, X2 = range(4)
DRAWS = 4_000
ROWS = 1_000  # of every loss: one program
MODULE = importlib.import_module("jaxsbi.methods.joint")  # the package's `joint` is a function
TOLERANCE = 0.15
"""What the network may be off, in widths of the exact answer; the rest is sampling error."""


def simulator(key, theta):
    noise = SIGMA * jax.random.normal(key, (2,))
    x = MATRIX @ jnp.stack([theta["a"], theta["b"]]) + noise
    return {"first": x[0], "rest": x[1:]}


@functools.cache
def some(n, seed=1):
    return jaxsbi.simulate(jax.random.key(seed), PRIOR, simulator, n, progress=False)


def data(x1, x2):
    return {"first": jnp.asarray(x1, jnp.float32), "rest": jnp.asarray([x2], jnp.float32)}


def flat(draws):
    """Return draws of everything as a matrix, in the order of A, B, X1, X2."""
    theta, x = draws["theta"], draws["x"]
    return np.stack([theta["a"], theta["b"], x["first"], x["rest"][:, 0]], 1).astype(np.float64)


def exact(of, given):
    """Return the mean and covariance of some numbers given others, index → value."""
    prior = np.diag([4.0, 1.0])
    mean = np.concatenate([[1.0, 0.0], MATRIX @ [1.0, 0.0]])
    cross = prior @ MATRIX.T
    covariance = np.block(
        [[prior, cross], [cross.T, MATRIX @ cross + SIGMA**2 * np.eye(2)]]
    ).astype(np.float64)
    known = list(given)
    if not known:
        return mean[of], covariance[np.ix_(of, of)]
    gain = covariance[np.ix_(of, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
    shift = gain @ (np.array([given[i] for i in known]) - mean[known])
    return mean[of] + shift, covariance[np.ix_(of, of)] - gain @ covariance[np.ix_(known, of)]


@functools.cache
def untrained(method=QUICK, prior=PRIOR, seed=0):
    simulations = some(50)
    init = jax.jit(lambda key: method.init(key, prior, simulations))
    variables = init(jax.random.key(seed))
    return jaxsbi.Posterior(variables, prior, method, DataSpec.of(simulations.x, batched=True))


@pytest.fixture(scope="module")
def posterior():
    # As many steps as 50 epochs of the default batches, at half the cost; the best is kept.
    steps = {"batch_size": 64, "max_epochs": 25, "optimizer": default_optimizer(25 * 112, 6e-3)}
    fitted = jaxsbi.fit(jax.random.key(2), METHOD, PRIOR, some(8_000), progress=False, **steps)
    return fitted.posterior


X = data(2.0, -0.5)
GIVEN_X = {X1: 2.0, X2: -0.5}
FIRST = {"first": jnp.array(True), "rest": jnp.array(False)}
# Name → what is given, as the user says it; the options; what is drawn; what is given.
QUESTIONS = {
    "joint": ({}, {}, [A, B, X1, X2], {}),
    "posterior": ({"x": X}, {}, [A, B], GIVEN_X),
    "likelihood": ({"theta": {"a": -1.0, "b": 1.0}}, {}, [X1, X2], {A: -1.0, B: 1.0}),
    "conditional": ({"theta": {"b": 0.8}, "x": X}, {}, [A], {B: 0.8, **GIVEN_X}),
    "missing": ({"x": data(2.0, np.nan)}, {"observed": FIRST}, [A, B], {X1: 2.0}),
    "imputed": ({"x": X}, {"observed": FIRST, "impute": True}, [A, B, X2], {X1: 2.0}),
}


def assert_draws(draws, of, given):
    mean, covariance = exact(of, given)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mean).T)
    assert np.all(np.abs(white.mean(1)) < TOLERANCE + 4 / DRAWS**0.5)
    error = np.abs(np.atleast_2d(np.cov(white)) - np.eye(len(of)))
    # A width off by TOLERANCE is a variance off by twice that.
    assert np.all(error < 2 * TOLERANCE + 4 * (2 / DRAWS) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUESTIONS)
def test_draws_of_any_question_are_the_exact_conditionals(posterior, name):
    given, options, of, values = QUESTIONS[name]
    draws = flat(conditional(jax.random.key(3), posterior, given, DRAWS, **options))
    assert_draws(draws[:, of], of, values)
    for index, value in values.items():
        np.testing.assert_array_equal(draws[:, index], np.float32(value))
    left_out = sorted({A, B, X1, X2} - set(of) - set(values))
    assert np.all(np.isnan(draws[:, left_out]))


@pytest.mark.slow
def test_all_questions_are_one_program(posterior):
    conditional(jax.random.key(3), posterior, {}, DRAWS)
    before = _draw._cache_size()
    for given, options, _, _ in QUESTIONS.values():
        conditional(jax.random.key(3), posterior, given, DRAWS, **options)
    assert _draw._cache_size() == before


@pytest.mark.slow
def test_the_posterior_is_the_exact_one(posterior):
    for x1, x2 in ((2.0, -0.5), (-1.0, 1.0)):
        draws = posterior.sample(jax.random.key(4), data(x1, x2), DRAWS)
        assert_draws(np.stack([draws["a"], draws["b"]], 1), [A, B], {X1: x1, X2: x2})
    mean, covariance = exact([A, B], {X1: x1, X2: x2})
    points = (
        mean + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]]) @ np.linalg.cholesky(covariance).T
    )
    found = [posterior.log_prob({"a": a, "b": b}, data(x1, x2)) for a, b in points]
    # To first order TOLERANCE widths at one width, in two dimensions.
    truth = scipy.stats.multivariate_normal(mean, covariance).logpdf(points)
    np.testing.assert_allclose(found, truth, atol=2 * TOLERANCE)


@pytest.mark.slow
def test_densities_of_any_question_are_the_exact_ones(posterior):
    theta = {"a": jnp.array(0.5), "b": jnp.array(0.3)}
    point = {A: 0.5, B: 0.3, X1: 1.5, X2: -0.4}
    x = data(1.5, -0.4)
    a, b = ({"theta": {name: theta[name]}} for name in "ab")
    cases = (
        ({"x": x}, {"theta": theta}, None, [X1, X2], [A, B]),
        ({"theta": theta}, {"x": x}, None, [A, B], [X1, X2]),
        (a, {**b, "x": x}, None, [A], [B, X1, X2]),
        (b, {"x": x}, FIRST, [B], [X1]),
        ({"x": x}, {"x": x}, FIRST, [X2], [X1]),
    )
    before = _density._cache_size()
    for of, given, observed, asked, known in cases:
        mean, covariance = exact(asked, {i: point[i] for i in known})
        truth = scipy.stats.multivariate_normal(mean, covariance).logpdf([point[i] for i in asked])
        found = conditional_log_prob(posterior, of, given, observed=observed)
        assert float(found) == pytest.approx(truth, abs=2 * TOLERANCE)
    assert _density._cache_size() == before + 1


def test_training_asks_every_kind_of_question():
    coins = jax.random.uniform(jax.random.key(5), (20_000, 2, 5))
    given, present = map(np.asarray, jax.jit(jax.vmap(lambda c: question(c, 2)))(coins))
    assert np.all((present & ~given).any(1))
    whole = present.all(1)

    def share(pattern):
        return np.mean(np.all(given[whole] == np.array(pattern, bool), 1))

    # The named kinds, and what the two random ones (p = 0.3, 0.7) add to them.
    mixed = 0.15 * 2 * 0.7**2 * 0.3**2
    assert share([0, 0, 1, 1]) == pytest.approx(0.4 + mixed, abs=0.02)
    assert share([1, 1, 0, 0]) == pytest.approx(0.2 + mixed, abs=0.02)
    # All given is nothing to learn, and becomes the joint question.
    nothing = 0.1 + 2 * 0.15 * (0.7**4 + 0.3**4)
    assert share([0, 0, 0, 0]) == pytest.approx(nothing, abs=0.02)
    # Some are absent in a third of the questions, unless nothing would be left to ask.
    rates = (0.3, 0.7)
    all_absent = [(r + (1 - r) * 0.3) ** 4 - r**4 * (1 - 0.3**4) for r in rates]
    left = 1 - 0.7**4 - 0.1 * 0.3**4 - 0.6 * 0.3**2 - 0.15 * sum(all_absent)
    assert 1 - np.mean(whole) == pytest.approx(left / 3, abs=0.015)


def loss(method, variables, rows):
    program = jax.jit(method.loss, compiler_options=ONCE_OPTIONS)
    return program(variables, PRIOR, jax.random.key(6), rows)


def test_the_loss_of_an_untrained_network_is_one_per_free_number():
    """Its error is |sin v - cos e|² with v and e of unit variance, whatever is given or absent."""
    rows = some(ROWS)
    statistics = QUICK.init(jax.random.key(0), PRIOR, rows)["statistics"]
    losses = np.asarray(loss(QUICK, {**untrained().variables, "statistics": statistics}, rows))
    assert losses.mean() == pytest.approx(1.0, abs=4 * float(losses.std()) / ROWS**0.5)


def test_the_loss_ignores_what_is_given_or_absent(monkeypatch):
    """An output that is wrong only where nothing is asked costs nothing."""
    variables, rows = untrained().variables, some(ROWS)
    expected = loss(QUICK, variables, rows)

    def wrong(method, variables, noise, u, given, present):
        F = apply(method, variables, noise, u, given, present)
        return jnp.where(present & ~given, F, 1e6)

    monkeypatch.setattr(MODULE, "apply", wrong)
    np.testing.assert_array_equal(loss(dataclasses.replace(QUICK), variables, rows), expected)


def test_given_values_enter_without_noise(monkeypatch):
    variables, rows = untrained().variables, some(64)

    seen = []

    def record(method, variables, noise, u, given, present):
        jax.debug.callback(lambda *a: seen.append(a), u, given)
        return jnp.zeros_like(u)

    monkeypatch.setattr(MODULE, "apply", record)
    jax.block_until_ready(loss(dataclasses.replace(QUICK), variables, rows[:1]))
    jax.effects_barrier()
    values = np.asarray(
        tokens(variables, PRIOR, *jax.tree.map(lambda a: a[0], (rows.theta, rows.x)))
    )
    for u, given in seen:
        np.testing.assert_array_equal(u[given], values[given])
        assert np.all(u[~given] != values[~given])


def test_a_padded_row_affects_no_other():
    variables, rows = untrained().variables, some(ROWS)
    weight = rows.weight.at[3].set(0.0)
    losses = []
    for value in (0.0, 50.0):
        theta = {**rows.theta, "a": rows.theta["a"].at[3].set(value)}
        changed = jaxsbi.Simulations(theta, rows.x, weight)
        losses.append(np.delete(loss(QUICK, variables, changed), 3))
    np.testing.assert_array_equal(*losses)


def test_an_untrained_posterior_is_the_prior():
    posterior, x = untrained(), data(0.3, 0.2)
    theta = {"a": jnp.array(0.7), "b": jnp.array(-0.2)}
    expected = float(PRIOR.log_prob(theta))
    assert float(posterior.log_prob(theta, x)) == pytest.approx(expected, abs=1e-4)
    both = conditional_log_prob(posterior, {"theta": theta}, {"x": x})
    assert float(both) == pytest.approx(expected, abs=1e-4)
    one = conditional_log_prob(posterior, {"theta": {"a": theta["a"]}}, {"x": x})
    assert float(one) == pytest.approx(scipy.stats.norm(1, 2).logpdf(0.7), abs=1e-4)
    draws = posterior.sample(jax.random.key(1), x, DRAWS)
    assert abs(float(draws["a"].mean()) - 1) < 4 * 2 / DRAWS**0.5
    assert abs(float(draws["b"].std()) - 1) < 4 * (0.5 / DRAWS) ** 0.5


def test_a_new_observation_and_new_variables_trace_nothing():
    sample = draw_program(QUICK)
    before = sample._cache_size(), _log_prob._cache_size()
    for seed in range(2):
        posterior = untrained(seed=seed)
        for value in (0.0, 1.0):
            x = data(value, value)
            posterior.sample(jax.random.key(seed), x, 30)
            posterior.log_prob({"a": jnp.array(value), "b": jnp.array(0.0)}, x)
    after = sample._cache_size(), _log_prob._cache_size()
    assert np.subtract(after, before).max() <= 1


def test_many_questions_are_one_program():
    """Under vmap over keys, observations and what is missing of them."""
    posterior = untrained()
    keys = jax.random.split(jax.random.key(4), 3)
    xs = jax.vmap(data)(jnp.arange(3.0), jnp.arange(3.0))
    observed = {"first": jnp.array([True, False, True]), "rest": jnp.ones((3, 1), bool)}

    def ask(key, x, observed):
        return conditional(key, posterior, {"x": x}, 5, observed=observed)

    many = jax.vmap(ask)(keys, xs, observed)
    assert many["theta"]["a"].shape == (3, 5)
    np.testing.assert_array_equal(np.isnan(many["x"]["first"][:, 0]), [False, True, False])
    one = ask(jax.random.clone(keys)[2], *jax.tree.map(lambda a: a[2], (xs, observed)))
    np.testing.assert_allclose(many["theta"]["a"][2], one["theta"]["a"], atol=1e-5)
    draws = jax.vmap(lambda k, x: posterior.sample(k, x, 5))(jax.random.clone(keys), xs)
    assert draws["b"].shape == (3, 5)


@pytest.mark.slow
@pytest.mark.key_reuse  # refused under vmap over members, also with fmpe; one member passes
def test_an_ensemble_answers_all_questions():
    fitted = jaxsbi.fit(
        jax.random.key(2), QUICK, PRIOR, some(200), max_epochs=1, ensemble=2, progress=False
    )
    posterior = fitted.posterior
    assert posterior.sample(jax.random.key(3), X, 7)["a"].shape == (7,)
    draws = conditional(jax.random.key(4), posterior, {"theta": {"a": 0.5}, "x": X}, 7)
    np.testing.assert_array_equal(draws["theta"]["a"], np.full(7, 0.5, np.float32))
    of = {"theta": {"a": jnp.array(0.5), "b": jnp.array(0.1)}}
    found = conditional_log_prob(posterior, of, {"x": X})
    assert float(found) == pytest.approx(float(posterior.log_prob(of["theta"], X)), abs=1e-3)


def model():
    a = numpyro.sample("a", dist.Normal(1.0, 2.0))
    numpyro.sample("b", dist.Normal(a, 1.0))


def test_a_prior_that_is_a_model_is_conditioned_on_as_a_whole():
    posterior = untrained(prior=jaxsbi.Prior(model))
    draws = conditional(jax.random.key(1), posterior, {"theta": {"a": 0.5, "b": 0.1}}, 5)
    assert draws["x"]["rest"].shape == (5, 1)
    with pytest.raises(ValueError, match=r"expected all of \['a', 'b'\] or none"):
        conditional(jax.random.key(1), posterior, {"theta": {"a": 0.5}}, 5)


def test_another_prior_and_composition_are_refused():
    with pytest.raises(NotImplementedError, match="importance"):
        untrained().with_prior(PRIOR)
    with pytest.raises(TypeError, match="expected a posterior of fmpe or npse"):
        jaxsbi.methods.sample_iid(jax.random.key(7), untrained(), X, 10)


def test_outside_the_support_there_is_no_density():
    prior = jaxsbi.Prior(a=dist.Uniform(-1.0, 1.0), b=dist.Normal(0.0, 1.0))
    posterior, theta = untrained(prior=prior), {"a": jnp.array(1.5), "b": jnp.array(0.0)}
    assert float(posterior.log_prob(theta, X)) == -np.inf
    assert float(conditional_log_prob(posterior, {"theta": theta}, {"x": X})) == -np.inf
    with pytest.raises(ValueError, match="inside the prior's support"):
        conditional(jax.random.key(1), posterior, {"theta": theta}, 5)


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ({"y": 1.0}, {}, ValueError, r'expected only "theta" and "x", got \[\'y\'\]'),
        ({"theta": 1.0}, {}, TypeError, "given: expected a dict such as"),
        ({"theta": {"c": 1.0}}, {}, ValueError, r"expected names among \['a', 'b'\], got \['c'\]"),
        ({"theta": {"a": np.ones(2)}}, {}, ValueError, r"theta\['a'\]: expected shape \(\)"),
        ({"x": data(np.nan, 0.0)}, {}, ValueError, "expected finite numbers"),
        ({"x": np.ones(2)}, {}, TypeError, "expected the structure the simulator returned"),
        ({"x": X}, {"observed": True}, TypeError, "observed: expected booleans in the structure"),
        ({}, {"observed": FIRST}, ValueError, "observed: says which numbers of x count"),
        (
            {"x": X},
            {"observed": {"first": np.ones(2, bool), "rest": np.array(True)}},
            ValueError,
            r"observed\['first'\]: expected booleans that broadcast to \(\)",
        ),
        ({"theta": {"a": 0.0, "b": 0.0}, "x": X}, {}, ValueError, "something left to draw"),
    ],
)
def test_a_bad_question_says_so(given, options, error, message):
    with pytest.raises(error, match=message):
        conditional(jax.random.key(1), untrained(), given, 5, **options)


@pytest.mark.parametrize(
    ("of", "given", "message"),
    [
        ({"theta": {"a": 0.0}}, {"theta": {"a": 0.0}}, r"got \['a'\] on both"),
        ({"x": X}, {"x": X}, "say with observed which numbers are given"),
        ({}, {"x": X}, "at least one number whose density is asked"),
    ],
)
def test_a_bad_density_says_so(of, given, message):
    with pytest.raises(ValueError, match=message):
        conditional_log_prob(untrained(), of, given)


def test_another_road_knows_one_question():
    other = dataclasses.replace(untrained(), method=jaxsbi.npe())
    with pytest.raises(TypeError, match=r"expected one of jaxsbi\.joint\(\).*got one of NPE"):
        conditional(jax.random.key(1), other, {}, 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noises": 0}, ValueError, "noises: expected at least 1"),
        ({"sampler": jaxsbi.fields.ode}, TypeError, "sampler: expected a solver"),
        ({"path": jaxsbi.fields.EDM}, TypeError, "path: expected a path"),
        ({"network": jaxsbi.fields.JointTransformer}, TypeError, "network: expected a field"),
    ],
)
def test_a_bad_option_says_so(options, error, message):
    with pytest.raises(error, match=message):
        jaxsbi.joint(**options)
