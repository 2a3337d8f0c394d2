"""Every road against the conjugate Gaussian: theta ~ N(0, 1), x | theta ~ N(theta, 0.5²)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import ONCE_OPTIONS

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel

SIGMA = 0.5
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
METHODS = {
    "npe": jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16)),
    "npe_flow": jaxsbi.npe(density=jaxsbi.densities.SplineCoupling(layers=2, hidden=16)),
    "nle": jaxsbi.nle(density=jaxsbi.densities.MaskedAutoregressive(layers=2, hidden=16)),
    "nre": jaxsbi.nre(classifier=jaxsbi.networks.ResNet(hidden=32)),
    "emulator": jaxsbi.emulator(
        network=jaxsbi.networks.MLP(16), noise=jaxsbi.noise.gaussian(jnp.array([SIGMA**2]))
    ),
    "emulator_estimated": jaxsbi.emulator(network=jaxsbi.networks.MLP(16)),
}


def simulator(key, theta):
    return theta["theta"][None] + SIGMA * jax.random.normal(key, (1,))


def exact(x: float, prior_mean: float = 0.0, prior_sd: float = 1.0) -> tuple[float, float]:
    precision = 1 / prior_sd**2 + 1 / SIGMA**2
    return (prior_mean / prior_sd**2 + x / SIGMA**2) / precision, precision**-0.5


@pytest.fixture(scope="module")
def posteriors():
    simulations = jaxsbi.simulate(jax.random.key(1), PRIOR, simulator, 4000, progress=False)
    made: dict[str, jaxsbi.Posterior] = {}

    def get(name: str) -> jaxsbi.Posterior:
        if name not in made:
            fitted = jaxsbi.fit(
                jax.random.key(2), METHODS[name], PRIOR, simulations, max_epochs=30, progress=False
            )
            made[name] = fitted.posterior
        return made[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_draws_match_the_conjugate_posterior(posteriors, name: str) -> None:
    # 4,000 simulations fix a regression to about sqrt(2 / 4000) = 0.02 posterior widths per
    # coefficient; 0.15 allows for networks that are no linear regression, and 4,000 draws.
    for value in (-1.0, 0.3, 1.2):
        draws = posteriors(name).sample(jax.random.key(3), jnp.array([value]), 4000)["theta"]
        mean, sd = exact(value)
        assert abs(float(draws.mean()) - mean) < 0.15 * sd
        assert abs(float(draws.std()) / sd - 1) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_log_prob_has_the_posteriors_shape(posteriors, name: str) -> None:
    posterior, x = posteriors(name), jnp.array([0.4])
    grid = jnp.linspace(-4.0, 4.0, 801)
    log_prob = jax.vmap(lambda t: posterior.log_prob({"theta": t}, x))(grid)
    density = np.exp(np.asarray(log_prob, np.float64))
    total = density.sum() * 0.01
    if name.startswith("npe"):
        assert total == pytest.approx(1.0, abs=2e-3)  # normalised; the grid's own error is 1e-4
    if name == "nre":
        assert total == pytest.approx(1.0, abs=0.15)  # normalised as far as the ratio is exact
    mean, sd = exact(0.4)
    truth = np.exp(-0.5 * ((np.asarray(grid) - mean) / sd) ** 2) / sd / np.sqrt(2 * np.pi)
    assert 0.5 * np.abs(density / total - truth).sum() * 0.01 < 0.08  # total variation


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nle", "nre", "emulator"])
def test_another_prior_needs_no_training(posteriors, name: str) -> None:
    new = jaxsbi.Prior(theta=dist.Normal(0.5, 0.4))
    posterior = posteriors(name).with_prior(new)
    draws = posterior.sample(jax.random.key(4), jnp.array([0.2]), 4000)["theta"]
    mean, sd = exact(0.2, 0.5, 0.4)
    assert abs(float(draws.mean()) - mean) < 0.15 * sd
    assert abs(float(draws.std()) / sd - 1) < 0.1


def test_npe_refuses_another_prior() -> None:
    posterior = untrained(METHODS["npe"])
    with pytest.raises(NotImplementedError, match="importance"):
        posterior.with_prior(PRIOR)


def test_another_prior_must_have_the_same_parameters() -> None:
    other = jaxsbi.Prior(width=dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="with_prior: expected parameters"):
        untrained(METHODS["nle"]).with_prior(other)


def test_an_untrained_npe_is_the_linear_gaussian_posterior() -> None:
    posterior = untrained(METHODS["npe_flow"], 4000)
    mean, sd = exact(0.3)
    draws = posterior.sample(jax.random.key(5), jnp.array([0.3]), 4000)["theta"]
    # 4,000 simulations and 4,000 draws: standard errors of 0.02 posterior widths each.
    assert abs(float(draws.mean()) - mean) < 0.1 * sd
    assert abs(float(draws.std()) / sd - 1) < 0.06
    value = posterior.log_prob({"theta": jnp.array(mean)}, jnp.array([0.3]))
    assert float(value) == pytest.approx(-np.log(sd * np.sqrt(2 * np.pi)), abs=0.06)


SUMMARIZED = jaxsbi.npe(
    density=jaxsbi.densities.SplineCoupling(layers=2, hidden=16), summary=jaxsbi.networks.MLP(8)
)


@pytest.mark.parametrize("method", [SUMMARIZED, METHODS["nre"]], ids=["npe_summary", "nre"])
def test_an_untrained_posterior_is_the_prior(method) -> None:
    posterior = untrained(method)
    theta = {"theta": jnp.array(0.7)}
    value = posterior.log_prob(theta, jnp.array([0.3]))
    assert float(value) == pytest.approx(float(PRIOR.log_prob(theta)), abs=1e-5)


def untrained(method, n: int = 50) -> jaxsbi.Posterior:
    simulations = jaxsbi.simulate(jax.random.key(1), PRIOR, simulator, n, progress=False)
    init = jax.jit(method.init, compiler_options=ONCE_OPTIONS)
    variables = init(jax.random.key(0), PRIOR, simulations)
    data = jaxsbi.base.DataSpec.of(simulations.x, batched=True)
    return jaxsbi.Posterior(variables, PRIOR, method, data)
