"""The user programs of the design, at small size."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import jaxsbi

pytestmark = [pytest.mark.rank_promotion, pytest.mark.slow]


def simulator(key, theta):
    return theta["position"] + theta["width"] * jax.random.normal(key, (10, 2))


def log_likelihood(theta, x):
    return jax.scipy.stats.norm.logpdf(x, theta["position"], theta["width"]).sum()


@pytest.fixture(scope="module")
def problem():
    prior = jaxsbi.Prior(
        position=dist.Uniform(-jnp.ones(2), jnp.ones(2)).to_event(1),
        width=dist.LogNormal(-2.0, 0.5),
    )
    truth = prior.sample(jax.random.key(1))
    simulations = jaxsbi.simulate(jax.random.key(2), prior, simulator, 500, progress=False)
    return prior, truth, simulator(jax.random.key(3), truth), simulations


@pytest.mark.key_reuse  # the program as the README has it uses k3 in two calls
def test_five_verbs(problem, tmp_path, monkeypatch) -> None:
    prior, truth, x_observed, simulations = problem
    k2, k3, k4 = jax.random.split(jax.random.key(0), 3)
    fitted = jaxsbi.fit(k2, jaxsbi.npe(), prior, simulations, max_epochs=3, progress=False)
    posterior = fitted.posterior
    draws = posterior.sample(k3, x_observed, 1_000)
    assert {k: v.shape for k, v in draws.items()} == {"position": (1000, 2), "width": (1000,)}
    density = jax.vmap(posterior.log_prob, (0, None))(draws, x_observed)
    assert density.shape == (1000,)
    assert bool(jnp.all(jnp.isfinite(density)))
    xs = jnp.stack([x_observed, x_observed + 0.1])
    many = jax.vmap(lambda k, x: posterior.sample(k, x, 100))(jax.random.split(k3, 2), xs)
    assert many["position"].shape == (2, 100, 2)
    ranks = jaxsbi.diagnostics.sbc(k4, posterior, prior, simulator, num_datasets=20, num_draws=20)
    assert ranks.ranks["position"].shape == (20, 2)
    figure = jaxsbi.plots.corner(draws, truth=truth)
    assert len(figure.axes) == 9
    monkeypatch.chdir(tmp_path)
    jaxsbi.save("run", fitted)
    fitted = jaxsbi.load("run")
    again = fitted.posterior.sample(k3, x_observed, 1_000)
    assert all(bool(jnp.all(again[name] == draws[name])) for name in draws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three epochs make a poor proposal
        weighted = jaxsbi.importance(k4, posterior, log_likelihood, prior, x_observed, 1_000)
    assert weighted.log_weights.shape == (1000,)
    assert 0 < weighted.efficiency < 1
    assert bool(jnp.isfinite(weighted.log_evidence))


METHODS = {
    "npe": lambda: jaxsbi.npe(
        density=jaxsbi.densities.SplineAutoregressive(layers=5, hidden=64),
        summary=jaxsbi.networks.DeepSet(out=16),
    ),
    "nle": lambda: jaxsbi.nle(
        density=jaxsbi.densities.MaskedAutoregressive(), sampler=jaxsbi.samplers.nuts()
    ),
    "nre": lambda: jaxsbi.nre(classifier=jaxsbi.networks.ResNet(hidden=128)),
    "emulator": lambda: jaxsbi.emulator(
        network=jaxsbi.networks.MLP(256, 256),
        components=32,
        noise=jaxsbi.noise.gaussian(0.1 * jnp.eye(20)),
        sampler=jaxsbi.samplers.nuts(),
    ),
}


@pytest.mark.filterwarnings("ignore:MCMC")  # trained for a moment only
@pytest.mark.parametrize("name", METHODS)
def test_another_road_is_another_line(problem, name: str) -> None:
    prior, _, x_observed, simulations = problem
    fitted = jaxsbi.fit(
        jax.random.key(0), METHODS[name](), prior, simulations, max_epochs=2, progress=False
    )
    draws = fitted.posterior.sample(jax.random.key(1), x_observed, 100)
    assert draws["width"].shape == (100,)
    assert bool(jnp.all(draws["width"] > 0))
    assert bool(jnp.all(jnp.abs(draws["position"]) <= 1))


def test_simulations_inside_the_step(problem) -> None:
    prior, _, x_observed, _ = problem
    key_fit, key_draws = jax.random.split(jax.random.key(0))
    fitted = jaxsbi.fit_online(
        key_fit, jaxsbi.npe(), prior, simulator, num_steps=200, progress=False
    )
    draws = fitted.posterior.sample(key_draws, x_observed, 100)
    assert draws["position"].shape == (100, 2)


def test_ensemble(problem) -> None:
    """Of a road that draws directly; likelihoods are averaged in `methods/test_ensemble.py`."""
    method = jaxsbi.npe()
    prior, truth, x_observed, simulations = problem
    fitted = jaxsbi.fit(
        jax.random.key(0), method, prior, simulations, ensemble=3, max_epochs=2, progress=False
    )
    posterior = fitted.posterior
    assert fitted.history.validation_loss.shape == (3, 2)
    draws = posterior.sample(jax.random.key(1), x_observed, 100)
    assert draws["position"].shape == (100, 2)
    # The mixture of the members' densities.
    members = [
        jaxsbi.Posterior(
            jax.tree.map(lambda a, i=i: a[i], posterior.variables),
            prior,
            method,
            posterior.data,
        ).log_prob(truth, x_observed)
        for i in range(3)
    ]
    expected = jax.scipy.special.logsumexp(jnp.stack(members)) - jnp.log(3.0)
    assert float(posterior.log_prob(truth, x_observed)) == pytest.approx(float(expected), abs=1e-3)
