"""Sequential Monte Carlo: the exact posterior, the budget, and what is compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import abc
from jaxsbi.abc.smc import _smc

PRIOR = jaxsbi.Prior(mean=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
SMALL = {"num_simulations": 1_000, "particles": 100, "rounds": 5}
OBSERVED = jnp.array([0.5, -0.2])


def normal(key, theta):
    return theta["mean"] + 0.1 * jax.random.normal(key, (2,))


def smc(seed=0, x=OBSERVED, simulator=normal, prior=PRIOR, **options):
    return abc.smc(jax.random.key(seed), prior, simulator, x, **{**SMALL, **options})


@pytest.fixture(scope="module")
def run(ball):
    return abc.smc(
        jax.random.key(0), ball.prior, ball.simulator, ball.x, num_simulations=20_000,
        particles=1_000, distance=ball.metres,
    )  # fmt: skip


def test_the_weighted_particles_are_the_posterior(ball, run):
    draws, info = run
    far = ball.kolmogorov(draws["angle"], ball.posterior(), info.weights)
    assert far < ball.critical / np.sqrt(float(info.ess[-1]))


def test_both_modes_have_half_the_mass(run):
    draws, info = run
    share = float(info.weights @ (draws["angle"] < np.pi / 4))
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(float(info.ess[-1]))


def test_what_is_reported(ball, run):
    draws, info = run
    assert info.tolerance.shape == info.acceptance.shape == info.ess.shape == (10,)
    assert bool(jnp.all(jnp.diff(info.tolerance) <= 0))
    assert bool(jnp.all((info.acceptance > 0) & (info.acceptance <= 1)))
    assert float(info.tolerance[-1]) == float(info.distances[-1])
    assert float(jnp.sum(info.weights)) == pytest.approx(1.0, abs=1e-5)
    assert float(info.ess[-1]) == pytest.approx(1 / float(jnp.sum(info.weights**2)), rel=1e-3)
    assert (int(info.num_simulations), int(info.num_nonfinite)) == (20_000, 0)
    assert float(info.kept_fraction) == pytest.approx(0.05)
    far = jnp.abs(info.x - ball.x)
    np.testing.assert_allclose(far, info.distances, rtol=1e-4, atol=1e-5)
    assert draws["angle"].shape == (1_000,)


def test_a_smaller_tolerance_than_rejection_at_the_same_budget(ball, run):
    plain = abc.rejection(
        jax.random.key(0), ball.prior, ball.simulator, ball.x, num_simulations=20_000, keep=1_000,
        distance=ball.metres,
    )[1]  # fmt: skip
    assert float(run[1].tolerance[-1]) < 0.5 * float(plain.tolerance)


def test_nothing_leaves_the_support():
    prior = jaxsbi.Prior(mean=dist.Uniform(jnp.zeros(2), 1.0).to_event(1))
    draws, info = smc(prior=prior, x=jnp.zeros(2))
    assert bool(jnp.all((draws["mean"] >= 0) & (draws["mean"] <= 1)))
    # Half a normal of width 0.1 beside the bound: mean 0.08, deviation 0.06.
    mean = info.weights @ draws["mean"]
    far = (0.1**2 + float((info.tolerance[-1] * info.distance.scale[0]) ** 2) / 2) ** 0.5
    error = 4 * 0.06 / np.sqrt(float(info.ess[-1]))
    assert bool(jnp.all(mean < far * np.sqrt(2 / np.pi) + error))
    assert bool(jnp.all(mean > 0.08 - error))


def test_every_simulation_is_counted():
    """The budget is what it says, whatever the number of rounds and the size of the chunks."""
    for rounds, chunk in ((1, None), (3, 77)):
        _, info = smc(rounds=rounds, chunk_size=chunk)
        assert int(info.num_simulations) == 1_000
        assert info.tolerance.shape == (rounds,)
    assert bool(jnp.all(jnp.isfinite(info.weights)))


def test_one_round_is_rejection():
    _, info = smc(rounds=1)
    # All particles have the weight of the prior over itself.
    np.testing.assert_allclose(info.weights, 0.01, rtol=1e-5)
    assert info.distances.shape == (100,)
    assert bool(jnp.all(jnp.diff(info.distances) >= 0))


def test_chunks_change_nothing():
    expected, _ = smc()
    draws, _ = smc(chunk_size=60)
    np.testing.assert_allclose(draws["mean"], expected["mean"], rtol=1e-3, atol=1e-4)


def test_nothing_is_traced_again():
    smc()
    before = _smc._cache_size()
    smc(1, jnp.zeros(2))
    smc(2, np.ones(2), quantile=0.3)
    smc(3, prior=jaxsbi.Prior(mean=dist.Normal(jnp.ones(2), 2.0).to_event(1)))
    assert _smc._cache_size() == before


def test_failed_simulations_are_counted_and_never_kept():
    def fails(key, theta):
        return jnp.where(theta["mean"][0] > 0.5, jnp.nan, normal(key, theta))

    with pytest.warns(UserWarning, match="simulations are not finite"):
        draws, info = smc(simulator=fails)
    assert int(info.num_nonfinite) > 0
    assert float(jnp.max(draws["mean"][:, 0])) <= 0.5 + 1e-5
    assert bool(jnp.all(jnp.isfinite(info.weights)))


@pytest.mark.filterwarnings("ignore:smc. the weights")
def test_an_observation_out_of_reach_warns_with_its_distance():
    def bounded(key, theta):
        return jnp.tanh(normal(key, theta))

    with pytest.warns(UserWarning, match=r"outside what was simulated.*distance"):
        smc(x=jnp.array([5.0, 5.0]), simulator=bounded)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"particles": 201}, ValueError, "at most quantile . num_simulations = 200"),
        ({"particles": 0}, ValueError, "particles: expected a positive"),
        ({"rounds": 0}, ValueError, "rounds: expected a positive"),
        ({"num_simulations": 4}, ValueError, "rounds: expected at most"),
        ({"quantile": 0.0}, ValueError, "quantile: expected a number"),
        ({"distance": "euclidean"}, TypeError, "distance: expected a function"),
        ({"distance": lambda x, y: x - y}, ValueError, "distance: expected one number"),
        ({"distance": lambda x, y: x[0] - y[0]}, ValueError, "distance: expected numbers >= 0"),
        ({"x": jnp.zeros(3)}, ValueError, "expected shape"),
        ({"simulator": lambda k, t: normal(k, t) * jnp.nan}, ValueError, "1000 are NaN"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        smc(**options)


def test_legacy_keys_are_refused():
    with pytest.raises(TypeError, match="typed key"):
        abc.smc(jax.random.PRNGKey(0), PRIOR, normal, OBSERVED, **SMALL)
