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


def quiet(reach, *observations):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in observations:
            reach.warn(x)


def test_the_distance_is_that_of_the_farthest_simulation():
    first = np.linspace(0.25, 4.25, 41, dtype=np.float32)
    reach = Reach.of(np.stack([np.append(first, 2.25), np.full(42, 10.0, np.float32)], 1))
    np.testing.assert_allclose(reach.mean, [2.1, 10.0], rtol=1e-6)
    np.testing.assert_allclose(reach.most, [1.85, 1e-4], rtol=1e-6)
    with pytest.warns(
        UserWarning, match=r"observation\[0\]: 12, .* average and at least 5\.35 times"
    ):
        reach.warn(np.array([12.0, 10.0]))
    with pytest.warns(UserWarning, match=r"observation\[1\]: 10.5, where"):
        reach.warn(np.array([2.0, 10.5]))
    quiet(reach, np.array([5.9, 10.00001]))


def test_simulations_that_differ_from_others_make_it_careful():
    """The last lies farther from the mean than the others: so may observed data, and twice that."""
    x = np.linspace(-1.01, 1.0, 20, dtype=np.float32)
    x[-1] = 4.0
    reach = Reach.of(x)
    quiet(reach, np.array(7.0))
    with pytest.warns(UserWarning, match="9, where"):
        reach.warn(np.array(9.0))


