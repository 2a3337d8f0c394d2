"""Simulation in chunks: reproducible, any pytree, and nothing non-finite unnoticed."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

PRIOR = jaxsbi.Prior(
    shift=dist.Normal(jnp.zeros(2), 1.0).to_event(1), width=dist.LogNormal(0.0, 0.5)
)


def simulator(key, theta):
    """Return two arrays, one of them of integers, by elementwise operations only."""
    noise = jax.random.normal(key, (3, 2))
    points = theta["shift"][None] + theta["width"] * noise
    return {"points": points, "count": jnp.sum(points > 0)}


def echo(key, theta):
    return theta


def half_invalid(key, theta):
    return jnp.where(theta["shift"][0] > 0, jnp.nan, theta["shift"])


def simulate(simulator, n=20, seed=1, **options):
    options = {"progress": False, **options}
    return jaxsbi.simulate(jax.random.key(seed), PRIOR, simulator, n, **options)


@pytest.fixture(scope="module")
def whole():
    return simulate(simulator, 70)


def test_shapes_names_and_weights(whole):
    assert len(whole) == whole.num_valid == 70
    assert {name: a.shape for name, a in whole.theta.items()} == {"shift": (70, 2), "width": (70,)}
    assert whole.x["points"].shape == (70, 3, 2)
    assert whole.x["count"].shape == (70,)
    assert jnp.issubdtype(whole.x["count"].dtype, jnp.integer)
    np.testing.assert_array_equal(whole.weight, np.ones(70))


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 70, 1_000])
def test_chunks_do_not_change_the_simulations(whole, chunk_size):
    again = simulate(simulator, 70, chunk_size=chunk_size)
    assert jax.tree.structure(again) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_key_is_a_reproducible_source(whole):
    jax.tree.map(np.testing.assert_array_equal, simulate(simulator, 70), whole)
    other = simulate(simulator, 70, seed=2)
    assert not np.any(other.theta["width"] == whole.theta["width"])


def test_draws_are_independent_and_each_x_belongs_to_its_theta(whole):
    assert np.unique(whole.theta["width"]).size == 70
    assert np.unique(whole.x["points"]).size == 70 * 6
    simulations = simulate(echo)
    jax.tree.map(np.testing.assert_array_equal, simulations.x, simulations.theta)


def test_theta_follows_the_prior():
    theta = simulate(echo, 2_000).theta
    # Four standard errors: 1 / sqrt(2000) = 0.022 of a mean, 0.016 of a standard deviation.
    np.testing.assert_allclose(theta["shift"].mean(0), 0.0, atol=0.09)
    np.testing.assert_allclose(theta["shift"].std(0), 1.0, atol=0.064)
    np.testing.assert_allclose(jnp.log(theta["width"]).mean(), 0.0, atol=0.045)


def test_some_invalid_simulations_are_counted_reported_and_flagged():
    with pytest.warns(UserWarning, match=r"half_invalid: \d+ of 50 simulations are not") as caught:
        simulations = simulate(half_invalid, 50)
    invalid = np.asarray(simulations.theta["shift"][:, 0] > 0)
    assert 0 < invalid.sum() < 50
    np.testing.assert_array_equal(simulations.weight, np.where(invalid, 0.0, 1.0))
    assert simulations.num_valid == 50 - invalid.sum()
    assert f"{invalid.sum()} of 50" in str(caught[0].message)
    # The parameters stay, so that one can see where the simulator fails.
    assert np.all(np.isfinite(simulations.theta["shift"]))


def test_the_invalid_do_not_depend_on_the_chunks():
    with pytest.warns(UserWarning, match="are not finite"):
        one = simulate(half_invalid, 50)
    with pytest.warns(UserWarning, match="are not finite"):
        other = simulate(half_invalid, 50, chunk_size=7)
    np.testing.assert_array_equal(one.weight, other.weight)


def test_infinity_is_invalid_too():
    with pytest.warns(UserWarning, match="are not finite"):
        simulations = simulate(lambda key, theta: 1.0 / jnp.maximum(theta["shift"][0], 0.0))
    assert 0 < simulations.num_valid < 20


def test_only_invalid_simulations_are_an_error():
    with pytest.raises(ValueError, match=r"all 20 simulations.*outside jit"):
        simulate(lambda key, theta: jnp.nan * theta["width"])


def no_data(key, theta):
    return None


def text(key, theta):
    return "data"


def ragged(key, theta):
    return jnp.zeros(int(theta["width"]))


def traced_shape(key, theta):
    return jnp.zeros(theta["width"].astype(int))


def masked(key, theta):
    return theta["shift"][theta["shift"] > 0]


def branching(key, theta):
    return theta["shift"] if theta["width"] > 1 else -theta["shift"]


def numpy_call(key, theta):
    return np.sin(theta["shift"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (no_data, "simulator: expected a pytree of arrays, got None.*return its data"),
        (text, "simulator: expected a pytree of arrays.*str"),
        (ragged, "simulator: expected a JAX function whose shapes.*jnp.where"),
        (traced_shape, "simulator: expected a JAX function whose shapes.*jnp.where"),
        (masked, "simulator: expected a JAX function whose shapes.*jnp.where"),
        (branching, "simulator: expected a JAX function whose shapes.*jax.lax.cond"),
        (numpy_call, "simulator: expected a JAX function.*NumPy"),
    ],
)
def test_what_is_no_simulator_is_told_so(wrong, message):
    with pytest.raises(TypeError, match=f"(?s){message}"):
        simulate(wrong)


def test_the_simulators_own_error_is_kept():
    def broken(key, theta):
        return theta["wdith"]

    with pytest.raises(KeyError, match="wdith"):
        simulate(broken)


@pytest.mark.parametrize("n", [0, -3, 2.5, "10"])
def test_n_must_be_a_positive_integer(n):
    with pytest.raises(ValueError, match=r"n: expected a positive integer, got"):
        simulate(echo, n)


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_chunk_size_must_be_positive(chunk_size):
    with pytest.raises(ValueError, match=r"chunk_size: expected a positive integer, got"):
        simulate(echo, chunk_size=chunk_size)


def test_a_legacy_key_is_refused():
    with pytest.raises(TypeError, match=r"jax.random.key\(seed\).*uint32"):
        jaxsbi.simulate(jax.random.PRNGKey(0), PRIOR, echo, 10)


def test_one_simulator_is_compiled_once():
    chunk = importlib.import_module("jaxsbi.simulate")._simulate_chunk
    before = chunk._cache_size()
    simulate(simulator, 5, seed=3)
    simulate(simulator, 5, seed=4)
    other_values = jaxsbi.Prior(
        shift=dist.Normal(jnp.ones(2), 3.0).to_event(1), width=dist.LogNormal(1.0, 0.1)
    )
    jaxsbi.simulate(jax.random.key(5), other_values, simulator, 5, progress=False)
    assert chunk._cache_size() == before + 1


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_when_wanted(progress, capsys):
    simulate(echo, 20, progress=progress)
    assert ("simulate" in capsys.readouterr().err) == progress
