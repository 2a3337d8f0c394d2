"""Many draws in bounded memory, and products of lower precision."""

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


def test_jaxs_own_policy_makes_products_bfloat16_and_nothing_else():
    variables = NPE.init(jax.random.key(1), PRIOR, SIMULATIONS)

    def traced():
        def loss(variables):
            return NPE.loss(variables, PRIOR, jax.random.key(3), SIMULATIONS)

        return str(jax.make_jaxpr(loss)(variables))

    with jax.default_matmul_precision("BF16_BF16_F32"):
        text = traced()
        lower = jaxsbi.fit(jax.random.key(1), NPE, PRIOR, SIMULATIONS, max_epochs=3, progress=False)
    assert "BF16_BF16_F32" in text
    assert "BF16_BF16_F32" not in traced()
    assert {a.dtype for a in jax.tree.leaves(lower.posterior.variables)} == {jnp.dtype("float32")}
    plain = jaxsbi.fit(jax.random.key(1), NPE, PRIOR, SIMULATIONS, max_epochs=3, progress=False)
    # CPUs multiply in float32 all the same; elsewhere a number has eight bits less.
    np.testing.assert_allclose(lower.history.train_loss, plain.history.train_loss, atol=0.02)
