"""What an emulator predicts: right, in the simulator's form, under every transformation of JAX."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsbi

THETA = {"tilt": jnp.array(0.3), "log_size": jnp.array(-0.2)}


def test_predictions_are_the_simulators(toy):
    found, error = jax.vmap(lambda t: jaxsbi.emulate_with_error(toy.fitted, t))(toy.test.theta)
    assert jax.tree.structure(found) == jax.tree.structure(toy.test.x)
    true = np.abs(found["one"] / toy.test.x["one"] - 1)
    # 200 runs of a model with two parameters: a small part of a percent.
    assert np.median(true) < 2e-3
    assert np.quantile(true, 0.95) < 2e-2
    # Members disagree about as much as they are wrong, where they are: within a factor of ten.
    scale = np.median(np.abs(found["one"] - toy.test.x["one"])) / np.median(error["one"])
    assert 0.1 < scale < 10
    # And most where they are most wrong.
    wrong = np.abs(found["one"] - toy.test.x["one"]).mean(1)
    rank = [np.argsort(np.argsort(a)) for a in (wrong, error["one"].mean(1))]
    assert np.corrcoef(*rank)[0, 1] > 0.3


def test_gradients_are_the_simulators(toy):
    gradient, true = (
        jax.jacfwd(f)(THETA)["one"]
        for f in (
            lambda t: jaxsbi.emulate(toy.fitted, t),
            lambda t: toy.simulator(jax.random.key(0), t),
        )
    )
    for name in THETA:
        np.testing.assert_allclose(gradient[name], true[name], atol=0.05)
    back = jax.grad(lambda t: jaxsbi.emulate(toy.fitted, t)["one"].sum())(THETA)
    np.testing.assert_allclose(back["tilt"], gradient["tilt"].sum(), rtol=1e-4)


def test_under_jit_it_is_the_same(toy):
    one = jaxsbi.emulate(toy.fitted, THETA)
    other = jax.jit(lambda f, t: jaxsbi.emulate(f, t))(toy.fitted.posterior, THETA)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, other)


def test_one_emulator_has_no_error(toy):
    posterior = toy.fitted.posterior
    single = dataclasses.replace(
        posterior,
        method=posterior.method.method,
        variables=jax.tree.map(lambda a: a[0], posterior.variables),
    )
    assert jaxsbi.emulate(single, THETA)["two"].shape == (5,)
    with pytest.raises(TypeError, match=r"expected an ensemble.*ensemble=5"):
        jaxsbi.emulate_with_error(single, THETA)


def test_other_roads_predict_nothing(toy):
    posterior = dataclasses.replace(toy.fitted.posterior, method=jaxsbi.npe())
    with pytest.raises(TypeError, match=r"jaxsbi.emulator\(...\), got NPE"):
        jaxsbi.emulate(posterior, THETA)
    with pytest.raises(ValueError, match=r"missing \['log_size'\]"):
        jaxsbi.emulate(toy.fitted, {"tilt": 0.1})


def test_the_training_range(toy):
    found = jaxsbi.emulators.training_range(toy.fitted)
    # Nine tenths of the runs are trained on, and the rest validate.
    for name, (low, high) in found.items():
        np.testing.assert_allclose(low, toy.rows.theta[name][:180].min(), atol=1e-4)
        np.testing.assert_allclose(high, toy.rows.theta[name][:180].max(), atol=1e-4)


def test_outside_the_training_range_there_is_a_warning(toy):
    low, high = jaxsbi.emulators.training_range(toy.fitted)["log_size"]
    far = {"tilt": 0.0, "log_size": float(high + 0.5 * (high - low))}
    with pytest.warns(UserWarning, match=r"log_size in 100%, by up to 0.5 widths of its range"):
        jaxsbi.emulate(toy.fitted, far)
    draws = {"tilt": np.zeros(100), "log_size": np.linspace(low, high, 100), "other": np.ones(3)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jaxsbi.emulators.check_range(toy.fitted, draws)["log_size"] < 1e-6


@pytest.mark.rank_promotion  # inside NumPyro's kernel
def test_draws_outside_the_training_range_are_warned_of(toy):
    """An observation at the edge of a normal prior, where no run was."""
    x = toy.simulator(jax.random.key(0), {"tilt": jnp.array(0.3), "log_size": jnp.array(2.5)})
    with pytest.warns(UserWarning, match=r"emulator: asked outside .*log_size"):
        toy.fitted.posterior.sample(jax.random.key(1), x, 200)
