"""A small exact forward model, and emulators of it."""

import types

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import jaxsbi

PRIOR = jaxsbi.Prior(tilt=dist.Uniform(-1.0, 1.0), log_size=dist.Normal(0.0, 0.5))
K = jnp.linspace(0.2, 2.0, 12)


def spectra(key, theta):
    """Two spectra, positive and smooth in the parameters, and without noise."""
    one = jnp.exp(theta["log_size"]) * K ** theta["tilt"] * (1.5 + jnp.sin(2 * K))
    return {"one": one, "two": theta["tilt"] * one[:5]}


def fit(rows, seed=2, **options):
    method = jaxsbi.emulator(
        network=jaxsbi.networks.CosmoPower(hidden=(32,)),
        components=6,
        transform={"one": "log"},
        exact=True,
        noise=jaxsbi.noise.gaussian(0.05**2 * jnp.ones(17)),
        sampler=jaxsbi.samplers.smc(particles=512, populations=2),
    )
    options = {"max_epochs": 400, "patience": 100, "progress": False, **options}
    return jaxsbi.fit(jax.random.key(seed), method, PRIOR, rows, **options)


@pytest.fixture(scope="session")
def toy():
    """Return prior, simulator, training and test runs, and a trained ensemble."""
    rows, test = (
        jaxsbi.simulate(jax.random.key(seed), PRIOR, spectra, n, progress=False)
        for seed, n in ((0, 200), (1, 300))
    )
    return types.SimpleNamespace(
        prior=PRIOR, simulator=spectra, rows=rows, test=test, fit=fit, fitted=fit(rows, ensemble=3)
    )
