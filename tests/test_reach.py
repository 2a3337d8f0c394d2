"""Observations beyond the simulations: told of, with a distance; ordinary ones are not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.reach import Reach

PRIOR = jaxsbi.Prior(mu=dist.Normal(0.0, 1.0))


def simulator(key, theta):
    noise = jax.random.normal(key, (2,))
    return {"y": theta["mu"] + 0.1 * noise, "count": jnp.array(3)}


METHODS = {
    "npe": jaxsbi.npe(density=jaxsbi.densities.Gaussian()),
    "nre": jaxsbi.nre(sampler=jaxsbi.samplers.sir()),
    "fmpe": jaxsbi.fmpe(),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_posterior_tells_of_an_observation_beyond_its_simulations(name, key, tmp_path):
    key_simulate, key_fit, *keys = jax.random.split(key, 5)
    simulations = jaxsbi.simulate(key_simulate, PRIOR, simulator, 500)
    fitted = jaxsbi.fit(key_fit, METHODS[name], PRIOR, simulations, max_epochs=1, progress=False)
    far = {"y": jnp.array([0.3, -40.0]), "count": jnp.array(3)}
    with pytest.warns(UserWarning, match=r"observation\['y'\]\[1\]: -40, where simulations are"):
        fitted.posterior.sample(keys[0], far, 10)
    fitted.posterior.sample(keys[1], {"y": jnp.array([0.3, 0.4]), "count": jnp.array(3)}, 10)
    jaxsbi.save(tmp_path / "run", fitted)
    with pytest.warns(UserWarning, match="-40, where"):
        jaxsbi.load(tmp_path / "run").posterior.sample(keys[2], far, 10)


def test_under_jit_nothing_is_looked_at(key):
    key_simulate, key_fit, key_draw = jax.random.split(key, 3)
    simulations = jaxsbi.simulate(key_simulate, PRIOR, simulator, 500)
    posterior = jaxsbi.fit(
        key_fit, METHODS["npe"], PRIOR, simulations, max_epochs=1, progress=False
    ).posterior
    far = {"y": jnp.full((4, 2), 40.0), "count": jnp.full(4, 3)}
    draws = jax.vmap(posterior.sample, (0, 0, None))(jax.random.split(key_draw, 4), far, 10)
    assert draws["mu"].shape == (4, 10)


def test_training_online_and_from_a_store_measure_too(key, tmp_path):
    method, far = METHODS["npe"], {"y": jnp.array([0.3, 40.0]), "count": jnp.array(3)}
    key_online, key_store, key_fit, *keys = jax.random.split(key, 5)
    online = jaxsbi.fit_online(key_online, method, PRIOR, simulator, num_steps=2, progress=False)
    store = jaxsbi.Store.create(tmp_path / "store", key_store, PRIOR, chunk=256)
    store.fill(simulator, 1024, progress=False)
    stored = jaxsbi.fit(key_fit, method, PRIOR, store, max_epochs=1, progress=False)
    for fitted, key_draw in zip((online, stored), keys, strict=True):
        with pytest.warns(UserWarning, match="40, where simulations are"):
            fitted.posterior.sample(key_draw, far, 10)


def test_the_distance_is_that_of_the_farthest_simulation():
    reach = Reach.of(np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 10.0]], np.float32))
    np.testing.assert_allclose(reach.mean, [2.0, 10.0])
    np.testing.assert_allclose(reach.most, [2.0, 1e-4], rtol=1e-6)
    with pytest.warns(UserWarning, match=r"observation\[0\]: 12, .* 2 on average and 5 times clos"):
        reach.warn(np.array([12.0, 10.0]))
    with pytest.warns(UserWarning, match=r"observation\[1\]: 10.5, where"):
        reach.warn(np.array([2.0, 10.5]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reach.warn(np.array([5.9, 10.00001]))


def test_zeros_and_scalars_are_told_of():
    with pytest.warns(UserWarning, match="observation: 1, where .* all the same"):
        Reach.of(np.zeros(5, np.float32)).warn(np.array(1.0))


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint8])
def test_a_bit_that_was_never_set_is_nothing_unusual(dtype):
    reach = Reach.of(np.zeros((50, 3), dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reach.warn(np.ones(3, dtype))
    if dtype is not bool:
        with pytest.warns(UserWarning, match="9, where"):
            reach.warn(np.array([0, 9, 0], dtype))


def test_members_of_a_set_share_their_reach():
    rng = np.random.default_rng(0)
    reach = Reach.of(rng.normal(size=(20, 5, 2)).astype(np.float32), members=True)
    assert reach.mean.shape == (1, 2)
    reach.warn(rng.normal(size=(300, 2)))
    with pytest.warns(UserWarning, match=r"observation\[7, 1\]"):
        reach.warn(np.zeros((9, 2)) + 60.0 * (np.arange(18) == 15).reshape(9, 2))


def test_masks_hide_and_are_not_measured():
    value = np.array([[1.0, 500.0, 7.0], [2.0, -500.0, 7.0], [3.0, 500.0, 7.0]], np.float32)
    mask = np.array([[True, False, False]] * 2 + [[True, True, False]])
    reach = Reach.of({"value": value, "mask": mask})
    np.testing.assert_allclose(reach.mean["value"], [2.0, 500.0, 0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reach.warn({"value": np.array([1.5, -500.0, 9e9]), "mask": np.array([True, False, True])})
    with pytest.warns(UserWarning, match=r"\['value'\]\[1\]: -500"):
        reach.warn({"value": np.array([1.5, -500.0, 0.0]), "mask": np.array([True, True, False])})


LAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "counts": lambda rng, shape: rng.poisson(0.01, size=shape),
}


@pytest.mark.parametrize("law", LAWS)
def test_ordinary_observations_are_not_told_of(law):
    """Of 1,000 observations of 20 numbers none: the tails of these laws end, or fall fast."""
    rng = np.random.default_rng(0)
    reach = Reach.of(LAWS[law](rng, (1_000, 20)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in LAWS[law](rng, (1_000, 20)):
            reach.warn(x)


def test_weights_and_model_comparison_tell_too(key):
    key_simulate, key_fit, key_compare, key_weigh = jax.random.split(key, 4)
    simulations = jaxsbi.simulate(key_simulate, PRIOR, simulator, 500)
    posterior = jaxsbi.fit(
        key_fit, METHODS["npe"], PRIOR, simulations, max_epochs=1, progress=False
    ).posterior
    far = {"y": jnp.array([0.3, 40.0]), "count": jnp.array(3)}
    # The inner one passes on what it does not match.
    with (
        pytest.warns(UserWarning, match="covers the target badly"),
        pytest.warns(UserWarning, match="observation.*40, where simulations are"),
    ):
        jaxsbi.importance(key_weigh, posterior, lambda x, theta: 0.0, PRIOR, far, 100)
    models = {name: (PRIOR, simulator) for name in ("one", "other")}
    found = jaxsbi.compare(key_compare, models, 400, progress=False)
    with pytest.warns(UserWarning, match="observation.*40, where simulations are"):
        found.probabilities(far)
