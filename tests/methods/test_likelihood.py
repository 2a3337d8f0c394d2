"""What the roads with a likelihood share, tested on one that is exact: x ~ N(theta, s²)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec, configuration, leaf
from jaxsbi.methods import likelihood
from jaxsbi.samplers import nuts

# NumPyro's kernel promotes ranks and reuses keys.
pytestmark = [pytest.mark.rank_promotion]

SIGMA = 0.5
DRAWS = 2_000
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
XS = jnp.array([-1.5, 0.2, 2.0])


@configuration
class Exact:
    """A road whose likelihood needs no training."""

    sampler: Any = nuts(chains=40, warmup=60)
    target: jaxsbi.Prior | None = leaf(default=None)

    def init(self, key, prior, simulations):
        return {"params": {}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return jnp.zeros(batch.weight.shape)

    def log_likelihood(self, variables, prior, z, x):
        return jax.scipy.stats.norm.logpdf(x, prior.from_latent(z)["theta"], SIGMA)

    def sample(self, variables, prior, key, x, n):
        return likelihood.sample(self, variables, prior, key, x, n)

    def log_prob(self, variables, prior, theta, x):
        return likelihood.log_prob(self, variables, prior, theta, x)

    def with_prior(self, new):
        return dataclasses.replace(self, target=new)


def make(prior):
    variables = {"params": {}, "statistics": {}}
    return jaxsbi.Posterior(variables, prior, Exact(), DataSpec.of(jnp.zeros(())))


def moments(posterior, x):
    """Return the posterior's mean and width by quadrature of its density."""
    grid = jnp.linspace(-6.0, 6.0, 4_001)
    log_prob = jax.vmap(lambda t: posterior.log_prob({"theta": t}, x))(grid)
    weight = np.exp(np.asarray(log_prob - log_prob.max(), float))
    weight /= weight.sum()
    mean = (weight * grid).sum()
    return mean, np.sqrt((weight * (grid - mean) ** 2).sum())


def agree(draws, mean, width):
    # The effective number of 2,000 draws is above 800: four standard errors are 0.14 of a width,
    # and 0.1 of it for the width itself.
    assert abs(np.mean(draws) - mean) < 0.14 * width
    assert np.std(draws) == pytest.approx(width, rel=0.1)


@pytest.fixture(scope="module")
def many():
    """Draws for several observations in one program."""
    posterior = make(PRIOR)
    keys = jax.random.split(jax.random.key(1), len(XS))
    return jax.vmap(lambda k, x: posterior.sample_with_info(k, x, DRAWS))(keys, XS)


def test_many_observations_in_one_program_have_the_conjugate_posteriors(many):
    draws, info = many
    assert draws["theta"].shape == (len(XS), DRAWS)
    assert info.r_hat.shape == (len(XS), 1)
    for i, x in enumerate(XS):
        agree(draws["theta"][i], 0.8 * float(x), np.sqrt(0.2))
        assert float(info.r_hat[i, 0]) < 1.05
        assert float(info.ess_bulk[i, 0]) > 800


def test_one_observation_alone_gets_the_same_draws(many):
    keys = jax.random.split(jax.random.key(1), len(XS))
    alone = make(PRIOR).sample(keys[1], XS[1], DRAWS)["theta"]
    # The same chains up to rounding, which a long trajectory may enlarge.
    assert np.median(np.abs(alone - many[0]["theta"][1])) < 1e-3


def test_the_density_is_the_joint_one():
    posterior = make(PRIOR)
    for theta in (-1.0, 0.5):
        value = posterior.log_prob({"theta": jnp.array(theta)}, jnp.array(0.3))
        expected = -0.5 * theta**2 - 0.5 * ((0.3 - theta) / SIGMA) ** 2
        expected -= np.log(2 * np.pi * SIGMA)
        assert float(value) == pytest.approx(expected, abs=1e-5)


