"""Information against exact answers: theta ~ N(0, 1), x_1, x_2 ~ N(theta, noise²)."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec, Simulations, configuration
from jaxsbi.diagnostics import information_lost, mutual_information

module = importlib.import_module("jaxsbi.diagnostics.information")
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
N = 4000
LOST = 0.5 * np.log(1.5)


def simulator(key, theta):
    return theta["theta"] + jax.random.normal(key, (2,))


def simulations(n=N, seed=0):
    return jaxsbi.simulate(jax.random.key(seed), PRIOR, simulator, n, progress=False)


@configuration
class Exact:
    """The exact posterior of the first `reads` numbers of unit noise; training changes nothing."""

    reads: int = 2

    def init(self, key, prior, simulations):
        return {"params": {}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return jnp.zeros_like(batch.weight)

    def sample(self, variables, prior, key, x, n):
        raise NotImplementedError

    def log_prob(self, variables, prior, theta, x):
        noise = variables["noise"]
        precision = 1.0 + self.reads / noise**2
        mean = jnp.sum(x[: self.reads]) / noise**2 / precision
        return jax.scipy.stats.norm.logpdf(theta["theta"], mean, precision**-0.5)


@configuration
class Ratio(Exact):
    """The exact likelihood, less a function of x, in the place of a learned one."""

    target: object = None

    def log_likelihood(self, variables, prior, z, x):
        theta = prior.from_latent(z)["theta"]
        density = jax.scipy.stats.norm.logpdf(x[: self.reads], theta, variables["noise"])
        return jnp.sum(density) - 3.0 * x[0] ** 2

    def log_prob(self, variables, prior, theta, x):
        return prior.log_prob(theta) + self.log_likelihood(
            variables, prior, prior.to_latent(theta), x
        )


def posterior(method, noise=1.0, size=2):
    return jaxsbi.Posterior(
        {"noise": jnp.asarray(noise)}, PRIOR, method, DataSpec.of(jnp.ones(size))
    )


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_the_gaussian_information_is_found(noise):
    # One number: the correlation is rho² = 1 / (1 + noise²).
    def simulator(key, theta):
        return (theta["theta"] + noise * jax.random.normal(key))[None]

    simulations = jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, N, progress=False)
    found = mutual_information(jax.random.key(1), posterior(Exact(reads=1), noise, 1), simulations)
    rho2 = 1 / (1 + noise**2)
    # The terms of the exact posterior have the variance rho².
    assert found.error == pytest.approx((rho2 / N) ** 0.5, rel=0.1)
    assert abs(found.value - -0.5 * np.log(1 - rho2)) < 4 * found.error
    assert found.limit == np.inf


def test_a_wrong_posterior_knows_less_by_its_divergence():
    right, wrong = posterior(Exact()), posterior(Exact(), noise=0.7)
    lost = information_lost(jax.random.key(1), right, wrong, simulations())
    # Both are Gaussian: the mean of KL(p ‖ q) over x_1 + x_2 ~ N(0, 6).
    v, w = 1 / 3, 1 / (1 + 2 / 0.49)
    shift = (w / 0.49 - v) ** 2 * 6
    assert abs(lost.value - 0.5 * (v / w - 1 - np.log(v / w) + shift / w)) < 4 * lost.error


@pytest.mark.parametrize("method", [Exact, Ratio])
def test_a_summary_loses_what_it_should(method):
    rows = simulations(N if method is Exact else 2000)
    full, part = posterior(method()), posterior(method(reads=1))
    information = mutual_information(jax.random.key(1), full, rows)
    # InfoNCE falls short by the variance of the mean over 1024 likelihoods, about 0.001 here.
    assert abs(information.value - 0.5 * np.log(3)) < 4 * information.error + 0.002
    lost = information_lost(jax.random.key(2), full, part, rows)
    assert abs(lost.value - LOST) < 4 * lost.error + 0.002
    # Paired: the variance of the terms is 1 - exp(-2 lost) = 1/3, not 2/3 + 1/2.
    assert lost.error == pytest.approx((1 / 3 / len(rows)) ** 0.5, rel=0.1)
    alone = posterior(method(reads=1), size=1)
    again = information_lost(jax.random.key(2), full, alone, rows, summary=lambda x: x[:1])
    assert again.value == pytest.approx(lost.value, abs=1e-4)


def test_a_trained_posterior_bounds_the_information():
    method = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8))
    training = simulations(2000, seed=5)
    fitted = jaxsbi.fit(jax.random.key(2), method, PRIOR, training, max_epochs=10, progress=False)
    found = mutual_information(jax.random.key(1), fitted.posterior, simulations())
    assert abs(found.value - 0.5 * np.log(3)) < 4 * found.error


def test_a_contrastive_bound_near_its_limit_is_said_so():
    def simulator(key, theta):
        return (theta["theta"] + 1e-3 * jax.random.normal(key))[None]

    rows = jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 100, progress=False)
    with pytest.warns(UserWarning, match=r"close to the 6\.93 that it cannot exceed"):
        found = mutual_information(jax.random.key(1), posterior(Ratio(reads=1), 1e-3, 1), rows)
    assert found.value < found.limit


@pytest.mark.parametrize("method", [Exact(), Ratio()])
def test_new_values_are_not_traced_again(method):
    program = module._contrastive if isinstance(method, Ratio) else module._direct
    rows = simulations(20)
    mutual_information(jax.random.key(1), posterior(method), rows)
    size = program._cache_size()
    mutual_information(jax.random.key(2), posterior(method, noise=1.1), simulations(20, seed=1))
    assert program._cache_size() == size


def test_invalid_rows_are_left_out():
    rows = simulations(100)
    x = jnp.concatenate([rows.x, jnp.full((10, 2), jnp.nan)])
    theta = {"theta": jnp.concatenate([rows.theta["theta"], jnp.zeros(10)])}
    weight = jnp.concatenate([rows.weight, jnp.zeros(10)])
    key = jax.random.key(1)
    found = mutual_information(key, posterior(Exact()), Simulations(theta, x, weight))
    assert found.value == pytest.approx(mutual_information(key, posterior(Exact()), rows).value)


def test_errors_say_how_to_mend_them():
    key, rows = jax.random.key(0), simulations(10)
    with pytest.raises(TypeError, match="expected a posterior, got Exact"):
        mutual_information(key, Exact(), rows)
    with pytest.raises(TypeError, match="typed key"):
        mutual_information(jax.random.PRNGKey(0), posterior(Exact()), rows)
    with pytest.raises(ValueError, match="at least 2 of positive weight, got 1"):
        mutual_information(key, posterior(Exact()), rows[:1])
    with pytest.raises(ValueError, match=r"summarized: expected a finite density.*at 10 of 10"):
        information_lost(key, posterior(Exact()), posterior(Exact(), noise=jnp.nan), rows)
