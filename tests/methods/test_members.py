"""Independent draws in one data set: one density, or one ratio, whose logarithms add."""

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
METHODS = {
    "nle": jaxsbi.nle(iid=True, density=densities.Gaussian(hidden=8)),
    "nre": jaxsbi.nre(iid=True, classifier=jaxsbi.networks.ResNet(hidden=32)),
}


def draws(key, theta):
    noise = jax.random.normal(key, (MEMBERS, 2))
    return {"level": theta["theta"] + SIGMA * noise[:, 0], "noise": 3.0 + 7.0 * noise[:, 1:]}


def some(n, simulator=draws):
    return jaxsbi.simulate(jax.random.key(1), PRIOR, simulator, n, progress=False)


@pytest.mark.parametrize("name", METHODS)
def test_the_log_likelihood_is_the_sum_over_the_draws(name: str) -> None:
    method, simulations = METHODS[name], some(50)
    variables = jax.jit(lambda key: method.init(key, PRIOR, simulations))(jax.random.key(0))
    single = dataclasses.replace(method, iid=False)
    z, x = jnp.array([0.3]), first(simulations.x)

    # A ratio starts at 1: with other weights its logarithm is not zero.
    variables = {**variables, "params": jax.tree.map(lambda a: a + 0.1, variables["params"])}

    @jax.jit
    def both(variables, x):
        each = jax.vmap(lambda x: single.log_likelihood(variables, PRIOR, z, x))(x)
        return method.log_likelihood(variables, PRIOR, z, x), jnp.sum(each)

    whole, total = both(variables, x)
    assert float(whole) == pytest.approx(float(total), rel=1e-5)
    fewer, total = both(variables, jax.tree.map(lambda a: a[:2], x))
    assert float(fewer) == pytest.approx(float(total), rel=1e-5)
    # All draws of all rows are one sample of the density that is learned.
    level = np.asarray(simulations.x["level"]).ravel()
    kept = variables["statistics"]
    mean = kept["continuous"]["mean"][0] if name == "nle" else kept["mean"]["level"]
    assert float(mean) == pytest.approx(level.mean(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_conjugate_posterior_is_recovered(name: str) -> None:
    fitted = jaxsbi.fit(
        jax.random.key(2), METHODS[name], PRIOR, some(2_000), max_epochs=40, progress=False
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
@pytest.mark.parametrize("name", METHODS)
def test_data_without_an_axis_of_draws_are_refused(name: str, simulator) -> None:
    with pytest.raises(
        ValueError, match=rf"{name}\(iid=True\): expected arrays whose leading axis"
    ):
        METHODS[name].init(jax.random.key(0), PRIOR, some(4, simulator))


@pytest.mark.parametrize("name", METHODS)
def test_another_number_of_draws_is_observed(name: str) -> None:
    """What is learned is one draw's: an observation may have more, or fewer."""
    method, simulations = METHODS[name], some(50)
    variables = jax.jit(lambda key: method.init(key, PRIOR, simulations))(jax.random.key(0))
    data = jaxsbi.base.DataSpec.of(simulations.x, batched=True)
    posterior = jaxsbi.Posterior(variables, PRIOR, method, data)
    x = first(simulations.x)
    for n in (1, 3, 2 * MEMBERS):
        several = jax.tree.map(lambda a, n=n: jnp.resize(a, (n, *a.shape[1:])), x)
        each = posterior.log_prob({"theta": jnp.array(0.3)}, several)
        ones = [
            posterior.log_prob(
                {"theta": jnp.array(0.3)}, jax.tree.map(lambda a, i=i: a[i : i + 1], several)
            )
            for i in range(n)
        ]
        prior = PRIOR.log_prob({"theta": jnp.array(0.3)})
        np.testing.assert_allclose(each, prior + sum(one - prior for one in ones), rtol=1e-4)
    pair = jaxsbi.Posterior(
        jax.tree.map(lambda a: jnp.stack([a, a]), variables),
        PRIOR,
        jaxsbi.methods.Ensemble(method=method, size=2),
        data,
    )
    np.testing.assert_allclose(pair.log_prob({"theta": jnp.array(0.3)}, several), each, rtol=1e-4)
    ragged = {"level": x["level"], "noise": x["noise"][:2]}
    with pytest.raises(ValueError, match=r"observation.*: expected shape"):
        posterior.log_prob({"theta": jnp.array(0.3)}, ragged)
