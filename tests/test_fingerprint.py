"""What is the same has one fingerprint in every process, and nothing else has it."""

import functools
import itertools
import os
import subprocess
import sys
from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxsbi
from jaxsbi.fingerprint import digest, program


class Pair(NamedTuple):
    a: int
    b: int


class Other(NamedTuple):
    a: int
    b: int


def prior(**laws):
    return jaxsbi.Prior(
        mixed=dist.TransformedDistribution(
            dist.TruncatedNormal(0.0, 1.0, low=-1.0), dist.transforms.AffineTransform(1.0, 2.0)
        ),
        **laws,
    )


VALUES = [
    None, 0, 0.0, False, "", "0", 1, 1.0, True, -0.0, (), [], {}, (0,), [0], {"a": 0}, {"b": 0},
    (1, (2, 3)), ((1, 2), 3), ("ab", "c"), ("a", "bc"), Pair(1, 2), Other(1, 2), (1, 2),
    OrderedDict(a=0), np.zeros(2), np.zeros(2, np.float32), jnp.zeros((2, 1)), jnp.zeros((1, 2)),
    np.float32(0), jnp.bfloat16(0), np.zeros(0), jnp.zeros(4)[::2] + 1, jax.random.key(0),
    jax.random.key(1), jax.random.key(0, impl="rbg"), jnp.array([0, 1], jnp.uint32), digest,
    functools.partial(digest, 1), functools.partial(digest, 2), dict, frozenset({"a", "b"}),
    prior(), prior(a=dist.Normal(0.0, 1.0)), prior(b=dist.Normal(0.0, 1.0)),
    prior(b=dist.Uniform(0.0, 1.0)), prior(b=dist.Uniform(0.0, 2.0)), prior(b=dist.Laplace()),
    jaxsbi.npe(), jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=3)), jaxsbi.fmpe(),
    jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=4)), jaxsbi.nle(),
    jaxsbi.emulator(noise=jaxsbi.noise.gaussian(jnp.eye(2))),
    jaxsbi.emulator(noise=jaxsbi.noise.gaussian(2 * jnp.eye(2))),
]  # fmt: skip


def test_different_values_differ():
    marks = [digest(value) for value in VALUES]
    for (i, one), (j, other) in itertools.combinations(enumerate(marks), 2):
        assert one != other, (VALUES[i], VALUES[j])


def test_the_same_is_the_same_before_and_after_jit():
    tree = {"b": jnp.ones(2), "a": jnp.zeros(2)}
    assert digest(tree) == digest(jax.jit(lambda tree: tree)(tree))
    assert digest(jnp.arange(6)[::2]) == digest(np.array([0, 2, 4], np.int32))


@pytest.mark.slow
def test_it_is_the_same_in_every_process():
    text = (
        "from tests.test_fingerprint import *; "
        "print(digest(VALUES), program(draw, jax.random.key(0), 1.0), program(*adam(0.1)))"
    )
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", text]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert len(found) == 1


def draw(key, width):
    return jax.nn.gelu(width * jax.random.normal(key, (2,)))


def adam(rate):
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, 10))
    return optimizer.update, jnp.zeros(2), optimizer.init(jnp.zeros(2))


def test_programs_differ_by_what_they_compute():
    assert program(*adam(0.1)) == program(*adam(0.1))
    assert program(*adam(0.1)) != program(*adam(0.2))
    held = np.arange(3.0)
    marks = set()
    for factor in (1.0, 2.0):

        @jax.jit
        def within(x, values=factor * held):
            return x * jnp.asarray(values)  # an array that only the inner program holds

        marks.add(program(lambda x, inner=within: inner(x) + 1.0, 1.0))
    assert len(marks) == 2