PRIORS = {
    "a bounded support": dist.Uniform(-0.5, 1.0),
    "no distribution function": dist.VonMises(0.5, 2.0),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:MCMC. R-hat is 1.0")  # short chains, not chains apart
@pytest.mark.parametrize("distribution", PRIORS.values(), ids=PRIORS)
def test_draws_follow_the_density_under_any_prior(distribution):
    posterior, x = make(jaxsbi.Prior(theta=distribution)), jnp.array(0.9)
    draws = posterior.sample(jax.random.key(2), x, DRAWS)["theta"]
    assert np.all(distribution.support(draws))
    agree(draws, *moments(posterior, x))


@pytest.mark.slow
def test_another_prior_needs_no_training():
    new = jaxsbi.Prior(theta=dist.Normal(1.0, 0.5))
    posterior = make(PRIOR).with_prior(new)
    draws = posterior.sample(jax.random.key(3), jnp.array(0.2), DRAWS)["theta"]
    agree(draws, (1.0 / 0.25 + 0.2 / 0.25) / 8.0, np.sqrt(1 / 8.0))


def test_nothing_is_claimed_where_training_never_was():
    """A new prior wider than the old one: the likelihood is unknown outside the old support."""
    narrow = jaxsbi.Prior(theta=dist.Uniform(-1.0, 1.0))
    wide = jaxsbi.Prior(theta=dist.Uniform(-2.0, 2.0))
    # 512 draws: half of them, to 2.2 %.
    with pytest.warns(UserWarning, match=r"(4[3-9]|5[0-7])% .*outside the support.*wider prior"):
        posterior = make(narrow).with_prior(wide)
    x = jnp.array(0.0)
    assert posterior.log_prob({"theta": jnp.array(1.5)}, x) == -jnp.inf
    assert np.isfinite(posterior.log_prob({"theta": jnp.array(0.5)}, x))
    assert posterior.prior is narrow
    # The same support, and one within, are no reason to warn; under jit nothing is known.
    make(narrow).with_prior(narrow)
    make(narrow).with_prior(jaxsbi.Prior(theta=dist.TruncatedNormal(1.0, low=-1.0, high=1.0)))
    moved = jax.jit(lambda prior: make(narrow).with_prior(prior).log_prob({"theta": 0.5}, x))
    assert np.isfinite(moved(wide))


def test_chains_that_disagree_are_warned_of():
    """Two narrow modes far apart, with so few chains that none can cross."""
    posterior = dataclasses.replace(make(PRIOR), method=TwoModes())
    with pytest.warns(UserWarning, match=r"R-hat is .*separated modes"):
        posterior.sample(jax.random.key(0), jnp.array(1.5), 400)


@configuration
class TwoModes(Exact):
    """A likelihood of |theta|."""

    sampler: Any = nuts(chains=10, warmup=20)

    def log_likelihood(self, variables, prior, z, x):
        return jax.scipy.stats.norm.logpdf(x, jnp.abs(z[0]), 0.05)


@pytest.mark.parametrize("road", ["nle", "nre", "emulator"])
@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("nuts", r"got 'nuts'\. Call it: samplers\.nuts\(\)"),
        (jaxsbi.samplers.nuts, r"got nuts\. Call it: samplers\.nuts\(\)"),
        (jaxsbi.samplers.NUTS, r"got NUTS\. Call it: samplers\.NUTS\(\)"),
        (abs, "got abs. It is called as sampler"),
    ],
)
def test_a_sampler_is_looked_at_before_training(road, sampler, message):
    with pytest.raises(TypeError, match=f"sampler: expected .*{message}"):
        getattr(jaxsbi, road)(sampler=sampler)


def test_a_sampler_of_ones_own_is_a_function_of_four():
    def own(key, log_density, dim, n):
        return jax.random.normal(key, (n, dim)), None

    assert jaxsbi.nle(sampler=own).sampler is own
