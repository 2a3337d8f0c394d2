"""The warning for what was never simulated: it sees numbers together, and no ordinary data."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.base import Simulations
from jaxsbi.sequential.outside import FAR, isolated, warn_outside


def normal(rng, n):
    return rng.normal(size=(n, 3))


def line(rng, n):
    """Two numbers that are nearly the same."""
    return rng.normal(size=(n, 1)) + 0.01 * rng.normal(size=(n, 2))


def circle(rng, n):
    """Numbers without a linear correlation that lie about a circle."""
    angle = 2 * np.pi * rng.random((n, 1))
    return np.concatenate([np.cos(angle), np.sin(angle)], 1) + 0.01 * rng.normal(size=(n, 2))


def heavy(rng, n):
    return rng.standard_cauchy((n, 2))


def counts(rng, n):
    return rng.poisson(np.exp(2.0 + rng.normal(size=(n, 1))) * np.ones((1, 2)))


def repeated(rng, n):
    """Numbers that follow from one another: a covariance that cannot be inverted."""
    return rng.normal(size=(n, 1)) * np.ones((1, 4))


def many(rng, n):
    """A random walk, whose covariance has one number for each 20 simulations."""
    return np.cumsum(rng.normal(size=(n, n // 20)), axis=1)


def simulations(rows):
    x = jnp.asarray(rows, jnp.float32)
    return Simulations({}, x, jnp.ones(len(x)))


@pytest.mark.parametrize("law", [normal, line, circle, heavy, counts, repeated, many])
def test_ordinary_observations_are_not_warned_of(law):
    rng = np.random.default_rng(0)
    rows, observed = (law(rng, n) for n in (1000, 1000))
    values = [isolated(jnp.asarray(x, jnp.float32), simulations(rows).x, np.arange(1000))
              for x in observed[:60]]  # fmt: skip
    # One in 100 exceeds 1, give or take its root; three times that is one in thousands.
    assert np.sum(np.array(values) > FAR) <= 1
    assert np.sum(np.array(values) > 1.0) <= 4


@pytest.mark.parametrize(
    ("law", "x"),
    [
        (line, [1.5, -1.5]),  # 200 deviations off the line, and each number is ordinary
        (line, [0.5, 0.35]),  # 10
        (circle, [0.0, 0.0]),
        (repeated, [1.0, 1.0, 1.0, -1.0]),
        (many, [0.0] * 26 + [4.0, -4.0] * 12),  # its steps are as of another walk
    ],
)
def test_numbers_that_are_strange_together_are_warned_of(law, x):
    rows = simulations(law(np.random.default_rng(0), 1000))
    with pytest.warns(UserWarning, match="its numbers together are unlike all 1000 simulations"):
        warn_outside(jnp.array(x), rows)


def test_one_number_outside_is_named():
    rows = simulations(normal(np.random.default_rng(0), 200))
    with pytest.warns(UserWarning, match=r"observation\[1\]: 50, where simulations"):
        warn_outside(jnp.array([0.0, 50.0, 0.0]), rows)


def test_what_is_masked_is_not_compared():
    rng = np.random.default_rng(0)
    mask = np.ones((200, 3), bool)
    mask[:, 2] = rng.random(200) < 0.5
    mask[0, 2] = True
    x = {"values": jnp.asarray(rng.normal(size=(200, 3)) * mask, jnp.float32), "mask": mask}
    rows = Simulations({}, x, jnp.ones(200))
    there = np.array([True, True, False])
    warn_outside({"values": jnp.array([0.3, 0.2, 0.0]), "mask": jnp.asarray(there)}, rows)
    never = {"values": jnp.array([0.3, 0.0, 0.1]), "mask": jnp.asarray(there[[0, 2, 1]])}
    with pytest.warns(UserWarning, match="its numbers together are unlike all 200 simulations"):
        warn_outside(never, rows)


def test_what_cannot_be_compared_is_not_warned_of():
    few = simulations(normal(np.random.default_rng(0), 19))
    warn_outside(jnp.zeros(3), few)
    warn_outside(jnp.zeros(3), Simulations({}, few.x, jnp.zeros(19)))
    # Every count came twice, but the one that was observed.
    twice = simulations(np.repeat([n for n in range(200) if n != 100], 2)[:, None])
    warn_outside(jnp.array([100.0]), twice)
