"""NLE on independent draws: one density, whose logarithms add."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import densities
from jaxsbi.methods.features import first

SIGMA, MEMBERS = 0.5, 5
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
METHOD = jaxsbi.nle(iid=True, density=densities.Gaussian(hidden=8))


def draws(key, theta):
    noise = jax.random.normal(key, (MEMBERS, 2))
    return {"level": theta["theta"] + SIGMA * noise[:, 0], "noise": 3.0 + 7.0 * noise[:, 1:]}


def some(n, simulator=draws):
    return jaxsbi.simulate(jax.random.key(1), PRIOR, simulator, n, progress=False)


def test_the_log_likelihood_is_the_sum_over_the_draws() -> None:
    simulations = some(50)
    variables = jax.jit(lambda key: METHOD.init(key, PRIOR, simulations))(jax.random.key(0))
    single = dataclasses.replace(METHOD, iid=False)
    z, x = jnp.array([0.3]), first(simulations.x)

    @jax.jit
    def both(variables, x):
        each = jax.vmap(lambda x: single.log_likelihood(variables, PRIOR, z, x))(x)
        return METHOD.log_likelihood(variables, PRIOR, z, x), jnp.sum(each)

    whole, total = both(variables, x)
    assert float(whole) == pytest.approx(float(total), rel=1e-5)
    fewer, total = both(variables, jax.tree.map(lambda a: a[:2], x))
    assert float(fewer) == pytest.approx(float(total), rel=1e-5)
    # All draws of all rows are one sample of the density that is learned.
    level = np.asarray(simulations.x["level"]).ravel()
    mean = variables["statistics"]["continuous"]["mean"][0]
    assert float(mean) == pytest.approx(level.mean(), abs=1e-5)


@pytest.mark.slow
def test_the_conjugate_posterior_is_recovered() -> None:
    fitted = jaxsbi.fit(
        jax.random.key(2), METHOD, PRIOR, some(2_000), max_epochs=40, progress=False
    )
    x = {"level": jnp.array([0.1, 0.9, 0.4, -0.2, 0.6]), "noise": jnp.full((MEMBERS, 1), 3.0)}
    grid = jnp.linspace(-3.0, 3.0, 601)
    log_prob = jax.vmap(lambda t: fitted.posterior.log_prob({"theta": t}, x))(grid)
    weight = np.exp(np.asarray(log_prob - log_prob.max(), float))
    weight /= weight.sum()
    precision = 1 + MEMBERS / SIGMA**2
    mean, width = float(x["level"].sum()) / SIGMA**2 / precision, precision**-0.5
    found = (weight * grid).sum()
    assert abs(found - mean) < 0.15 * width
    assert np.sqrt((weight * (grid - found) ** 2).sum()) == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize(
    "simulator",
    [
        lambda key, theta: theta["theta"] + jax.random.normal(key),
        lambda key, theta: (jax.random.normal(key, (3,)), jnp.zeros(2)),
    ],
    ids=["no axis", "two lengths"],
)
def test_data_without_an_axis_of_draws_are_refused(simulator) -> None:
    with pytest.raises(ValueError, match=r"nle\(iid=True\): expected arrays whose leading axis"):
        METHOD.init(jax.random.key(0), PRIOR, some(4, simulator))
