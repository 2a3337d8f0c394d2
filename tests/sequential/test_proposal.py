"""Which of all simulations a round is trained on."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import samplers, sequential
from jaxsbi.base import configuration
from jaxsbi.methods import likelihood
from jaxsbi.recentred import latents
from jaxsbi.sequential import proposal as proposal_module

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
WIDTH = 0.1
X = jnp.zeros(1)


def simulator(key, theta):
    x = theta["theta"][None] + WIDTH * jax.random.normal(key, (1,))
    return jnp.where(theta["theta"] > 1.5, jnp.nan, x)


@configuration
class Exact:
    """The exact likelihood: training changes nothing."""

    target: ClassVar = None
    sampler: ClassVar = samplers.smc()

    def init(self, key, prior, simulations):
        return {"params": {"nothing": jnp.zeros(())}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return jnp.broadcast_to(variables["params"]["nothing"] ** 2, batch.weight.shape)

    def log_likelihood(self, variables, prior, z, x):
        return -0.5 * ((x[0] - prior.from_latent(z)["theta"]) / WIDTH) ** 2

    sample = likelihood.sample
    log_prob = likelihood.log_prob


def run():
    with pytest.warns(UserWarning, match="are not finite"):
        return sequential.likelihood(
            jax.random.key(0), Exact(), PRIOR, simulator, X, num_rounds=2,
            simulations_per_round=700, progress=False,
        )  # fmt: skip


@configuration
class Astray(Exact):
    """The likelihood of x + 3, unless it is trained on both of these places, or at 0 alone."""

    def init(self, key, prior, simulations):
        theta = simulations.theta["theta"]
        both, there = jnp.std(theta) > 1.3, jnp.all(jnp.abs(theta) < 0.9)
        off = jnp.where(both | there, 0.0, 3.0)
        return {**super().init(key, prior, simulations), "statistics": {"off": off}}

    def log_likelihood(self, variables, prior, z, x):
        return super().log_likelihood(variables, prior, z, x + variables["statistics"]["off"])


@configuration
class Quiet(Astray):
    """The same, of simulations that lack the noise."""

    noiseless: ClassVar = True


def run_astray(method, rounds):
    def simulate(key, theta):
        return theta["theta"][None] + WIDTH * jax.random.normal(key, (1,))

    return sequential.likelihood(
        jax.random.key(0), method, PRIOR, simulate, X, num_rounds=rounds, simulations_per_round=700,
        progress=False,
    )  # fmt: skip


def test_a_posterior_that_went_astray_comes_back():
    result = run_astray(Astray(), 3)
    # The second round's are at 3, where nothing looks like the observation: none are dropped.
    assert [r.kept for r in result.rounds[:2]] == [700, 1_400]
    assert float(jnp.mean(result.rounds[1].simulations.theta["theta"])) > 2.5
    # Seen from coordinates in which those of the first round are not far out.
    z = latents(result.rounds[1].posterior.prior, result.rounds[0].simulations.theta)
    assert float(jnp.max(jnp.abs(z))) < 4.0
    for each in result.rounds[1:]:
        draws = each.posterior.sample(jax.random.key(1), X, 1_000)["theta"]
        # Posterior N(0, 0.1): of 1,000 draws, known to 0.003 and 2.2 %.
        assert float(jnp.mean(draws)) == pytest.approx(0.0, abs=0.015)
        assert float(jnp.std(draws)) == pytest.approx(WIDTH, rel=0.1)


def test_simulations_without_noise_are_not_expected_to_look_like_the_observation():
    assert run_astray(Quiet(), 2).rounds[1].kept < 1_000


def test_what_is_far_from_the_posterior_is_dropped():
    first, second = run().rounds
    theta, valid = (np.asarray(first.simulations.theta["theta"]), first.simulations.weight > 0)
    assert first.kept == np.sum(valid) < 700
    # The posterior's width, of 700 draws: known to 2.7 %.
    near, far = (np.sum(np.abs(theta) < reach * 6 * WIDTH) for reach in (0.9, 1.1))
    assert 0 < near <= second.kept - 700 <= far < first.kept


def test_where_next_to_nothing_is_kept_all_that_is_valid_is(monkeypatch):
    monkeypatch.setattr(proposal_module, "MIN_KEPT", 10**6)
    result = run()
    assert [r.kept for r in result.rounds] == [
        result.rounds[0].simulations.num_valid,
        result.simulations.num_valid,
    ]
