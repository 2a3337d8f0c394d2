"""A learned likelihood is sampled where it was trained: where simulations were dropped, it ends."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import samplers, sequential
from jaxsbi.base import configuration, leaf
from jaxsbi.methods import likelihood
from jaxsbi.sequential import proposal as proposal_module

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel
PRIOR = jaxsbi.Prior(theta=dist.Uniform(-2.2, 2.2))
WIDTH = 0.25
X = jnp.zeros(1)


def simulator(key, theta):
    return theta["theta"][None] + WIDTH * jax.random.normal(key, (1,))


@configuration
class Extrapolates:
    """An exact likelihood where there are simulations, and two nats below its peak elsewhere.

    The first round's extrapolation has 0.3 % of the posterior; three quarters of the prior, which
    are dropped after it, would have a quarter.
    """

    target: jaxsbi.Prior | None = leaf(default=None)
    sampler: ClassVar = samplers.smc()

    def init(self, key, prior, simulations):
        theta = simulations.theta["theta"]
        ends = {"low": jnp.min(theta), "high": jnp.max(theta)}
        return {"params": {"nothing": jnp.zeros(())}, "statistics": ends}

    def loss(self, variables, prior, key, batch):
        return jnp.broadcast_to(variables["params"]["nothing"] ** 2, batch.weight.shape)

    def log_likelihood(self, variables, prior, z, x):
        theta, ends = prior.from_latent(z)["theta"], variables["statistics"]
        known = (theta >= ends["low"]) & (theta <= ends["high"])
        return jnp.where(known, -0.5 * ((x[0] - theta) / WIDTH) ** 2, -2.0)

    def with_prior(self, new):
        return dataclasses.replace(self, target=new)

    sample = likelihood.sample
    log_prob = likelihood.log_prob


def run(scheme, **options):
    part = "step" if scheme == "dynamic" else "round"
    sizes = {f"num_{part}s": 3, f"simulations_per_{part}": 700}
    function = getattr(sequential, scheme)
    return function(
        jax.random.key(0), Extrapolates(), PRIOR, simulator, X, progress=False, **sizes, **options
    )


@pytest.mark.parametrize("scheme", ["likelihood", "dynamic", "truncated", "box"])
def test_a_likelihood_ends_where_its_simulations_were_dropped(scheme):
    options = {"region": "box"} if scheme == "box" else {}
    result = run("truncated" if scheme == "box" else scheme, **options)
    assert result.rounds[-1].kept < 0.9 * len(result.simulations)  # something was dropped
    posterior = result.posterior
    theta, info = posterior.sample_with_info(jax.random.key(1), X, 4_000)
    theta = np.asarray(theta["theta"])
    # Of the truth, 1e-12 lies beyond seven widths, as the dropped do.
    assert np.abs(theta).max() < 7 * WIDTH
    # The scatter of the standard deviation of 4,000 draws is 1.1 %, of the sampler's 1.5 times it.
    assert np.std(theta) == pytest.approx(WIDTH, rel=0.07)
    evidence = np.log(WIDTH * np.sqrt(2 * np.pi) / 4.4)
    assert float(info.log_evidence) == pytest.approx(evidence, abs=0.05)
    away = {"theta": jnp.array(2.1)}
    assert posterior.log_prob(away, X) == -jnp.inf
    again = posterior.with_prior(PRIOR)
    assert again.log_prob(away, X) == -jnp.inf
    assert np.abs(again.sample(jax.random.key(2), X, 500)["theta"]).max() < 7 * WIDTH


def test_a_first_round_has_no_end():
    first = run("likelihood").rounds[0].posterior
    low, high = first.prior.low, first.prior.high
    assert np.all(np.isneginf(low))
    assert np.all(np.isposinf(high))
    assert np.isfinite(first.log_prob({"theta": jnp.array(2.1)}, X))


def test_what_is_trained_on_everything_has_no_end(monkeypatch):
    # As if the last posterior were so narrow that next to nothing is kept.
    monkeypatch.setattr(proposal_module, "MIN_KEPT", 10**6)
    result = run("likelihood")
    assert [r.kept for r in result.rounds] == [700, 1400, 2100]
    assert np.all(np.isneginf(result.posterior.prior.low))


def test_an_end_is_of_the_likelihood_not_of_the_prior():
    prior = run("likelihood").posterior.prior
    away = {"theta": jnp.array(2.1)}
    assert prior.log_prob(away) == pytest.approx(-np.log(4.4), rel=1e-6)
    z = prior.to_latent(away)
    assert prior.latent_log_prob(z) == -jnp.inf
    free = dataclasses.replace(prior, low=jnp.full(1, -jnp.inf), high=jnp.full(1, jnp.inf))
    near = prior.to_latent({"theta": jnp.array(0.1)})
    assert prior.latent_log_prob(near) == free.latent_log_prob(near)
    assert np.isfinite(free.latent_log_prob(z))
