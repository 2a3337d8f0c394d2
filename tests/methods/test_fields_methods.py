"""FMPE and NPSE against the conjugate Gaussian: theta ~ N(0, 1), x | theta ~ N(theta, 0.5²)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import _log_prob, draw_program
from jaxsbi.importance import _proposal
from jaxsbi.methods import Ensemble
from jaxsbi.sequential.rounds import unmoved

SIGMA = 0.5
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
FIELD = jaxsbi.fields.ResidualField(hidden=32, blocks=2)
METHODS = {
    "fmpe": jaxsbi.fmpe(field=FIELD),
    "npse": jaxsbi.npse(field=FIELD),
    "npse_sde": jaxsbi.npse(
        field=FIELD, path=jaxsbi.fields.VariancePreserving(), sampler=jaxsbi.fields.sde()
    ),
}
# Untrained fields flow along straight lines: one stage per step is exact, and compiles fast.
EULER = jaxsbi.fields.ode(solver="euler", steps=4, density_steps=4)
QUICK = {n: dataclasses.replace(METHODS[n], sampler=EULER) for n in ("fmpe", "npse")}
roads = pytest.mark.parametrize("name", ["fmpe", "npse"])


def simulator(key, theta):
    return theta["theta"][None] + SIGMA * jax.random.normal(key, (1,))


def some(n, seed=1):
    return jaxsbi.simulate(jax.random.key(seed), PRIOR, simulator, n, progress=False)


def loss(method, variables, key, rows):
    return jax.jit(method.loss)(variables, PRIOR, jax.random.key(key), rows)


def untrained(method, key=0):
    simulations = some(50)
    init = jax.jit(lambda key: method.init(key, PRIOR, simulations))
    data = jaxsbi.base.DataSpec.of(simulations.x, batched=True)
    return jaxsbi.Posterior(init(jax.random.key(key)), PRIOR, method, data)


@pytest.fixture(scope="module")
def posteriors():
    made = {}

    def get(name):
        if name not in made:
            made[name] = jaxsbi.fit(
                jax.random.key(2), METHODS[name], PRIOR, some(4_000), max_epochs=40, progress=False
            ).posterior
        return made[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_conjugate_posterior_is_recovered(posteriors, name):
    posterior = posteriors(name)
    # As in test_exact: 0.15 posterior widths allow for training and for 4,000 draws.
    for value in (-1.0, 0.3, 1.2):
        x = jnp.array([value])
        mean, sd = value / (1 + SIGMA**2), SIGMA / (1 + SIGMA**2) ** 0.5
        draws = posterior.sample(jax.random.key(3), x, 4_000)["theta"]
        assert abs(float(draws.mean()) - mean) < 0.15 * sd
        assert abs(float(draws.std()) / sd - 1) < 0.1
    grid = jnp.linspace(-4.0, 4.0, 401)
    density = jax.vmap(lambda t: posterior.log_prob({"theta": t}, x))(grid)
    density = np.exp(np.asarray(density, np.float64))
    assert density.sum() * 0.02 == pytest.approx(1.0, abs=0.02)  # the solver's own error
    truth = np.exp(-0.5 * ((np.asarray(grid) - mean) / sd) ** 2) / sd / np.sqrt(2 * np.pi)
    assert 0.5 * np.abs(density - truth).sum() * 0.02 < 0.08  # total variation


@pytest.mark.slow
def test_independent_observations_compose(posteriors):
    xs = jnp.asarray([[0.1], [0.9], [0.4], [-0.2], [0.6]])
    draws = jaxsbi.methods.sample_iid(jax.random.key(7), posteriors("npse"), xs, 4_000)["theta"]
    precision = 1 + 5 / SIGMA**2
    mean, sd = float(xs.sum()) / SIGMA**2 / precision, precision**-0.5
    # Errors of training add up over five fields: twice the allowance of one observation.
    assert abs(float(draws.mean()) - mean) < 0.3 * sd
    assert abs(float(draws.std()) / sd - 1) < 0.15


def test_independent_observations_of_an_untrained_field_are_the_prior():
    posterior, xs = untrained(QUICK["fmpe"]), jnp.zeros((3, 1))
    draws = jaxsbi.methods.sample_iid(jax.random.key(7), posterior, xs, 4_000)["theta"]
    assert abs(float(draws.std()) - 1) < 4 * (0.5 / 4_000) ** 0.5


def test_rounds_know_one_observation():
    posterior = untrained(QUICK["fmpe"])
    posterior = dataclasses.replace(posterior, prior=unmoved(PRIOR))
    with pytest.raises(ValueError, match="got one of sequential rounds"):
        jaxsbi.methods.sample_iid(jax.random.key(7), posterior, jnp.zeros((3, 1)), 10)


def test_weighed_draws_are_as_exact_as_their_density():
    method = dataclasses.replace(METHODS["npse_sde"], sampler=jaxsbi.fields.sde())
    found = _proposal(jaxsbi.methods.Ensemble(method=method, size=2)).method.sampler
    assert found.steps == found.density_steps == jaxsbi.fields.ode().density_steps
    assert _proposal(jaxsbi.npe()) == jaxsbi.npe()


def test_independent_observations_need_a_field():
    with pytest.raises(TypeError, match="expected a posterior of fmpe or npse"):
        jaxsbi.methods.sample_iid(jax.random.key(7), untrained(jaxsbi.npe()), jnp.zeros((3, 1)), 10)


@pytest.mark.parametrize(
    ("xs", "n", "error", "message"),
    [
        (jnp.array([[0.1], [jnp.nan]]), 10, ValueError, r"xs: expected finite.*\[1\] \(1 in all"),
        (jnp.zeros((3, 1)), 0, ValueError, "n: expected a positive integer, got 0"),
        (jnp.zeros((0, 1)), 10, ValueError, r"one at least.*got shapes \[\(0, 1\)\]"),
        (jnp.zeros(1), 10, ValueError, r"float32\[1\], stacked .*got shapes \[\(1,\)\]. Of one"),
        ([[0.1], [0.2]], 10, TypeError, "got list of another structure.*jnp.stack"),
        (jnp.zeros((3, 1), int), 10, TypeError, "expected dtype float32, got int32"),
    ],
)
def test_independent_observations_are_looked_at(xs, n, error, message):
    with pytest.raises(error, match=message):
        jaxsbi.methods.sample_iid(jax.random.key(7), untrained(QUICK["fmpe"]), xs, n)


@roads
def test_an_untrained_posterior_is_the_prior(name):
    posterior, x = untrained(QUICK[name]), jnp.array([0.3])
    theta = {"theta": jnp.array(0.7)}
    expected = float(PRIOR.log_prob(theta))
    assert float(posterior.log_prob(theta, x)) == pytest.approx(expected, abs=1e-4)
    draws = posterior.sample(jax.random.key(1), x, 4_000)["theta"]
    assert abs(float(draws.mean())) < 4 / 4_000**0.5
    assert abs(float(draws.std()) - 1) < 4 * (0.5 / 4_000) ** 0.5


@roads
def test_a_new_observation_and_new_variables_trace_nothing(name):
    sample = draw_program(QUICK[name])
    before = sample._cache_size(), _log_prob._cache_size()
    for key in range(2):
        posterior = untrained(QUICK[name], key)
        for value in (0.0, 1.0):
            x = jnp.array([value])
            posterior.sample(jax.random.key(key), x, 30)
            posterior.log_prob({"theta": jnp.array(value)}, x)
    after = sample._cache_size(), _log_prob._cache_size()
    assert np.subtract(after, before).max() <= 1


@roads
def test_draws_are_compiled_for_speed_whatever_holds_the_method(name):
    method = QUICK[name]
    held = Ensemble(method=method, size=2), jaxsbi.compression.frozen(method, jnp.sum)
    assert len({draw_program(m) for m in (method, *held)}) == 1
    if jax.default_backend() == "cpu":
        assert draw_program(method) is not draw_program(jaxsbi.npe())


@roads
def test_many_observations_are_one_program(name):
    posterior = untrained(QUICK[name])
    keys, xs = jax.random.split(jax.random.key(4), 3), jnp.linspace(-1.0, 1.0, 3)[:, None]
    many = jax.vmap(lambda k, x: posterior.sample(k, x, 20))(keys, xs)["theta"]
    one = posterior.sample(jax.random.clone(keys)[1], xs[1], 20)["theta"]
    np.testing.assert_allclose(many[1], one, atol=1e-5)


@roads
def test_the_loss_is_the_square_of_the_velocity_or_the_noise(name):
    """An untrained field's error is known: |F|² = |sin z - cos e|², weighted."""
    method, rows = QUICK[name], some(256)
    variables = untrained(method).variables
    losses = loss(method, variables, 5, rows)
    assert losses.shape == (256,)
    t = method.path.training_time((jnp.arange(4_000) + 0.5) / 4_000)
    # z and e are N(0, 1) and independent, so sin z - cos e is too: what is left is the weight.
    expected = float(jnp.mean(method.path.weight(t)))
    error = float(losses.std()) / 16
    assert float(losses.mean()) == pytest.approx(expected, abs=4 * error)


