"""Could the simulator have made the observation? Exact p-values under the null, power elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi import diagnostics
from jaxsbi.base import DataSpec
from jaxsbi.diagnostics.misspecification import _statistics

PRIOR = jaxsbi.Prior(mean=dist.Normal(0.0, 1.0))


def simulator(key, theta):
    """Two nearly equal numbers and a constant."""
    noise = jax.random.normal(key, (2,))
    return {"y": theta["mean"] + jnp.stack([noise[0], noise[0] + 0.1 * noise[1]]), "k": jnp.ones(1)}


def simulate(seed=0, n=1000):
    return jaxsbi.simulate(jax.random.key(seed), PRIOR, simulator, n, progress=False)


def observe(*y, constant=1.0):
    return {"y": jnp.array(y), "k": jnp.array([constant])}


def run(x, seed=0, simulations=None, **options):
    simulations = simulate() if simulations is None else simulations
    return diagnostics.misspecification(jax.random.key(seed), simulations, x, **options)


@pytest.mark.parametrize("several", [1, 5])
def test_p_values_are_uniform_under_the_null(several):
    p_values = []
    for seed in range(100):
        simulations, fresh = simulate(seed, 400), simulate(1000 + seed, several).x
        x = fresh if several > 1 else jax.tree.map(lambda a: a[0], fresh)
        found = run(x, seed, simulations, several=several > 1)
        p_values.append((found.mmd_p_value, found.density_p_value))
    # Multiples of 1 / (1 + sets), spread within their step.
    step = 1.0 / (1 + 200 // several)
    spread = np.array(p_values) - np.random.default_rng(0).uniform(0, step, (100, 2))
    for column in spread.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    "x",
    [observe(8.0, 8.0), observe(1.0, -1.0), observe(0.0, 0.0, constant=2.0)],
    ids=["far away", "broken correlation", "another constant"],
)
def test_data_that_were_never_simulated_fail(x):
    found = run(x)
    assert found.mmd_p_value == found.density_p_value == pytest.approx(1 / 501)
    assert found.p_value == pytest.approx(2 / 501)
    assert "FAILS" in found.verdict
    assert "what the summary throws away" in found.verdict


def test_data_of_their_kind_pass():
    found = run(observe(0.5, 0.45))
    assert found.p_value > 0.1
    assert "passes" in found.verdict


def test_several_observations_find_what_one_does_not():
    # Each a plausible draw, but with the prior's spread missing: their sum is too good.
    x = {"y": jnp.zeros((20, 2)), "k": jnp.ones((20, 1))}
    assert run(observe(0.0, 0.0)).mmd_p_value > 0.05
    found = run(x, simulations=simulate(n=4000), several=True)
    assert found.mmd_null.shape == (100,)
    assert found.mmd_p_value == pytest.approx(1 / 101)


def test_the_summary_of_a_frozen_road_is_what_it_reads():
    def first(x):
        return x["y"][:1]

    x, simulations = observe(1.0, -1.0), simulate()
    method = jaxsbi.compression.frozen(jaxsbi.npe(), first)
    posterior = jaxsbi.Posterior({}, PRIOR, method, DataSpec.of(x))
    found = run(x, simulations=simulations, summary=posterior)
    jax.tree.map(
        np.testing.assert_array_equal, found, run(x, simulations=simulations, summary=first)
    )


def test_a_summary_sees_what_it_keeps_only():
    x = observe(1.0, -1.0)
    assert run(x, summary=lambda x: x["y"][0]).p_value > 0.05
    assert run(x, summary=lambda x: x["y"][0] - x["y"][1]).p_value < 0.01


def test_the_summary_network_of_a_posterior_is_read():
    method = jaxsbi.npe(
        density=jaxsbi.densities.Gaussian(hidden=8), summary=jaxsbi.networks.MLP(8, out=2)
    )
    simulations = simulate()
    variables = method.init(jax.random.key(1), PRIOR, simulations)
    spec = jaxsbi.base.DataSpec.of(simulations.x, batched=True)
    posterior = jaxsbi.Posterior(variables, PRIOR, method, spec)
    found = run(observe(30.0, 30.0), summary=posterior)
    assert found.mmd_p_value < 0.01
    plain = jaxsbi.Posterior(variables, PRIOR, jaxsbi.npe(), spec)
    with pytest.raises(ValueError, match="with a summary network, got NPE"):
        run(observe(0.0, 0.0), summary=plain)


def test_the_density_of_neighbours_is_the_exact_one_up_to_a_constant():
    base = jax.random.normal(jax.random.key(0), (2000, 2))
    points = jnp.array([[[0.0, 0.0]], [[1.0, 0.0]], [[1.5, 1.5]]])
    density = np.asarray(_statistics(base, points)[1])
    exact = -0.5 * np.sum(np.asarray(points) ** 2, (1, 2))
    # Relative scatter of a density by ten neighbours: 1 / √10.
    np.testing.assert_allclose(density - density[0], exact - exact[0], atol=3 * 0.45)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="expected at least 200 for 1 observed data sets, got 50"):
        run(observe(0.0, 0.0), simulations=simulate(n=50))
    with pytest.raises(ValueError, match="expected shape"):
        run(observe(0.0))
    with pytest.raises(ValueError, match="one leading axis"):
        run({"y": jnp.zeros((3, 2)), "k": jnp.ones((2, 1))}, several=True)
    with pytest.raises(ValueError, match="expected finite numbers"):
        run(observe(0.0, 0.0), summary=lambda x: jnp.log(x["y"] - 1e6))
    with pytest.raises(ValueError, match="the same in all of them"):
        run(observe(0.0, 0.0), summary=lambda x: x["k"])
    with pytest.raises(TypeError, match="typed key"):
        diagnostics.misspecification(jax.random.PRNGKey(0), simulate(), observe(0.0, 0.0))
