"""What saved runs have in common."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec

PRIOR = jaxsbi.Prior(a=dist.Normal(1.0, 2.0), b=dist.Uniform(-jnp.ones(2), 1.0).to_event(1))
ROWS = 40
HISTORY = jaxsbi.History(
    train_loss=np.array([2.0, 1.0, 0.1], np.float32),
    validation_loss=np.array([2.5, np.nan, -np.inf], np.float64),
    best_epoch=np.int32(2),
    stopped="patience",
    compile_seconds=1.5,
    run_seconds=0.1,
    num_simulations=(36, 4),
    num_invalid=0,
)
NPE = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=4))


def simulations():
    keys = jax.random.split(jax.random.key(0), ROWS)
    x = jax.random.normal(jax.random.key(1), (ROWS, 3))
    return jaxsbi.Simulations(jax.vmap(PRIOR.sample)(keys), x, jnp.ones(ROWS))


def made(method, prior=PRIOR, rows=None):
    """Return an untrained fit: its initial variables, and a history."""
    rows = simulations() if rows is None else rows
    variables = jax.jit(lambda key: method.init(key, prior, rows))(jax.random.key(2))
    posterior = jaxsbi.Posterior(variables, prior, method, DataSpec.of(rows.x, batched=True))
    return jaxsbi.Fitted(posterior, HISTORY)


@functools.cache
def small():
    return made(NPE)


def equal(one, other):
    """Assert that two pytrees are the same: structure, dtypes, and every bit."""
    (some, structure), (others, other_structure) = jax.tree.flatten(one), jax.tree.flatten(other)
    assert structure == other_structure
    assert hash(structure) == hash(other_structure)
    for a, b in zip(some, others, strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_array_equal(_bits(a), _bits(b))


def _bits(a):
    if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a = jax.random.key_data(a)
    return np.frombuffer(np.asarray(a).tobytes(), np.uint8)


def same(one, other):
    """Assert that two fits are the same."""
    equal(one.posterior, other.posterior)
    for field in dataclasses.fields(one.history):
        a, b = getattr(one.history, field.name), getattr(other.history, field.name)
        assert type(a) is type(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="session")
def runs():
    """Return the functions above, as `runs.made(method)`."""
    return types.SimpleNamespace(
        **{"simulations": simulations, "made": made, "small": small, "equal": equal, "same": same},
        **{"prior": PRIOR, "npe": NPE},
    )
