"""Every road trains in double precision where the user has enabled it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import jaxsbi

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
FIELD = jaxsbi.fields.ResidualField(hidden=8, blocks=1)
ODE = jaxsbi.fields.ode(solver="euler", steps=2, density_steps=2)
NETWORK = jaxsbi.networks.MLP(8)
ROADS = {
    "npe": jaxsbi.npe(density=jaxsbi.densities.SplineCoupling(layers=2, hidden=8)),
    "npe_linear": jaxsbi.npe(
        density=jaxsbi.densities.SplineCoupling(layers=1, hidden=8, mixing="linear")
    ),
    "npe_autoregressive": jaxsbi.npe(
        density=jaxsbi.densities.SplineAutoregressive(layers=2, hidden=8)
    ),
    "npe_mixture": jaxsbi.npe(density=jaxsbi.densities.GaussianMixture(hidden=8), summary=NETWORK),
    "nle": jaxsbi.nle(density=jaxsbi.densities.MaskedAutoregressive(layers=2, hidden=8)),
    "nre": jaxsbi.nre(classifier=jaxsbi.networks.ResNet(hidden=8)),
    "fmpe": jaxsbi.fmpe(field=FIELD, sampler=ODE),
    "npse": jaxsbi.npse(field=FIELD, sampler=ODE),
    "emulator": jaxsbi.emulator(network=NETWORK),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ROADS)
def test_every_road_trains_in_double_precision(name, dtype, key, x64):
    """Its networks too, whatever the data's precision: Flax makes parameters in single."""
    key_theta, key_x, key_fit = jax.random.split(key, 3)
    theta = jax.random.normal(key_theta, (60,), dtype)
    x = theta[:, None] + 0.5 * jax.random.normal(key_x, (60, 2), dtype)
    simulations = jaxsbi.Simulations({"theta": theta}, x, jnp.ones(60, dtype))
    fitted = jaxsbi.fit(key_fit, ROADS[name], PRIOR, simulations, max_epochs=2, progress=False)
    params = fitted.posterior.variables["params"]
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float64")}
    assert bool(jnp.isfinite(fitted.posterior.log_prob({"theta": theta[0]}, x[0])))
