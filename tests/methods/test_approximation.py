"""Emulators of an approximation's error: exact where it is, and far better from few runs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec
from jaxsbi.networks import MLP, CosmoPower

PRIOR = jaxsbi.Prior(a=dist.Uniform(-1.0, 1.0), b=dist.Uniform(-1.0, 1.0))
NARROW = jaxsbi.Prior(b=dist.Uniform(-0.7, 0.9), a=dist.Uniform(0.0, 1.0))
PLACES = jnp.linspace(0.0, 1.0, 12)


def exact(theta):
    """Positive numbers, and a wave that turns by some six radians."""
    power = jnp.exp(jnp.sin(3 * PLACES + 2 * theta["a"]) * (1 + theta["b"] ** 2))
    phase = (2 + theta["a"]) ** 2 * PLACES + jnp.sin(4 * theta["b"]) * PLACES**2
    return {"power": power, "wave": jnp.exp(1j * phase) / (1 + PLACES + theta["b"] ** 2)}


def cheap(theta):
    """An approximation of `exact` that is wrong by a fifth, smoothly."""
    x = exact(theta)
    wrong = 0.2 * (theta["a"] + theta["b"] * PLACES)
    return {"power": x["power"] * jnp.exp(wrong), "wave": x["wave"] * jnp.exp(1j * wrong)}


def road(approximation=None, **options):
    forms = {"power": "log", "wave": "amplitude_phase"}
    options = {"network": CosmoPower(hidden=(32, 32)), "components": 5, "exact": True, **options}
    return jaxsbi.emulator(transform=forms, approximation=approximation, **options)


def rows_of(simulator, n, seed, prior=PRIOR):
    theta = jax.vmap(prior.sample)(jax.random.split(jax.random.key(seed), n))
    return jaxsbi.from_arrays(theta, jax.vmap(simulator)(theta))


def fit(method, rows, prior=PRIOR, **options):
    options = {"max_epochs": 1_000, "batch_size": 16, "progress": False, **options}
    return jaxsbi.fit(jax.random.key(0), method, prior, rows, **options)


def of(fitted):
    return functools.partial(jaxsbi.emulate, fitted)


def error(predict, test):
    """Return the relative error, root mean square."""
    found = jax.jit(jax.vmap(predict))(test.theta)
    parts = jax.tree.map(lambda a, b: np.abs(a / b - 1).ravel(), found, test.x)
    return np.sqrt(np.mean(np.concatenate(jax.tree.leaves(parts)) ** 2))


def test_ten_times_better_from_thirty_runs():
    test, few = rows_of(exact, 500, 9), rows_of(exact, 30, 1)
    alone = error(of(fit(road(), few)), test)
    corrected = error(of(fit(road(cheap), few)), test)
    assert corrected < 0.1 * alone
    assert corrected < 0.1 * error(cheap, test)


@pytest.mark.slow
def test_two_stages():
    """A first emulator of many cheap runs, a second of few exact ones under a narrower prior."""
    first = fit(road(), rows_of(cheap, 500, 2), batch_size=64, max_epochs=300)
    test, few = rows_of(exact, 500, 9, NARROW), rows_of(exact, 30, 1, NARROW)
    corrected = error(of(fit(road(first), few, NARROW)), test)
    assert corrected < 0.5 * error(of(fit(road(), few, NARROW)), test)
    assert corrected < 0.25 * error(of(first), test)
    # What is left is what the first one does not know of the cheap runs.
    assert corrected < 1.5 * error(of(first), rows_of(cheap, 500, 9, NARROW))


def test_nothing_is_to_be_learned_of_what_is_right():
    """Not even rounding: parameters go by way of z."""
    test = rows_of(exact, 100, 9)
    fitted = fit(road(exact), rows_of(exact, 20, 1), max_epochs=20)
    assert error(of(fitted), test) < 1e-5
    # And of no error at all: the same numbers, whatever theta is.
    prior = jaxsbi.Prior(a=dist.Normal())
    rows = jaxsbi.from_arrays({"a": jnp.arange(20.0)}, jnp.ones((20, 4)))
    method = jaxsbi.emulator(approximation=lambda theta: jnp.ones(4), exact=True)
    fitted = fit(method, rows, prior, max_epochs=3)
    assert np.all(np.isfinite(fitted.history.train_loss))
    np.testing.assert_array_equal(jax.vmap(of(fitted))(rows.theta), 1.0)


def untrained(method, prior=PRIOR, size=None):
    """Return a posterior of initial variables."""
    if size is not None:
        method = jaxsbi.methods.Ensemble(method=method, size=size)
    rows = rows_of(exact, 20, 1, prior)
    variables = jax.jit(lambda key: method.init(key, prior, rows))(jax.random.key(2))
    return jaxsbi.Posterior(variables, prior, method, DataSpec.of(rows.x, batched=True))


def test_an_emulator_is_the_function_that_emulate_is():
    """Under another prior, and of several members; what is learned is added to it."""
    first, theta = untrained(road(), size=2), rows_of(exact, 10, 3, NARROW).theta
    second = untrained(road(first), NARROW)
    wanted = jax.jit(jax.vmap(of(first)))(theta)
    found = jax.jit(jax.vmap(second.method.approximation))(theta)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)
    plain = dataclasses.replace(second.method, approximation=None)
    learned = jax.jit(
        jax.vmap(lambda t: plain.outputs(second.variables, NARROW, NARROW.to_latent(t)))
    )
    learned = learned(theta)["wave"]
    ratio = jax.jit(jax.vmap(of(second)))(theta)["wave"] / wanted["wave"]
    np.testing.assert_allclose(ratio, jnp.exp(learned[:, 0] + 1j * learned[:, 1]), atol=1e-4)


def test_a_third_stage_and_its_gradient():
    third = untrained(road(untrained(road(cheap))))
    theta = {"a": jnp.array(0.2), "b": jnp.array(-0.3)}

    @jax.jit
    def one(b):
        return jaxsbi.emulate(third, theta | {"b": b})["power"][3]

    slope = jax.jit(jax.grad(one))(theta["b"])
    step = (one(theta["b"] + 1e-2) - one(theta["b"] - 1e-2)) / 2e-2
    np.testing.assert_allclose(slope, step, rtol=1e-2)


def test_noisy_runs():
    """The law of the noise is about the approximation and what was learned of its error."""
    prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))

    def simulator(key, theta):
        return theta["a"] ** 2 + 0.1 * jax.random.normal(key, (5,))

    rows = jaxsbi.simulate(jax.random.key(1), prior, simulator, 300, progress=False)
    noise = jaxsbi.noise.gaussian(0.01 * np.eye(5))
    options = {"network": MLP(8), "components": 3, "noise": noise}
    method = jaxsbi.emulator(approximation=lambda t: t["a"] ** 2 * jnp.ones(5), **options)
    posterior = fit(method, rows, prior, max_epochs=3).posterior
    mean = np.asarray(jaxsbi.emulate(posterior, {"a": jnp.array(1.7)}))
    np.testing.assert_allclose(mean, 1.7**2, atol=0.1)
    found = method.log_likelihood(posterior.variables, prior, jnp.array([1.7]), rows.x[0])
    expected = -50 * np.sum((rows.x[0] - mean) ** 2) - 2.5 * np.log(2 * np.pi * 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_bad_input():
    with pytest.raises(TypeError, match=r"approximation: expected what jaxsbi.fit .*got float"):
        jaxsbi.emulator(approximation=0.3)
    first = untrained(road())
    other = dataclasses.replace(first, method=jaxsbi.npe())
    with pytest.raises(TypeError, match=r"a posterior of NPE, which predicts no data"):
        jaxsbi.emulator(approximation=other)
    few = rows_of(exact, 10, 1)
    with pytest.raises(
        ValueError,
        match=r"expected data sets as .*got \{\['power'\]: float",
    ):
        fit(road(lambda theta: {"power": exact(theta)["power"]}), few)
    named = jaxsbi.Prior(a=dist.Uniform(-1.0, 1.0), c=dist.Uniform(-1.0, 1.0))
    few = rows_of(lambda t: exact({"a": t["a"], "b": t["c"]}), 10, 1, named)
    with pytest.raises(ValueError, match=r"parameters, \['a', 'c'\], got one of \['a', 'b'\]"):
        fit(road(first), few, named)
    wide = jaxsbi.Prior(a=dist.Uniform(-4.0, 4.0), b=dist.Uniform(-1.0, 1.0))
    few = rows_of(exact, 16, 1, wide)
    with pytest.raises(ValueError, match=r"got 12 of 16 outside of it.*as wide"):
        fit(road(first), few, wide)
