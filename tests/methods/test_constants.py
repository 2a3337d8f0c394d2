"""Numbers that are the same in all simulations say nothing, and cost nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.methods.nle import _measured

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
SIGMA = 0.5
DEAD = 3
DENSITY = jaxsbi.densities.MaskedAutoregressive(layers=2, hidden=16)


def simulator(key, theta):
    seen = theta["theta"] + SIGMA * jax.random.normal(key, ())
    return jnp.concatenate([seen[None], jnp.array([0.0, 7.0, -1e6])])


@pytest.fixture(scope="module", params=[False, True], ids=["one", "iid"])
def fitted(request):
    def simulate(key, theta):
        x = simulator(key, theta)
        return x[None] if request.param else x

    rows = jaxsbi.simulate(jax.random.key(0), PRIOR, simulate, 1_000, progress=False)
    method = jaxsbi.nle(density=DENSITY, iid=request.param)
    return request.param, jaxsbi.fit(
        jax.random.key(1), method, PRIOR, rows, max_epochs=60, progress=False
    )


def test_the_likelihood_is_normalised_over_what_varies(fitted):
    iid, result = fitted
    posterior = result.posterior
    x = np.linspace(-6.0, 7.0, 2_001)
    rows = np.concatenate([x[:, None], np.tile([0.0, 7.0, -1e6], (len(x), 1))], 1)
    rows = jnp.asarray(rows[:, None] if iid else rows, jnp.float32)
    theta = {"theta": jnp.array(0.4)}
    joint = jax.jit(jax.vmap(lambda x: posterior.log_prob(theta, x)))(rows)
    likelihood = np.exp(np.asarray(joint - PRIOR.log_prob(theta), float))
    # The noise in the constants' place is learned to be N(0, 1), by 1,000 simulations.
    assert np.trapezoid(likelihood, x) == pytest.approx(1.0, abs=0.15)


def test_the_posterior_is_the_one_without_them(fitted):
    iid, result = fitted
    x = jnp.array([0.8, 0.0, 7.0, -1e6])
    draws = result.posterior.sample(jax.random.key(2), x[None] if iid else x, 4_000)["theta"]
    # The exact one; 900 simulations fix a regression to a thirtieth of the noise.
    width = (1.0 + 1.0 / SIGMA**2) ** -0.5
    assert abs(float(draws.mean()) - 0.8 / (1.0 + SIGMA**2)) < 0.2 * width
    assert float(draws.std()) == pytest.approx(width, rel=0.12)


def test_no_spike_is_learned(fitted):
    _, result = fitted
    # Entropies of x / std and of three N(0, 1); a spike has a loss without a limit.
    correlation = 1.0 / (1.0 + SIGMA**2)
    entropy = 0.5 * np.log(2 * np.pi * np.e) * (1 + DEAD) + 0.5 * np.log(1.0 - correlation)
    assert result.history.best_loss == pytest.approx(entropy, abs=0.4)


@pytest.mark.parametrize("unit", [1e-23, 1.0, 1e23])
def test_small_and_large_numbers_are_no_constants(unit):
    # Strains are of order 1e-22: their squares are nothing in float32.
    x = np.random.default_rng(0).normal(size=(200, 2))
    rows = jnp.asarray(unit * np.concatenate([x, np.full((200, 1), 3.0)], 1), jnp.float32)
    np.testing.assert_array_equal(
        _measured(rows, jnp.zeros((200, 1)))["constant"], [False, False, True]
    )