def test_scalars_are_told_of():
    with pytest.warns(UserWarning, match="observation: 1, where simulations are 0.5 "):
        Reach.of(np.full(5, 0.5, np.float32)).warn(np.array(1.0))


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_numbers_that_hardly_ever_change_are_ordinary(unit):
    x = np.full((20, 4), 0.5 * unit, np.float32)
    x[:, 3] = np.arange(20) / 16
    observed = np.array([0.5 * unit, 0.5 * unit, 0.7 * unit, 0.0])
    with pytest.warns(UserWarning, match=r"observation\[2\]: 0?\.?7"):
        Reach.of(x).warn(observed)
    x[-1, 0] = 0.9 * unit
    quiet(Reach.of(x), observed)
    with pytest.warns(UserWarning, match=r"observation\[3\]: 9"):
        Reach.of(x).warn(observed + np.array([0.0, 0.0, 0.0, 9.0]))


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint8, np.float32])
def test_a_bit_that_was_never_set_is_nothing_unusual(dtype):
    reach = Reach.of(np.zeros((50, 3), dtype))
    quiet(reach, np.ones(3, dtype))
    if dtype is not bool:
        with pytest.warns(UserWarning, match="9, where"):
            reach.warn(np.array([0, 9, 0], dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_precision_is_measured_in_that_of_the_posterior(dtype, masked):
    value = np.asarray(jnp.linspace(0.25, 1.0, 60).reshape(20, 3).astype("float32"))
    value = np.asarray(jnp.asarray(value, dtype)) if dtype == "bfloat16" else value.astype(dtype)
    x = {"value": value} | ({"mask": np.ones((20, 3), bool)} if masked else {})
    reach = Reach.of(x)
    assert reach.most["value"].dtype == np.float32  # what JAX makes of doubles here
    assert np.all(np.isfinite(reach.most["value"]))
    quiet(reach, jax.tree.map(lambda a: a[7], x))


def test_members_of_a_set_share_their_reach():
    rng = np.random.default_rng(0)
    reach = Reach.of(rng.normal(size=(20, 5, 2)).astype(np.float32), members=True)
    assert reach.mean.shape == (1, 2)
    reach.warn(rng.normal(size=(300, 2)))
    with pytest.warns(UserWarning, match=r"observation\[7, 1\]"):
        reach.warn(np.zeros((9, 2)) + 60.0 * (np.arange(18) == 15).reshape(9, 2))


def test_masks_hide_and_are_not_measured():
    value = np.array([[1.5, 500.0, 7.0], [2.0, -9e9, 7.0], [2.5, 500.5, 7.0], [2.0, 500.0, 7.0]])
    mask = np.array([[True, True, False], [True, False, False]] + [[True, True, False]] * 2)
    reach = Reach.of({"value": value.astype(np.float32), "mask": mask})
    np.testing.assert_allclose(reach.mean["value"], [2.0, 500.25, 0.0])
    quiet(reach, {"value": np.array([1.5, -5e9, 9e9]), "mask": np.array([True, False, True])})
    with pytest.warns(UserWarning, match=r"\['value'\]\[1\]: -500"):
        reach.warn({"value": np.array([1.5, -500.0, 0.0]), "mask": np.array([True, True, False])})


LAWS = {
    "lognormal": lambda rng, shape: np.exp(rng.normal(size=shape)),
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "counts": lambda rng, shape: rng.poisson(0.01, size=shape),
}


@pytest.mark.parametrize("law", [law for law in LAWS if law != "lognormal"])
def test_ordinary_observations_are_not_told_of(law):
    """Of 1,000 observations of 20 numbers none; below, many more numbers of few simulations."""
    rng = np.random.default_rng(0)
    quiet(Reach.of(LAWS[law](rng, (1_000, 20))), *LAWS[law](rng, (1_000, 20)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("n", "size"), [(1_000, 20_000), (200, 1_000)])
def test_wide_ordinary_observations_are_not_told_of(law, n, size):
    rng = np.random.default_rng(1)
    quiet(Reach.of(LAWS[law](rng, (n, size))), *LAWS[law](rng, (50, size)))


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


def test_sets_of_observations_and_conditionals_tell_too(key):
    key_simulate, key_fit, key_joint, *keys = jax.random.split(key, 6)
    simulations = jaxsbi.simulate(key_simulate, PRIOR, simulator, 500)
    options = {"max_epochs": 1, "progress": False}
    several = jax.tree.map(lambda a: a[:4], simulations.x)
    several["y"] = several["y"].at[2, 1].set(40.0)
    posterior = jaxsbi.fit(key_fit, METHODS["fmpe"], PRIOR, simulations, **options).posterior
    with pytest.warns(UserWarning, match=r"\['y'\]\[2, 1\]: 40, where"):
        jaxsbi.methods.sample_iid(keys[0], posterior, several, 10)
    network = jaxsbi.fields.JointTransformer(width=8, layers=1, heads=1)
    joint = jaxsbi.joint(network=network, sampler=jaxsbi.fields.ode(solver="euler", steps=2))
    posterior = jaxsbi.fit(key_joint, joint, PRIOR, simulations, **options).posterior
    far = {"y": jnp.array([0.3, 40.0]), "count": jnp.array(3)}
    with pytest.warns(UserWarning, match=r"\['y'\]\[1\]: 40, where"):
        jaxsbi.methods.conditional(keys[1], posterior, {"x": far}, 10)
    seen = {"y": jnp.array([True, False]), "count": jnp.array(True)}
    jaxsbi.methods.conditional(keys[2], posterior, {"x": far}, 10, observed=seen)


def test_doubles_of_numpy_are_saved_and_loaded(key, tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2))
    rows = jaxsbi.Simulations({"mu": jnp.asarray(x[:, 0])}, x, jnp.ones(100))
    fitted = jaxsbi.fit(key, METHODS["npe"], PRIOR, rows, max_epochs=1, progress=False)
    jaxsbi.save(tmp_path / "run", fitted)
    jaxsbi.load(tmp_path / "run")


def test_complex_numbers_are_measured_by_their_amplitude():
    phase = np.exp(1j * np.arange(40.0))
    reach = Reach.of((phase * np.linspace(1.0, 2.0, 40)).astype(np.complex64))
    quiet(reach, np.array(-1.9j))
    with pytest.warns(UserWarning, match="observation: 9, where"):
        reach.warn(np.array(9.0 + 0.0j))


def test_emulators_of_noiseless_runs_are_not_compared():
    known = jaxsbi.emulator(noise=jaxsbi.noise.gaussian(0.1 * np.eye(2)))
    assert known.noiseless
    assert not jaxsbi.emulator().noiseless
