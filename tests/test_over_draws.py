"""Many draws in bounded memory."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import batching

PRIOR = jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
NPE = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8))
METHODS = {"npe": NPE, "fmpe": jaxsbi.fmpe(), "npse": jaxsbi.npse()}


def simulator(key, theta):
    return theta["theta"] + 0.5 * jax.random.normal(key, (2,))


SIMULATIONS = jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 200, progress=False)


@pytest.mark.parametrize("name", METHODS)
def test_draws_in_parts_are_the_same(name, monkeypatch):
    method = METHODS[name]
    variables = method.init(jax.random.key(1), PRIOR, SIMULATIONS)

    def draws():
        def sample(key):  # another function each time: none compiled before is used
            return method.sample(variables, PRIOR, key, SIMULATIONS.x[0], 250)[0]["theta"]

        return jax.jit(sample)(jax.random.key(2)), str(jax.make_jaxpr(sample)(jax.random.key(2)))

    whole, text = draws()
    monkeypatch.setattr(batching, "DRAWS_AT_ONCE", 100)
    parts, other = draws()
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert text.count("[250,") > other.count("[250,")  # nothing wide is 250 long
