"""Atomic proposals: what is special to them."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import sequential

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
NPE = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16))
WIDTH = (2 / 15) ** 0.5


def two(key, theta):
    """Two numbers; their mean has precision 15, so that the posterior is N(mean, 0.25²)."""
    return theta["theta"] + WIDTH * jax.random.normal(key, (2,))


def run(method, n):
    x = jnp.array([0.3, -0.3])
    return sequential.atomic(
        jax.random.key(0), method, PRIOR, two, x, num_rounds=2, simulations_per_round=n,
        progress=False,
    )  # fmt: skip


def test_rounds_return_the_method_s_own_posterior():
    assert all(r.posterior.method == NPE for r in run(NPE, 50).rounds)


def test_a_fixed_summary_is_read():
    method = jaxsbi.compression.frozen(NPE, lambda x: jnp.mean(x, keepdims=True))
    result = run(method, 700)
    assert all(r.posterior.method == method for r in result.rounds)
    draws = result.posterior.sample(jax.random.key(1), jnp.array([0.3, -0.3]), 2_000)["theta"]
    # Over six keys: -0.011 with a scatter of 0.004, and 0.242 with 0.005.
    assert float(jnp.mean(draws)) == pytest.approx(0.0, abs=0.12 * 0.25)
    assert float(jnp.std(draws)) == pytest.approx(0.25, rel=0.1)


def test_what_has_no_normalised_density_is_refused():
    nle = jaxsbi.compression.frozen(jaxsbi.nle(), lambda x: x)
    with pytest.raises(TypeError, match=r"expected npe.*got NLE"):
        run(nle, 50)
