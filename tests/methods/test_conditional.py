"""Questions that a joint network cannot answer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec
from jaxsbi.methods import conditional, conditional_log_prob
from jaxsbi.sequential.rounds import unmoved

PRIOR = jaxsbi.Prior(rate=dist.LogNormal(0.0, 1.0))
METHOD = jaxsbi.joint(network=jaxsbi.fields.JointTransformer(width=8, layers=1, heads=1))


def simulator(key, theta):
    keys = jax.random.split(key)
    counts = jax.random.poisson(keys[0], theta["rate"], (2,))
    return {"counts": counts, "seconds": theta["rate"] * jax.random.exponential(keys[1], (2,))}


@pytest.fixture(scope="module")
def untrained():
    rows = jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 50, progress=False)
    init = jax.jit(lambda key: METHOD.init(key, PRIOR, rows))
    data = DataSpec.of(rows.x, batched=True)
    x = jax.tree.map(lambda a: a[0], rows.x)
    return jaxsbi.Posterior(init(jax.random.key(1)), PRIOR, METHOD, data), x


def test_counts_have_no_density(untrained):
    posterior, x = untrained
    with pytest.raises(ValueError, match=r"x\['counts'\] is int32, which has probabilities and no"):
        conditional_log_prob(posterior, {"x": x}, {})
    floats = {"counts": jnp.array(False), "seconds": jnp.array(True)}
    value = conditional_log_prob(posterior, {"x": x}, {}, observed=floats)
    assert bool(jnp.isfinite(value))


def test_what_rounds_have_learned_answers_one_question(untrained):
    posterior, x = untrained
    rounds = dataclasses.replace(posterior, prior=unmoved(PRIOR))
    with pytest.raises(TypeError, match="got one of sequential rounds"):
        conditional(jax.random.key(1), rounds, {"x": x}, 5)
