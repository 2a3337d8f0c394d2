"""What the tests of the store fill stores with, in this program or in others that are killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxsbi

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 8


def make_prior(width=1.0):
    return jaxsbi.Prior(
        shift=dist.Normal(jnp.zeros(2), width).to_event(1), scale=dist.LogNormal(0.0, 0.5)
    )


def simulator(key, theta):
    points = theta["shift"][None] + theta["scale"] * jax.random.normal(key, (3, 2))
    return {"points": points, "sign": (theta["shift"][0] > 0).astype(jnp.int32)}


def half_invalid(key, theta):
    return jnp.where(theta["shift"][0] > 0, jnp.nan, theta["shift"])


def outside(seed, theta):
    return np.random.default_rng(seed).normal(theta["shift"], theta["scale"])


def make(path, seed=1, prior=None, **options):
    prior = make_prior() if prior is None else prior
    return jaxsbi.Store.create(path, jax.random.key(seed), prior, **{"chunk": CHUNK, **options})


def fill(path, n):
    """Fill in another program; see `started`."""
    make(path).fill(simulator, n, progress=False)


def fill_outside(path, calls, n):
    def function(seed, theta):
        with open(calls, "a") as file:
            file.write(f"{seed}\n")
        time.sleep(0.01)
        return outside(seed, theta)

    store = make(path)
    key = jax.random.key(1)
    return jaxsbi.simulate_external(
        key, make_prior(), function, n, store=store, workers=2, progress=False
    )


def started(call):
    """Start a call of this module in another program."""
    code = f"from tests.store import programs; programs.{call}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env)


def done(path):
    return sorted((path / "chunks").glob("*.done"))


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def assert_same(one, other):
    assert len(one) == len(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)
