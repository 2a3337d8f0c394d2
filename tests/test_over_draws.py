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
    monkeypatch.setattr(batching, "FEW", 100)
    monkeypatch.setattr(batching, "DRAWS_AT_ONCE", 100)
    parts, other = draws()
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert text.count("[250,") > other.count("[250,")  # nothing wide is 250 long


@pytest.mark.parametrize("loop", [False, True])
def test_larger_draws_are_made_in_smaller_parts(loop):
    def one(z):
        def step(carry, _):
            wide = jnp.outer(carry, jnp.ones(1_000, z.dtype))
            return jnp.sum(wide, 1), None

        return jax.lax.scan(step, z, length=2)[0] if loop else step(z, None)[0]

    few, many = (batching.draws_at_once(one, jnp.zeros((3, d))) for d in (10, 1_000))
    # d × 1,000 numbers of four bytes, and `ALIVE` of them.
    assert few == batching.BYTES_AT_ONCE // (batching.ALIVE * 10 * 1_000 * 4)
    assert many == few // 100
    assert batching.draws_at_once(lambda z: z, jnp.zeros((3, 2))) == batching.DRAWS_AT_ONCE
    # What is there once for all draws does not count.
    table = jnp.ones((4_096, 4_096))
    assert batching.draws_at_once(lambda z: z + table.sum(), jnp.zeros(3)) == batching.DRAWS_AT_ONCE


def test_many_wide_draws_are_the_same_in_parts(monkeypatch):
    z = jax.random.normal(jax.random.key(0), (200, 7))
    whole = batching.over_draws(lambda z: jnp.outer(z, z), z)
    monkeypatch.setattr(batching, "FEW", 10)
    monkeypatch.setattr(batching, "BYTES_AT_ONCE", 10_000)
    assert batching.draws_at_once(lambda z: jnp.outer(z, z), z) == 12
    np.testing.assert_allclose(batching.over_draws(lambda z: jnp.outer(z, z), z), whole, rtol=1e-6)