@roads
def test_a_padded_row_affects_no_other(name):
    method, rows = QUICK[name], some(8)
    variables = untrained(method).variables
    weight = rows.weight.at[3].set(0.0)
    losses = []
    for value in (0.0, 50.0):
        theta = {"theta": rows.theta["theta"].at[3].set(value)}
        changed = jaxsbi.Simulations(theta, rows.x, weight)
        losses.append(np.delete(loss(method, variables, 5, changed), 3))
    np.testing.assert_array_equal(*losses)


@roads
def test_one_key_gives_the_same_times_and_noise(name):
    """What makes the validation losses of all epochs comparable."""
    method, rows = QUICK[name], some(8)
    variables = untrained(method).variables
    one, same, other = (loss(method, variables, k, rows) for k in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


@roads
def test_another_prior_is_refused(name):
    with pytest.raises(NotImplementedError, match="importance"):
        untrained(QUICK[name]).with_prior(PRIOR)


@roads
def test_outside_the_support_there_is_no_density(name):
    prior = jaxsbi.Prior(theta=dist.Uniform(-1.0, 1.0))
    posterior = dataclasses.replace(untrained(QUICK[name]), prior=prior)
    x = jnp.array([0.1])
    assert float(posterior.log_prob({"theta": jnp.array(1.5)}, x)) == -np.inf
    draws = posterior.sample(jax.random.key(6), x, 100)["theta"]
    assert np.all(np.abs(draws) <= 1)


@roads
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noises": 0}, ValueError, "noises: expected at least 1"),
        ({"sampler": jaxsbi.fields.ode}, TypeError, "sampler: expected a solver"),
        ({"sampler": jaxsbi.samplers.nuts()}, TypeError, "sampler: expected a solver"),
        ({"path": jaxsbi.fields.EDM}, TypeError, "path: expected a path"),
    ],
)
def test_a_bad_option_says_so(name, options, error, message):
    with pytest.raises(error, match=message):
        getattr(jaxsbi, name)(**options)
