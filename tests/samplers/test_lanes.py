"""Loops in lanes end where each loop ends alone, after no more turns than lanes need."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.samplers import lanes


def parts(key, turns, factor, seen=None):
    """Return the functions of a loop whose end tells what it closed over in each turn."""

    key_start, key_turns = jax.random.split(key)

    def turn(state):
        i, total = state["i"], state["total"]
        if seen is not None:
            jax.debug.callback(lambda _: seen.append(1), i, ordered=False)
        return {
            "i": i + 1,
            "total": total + factor * jax.random.uniform(jax.random.fold_in(key_turns, i)),
        }

    def start():
        return {"i": jnp.array(0), "total": factor * jax.random.uniform(key_start)}

    return start, lambda state: state["i"] < turns, turn


def in_lanes(*constants):
    return lanes.run(*parts(*constants))


def alone(*constants):
    start, unfinished, turn = parts(*constants)
    return jax.lax.while_loop(unfinished, turn, start())


def some(n):
    turns = jax.random.randint(jax.random.key(1), (n,), 0, 50)
    return jax.random.split(jax.random.key(0), n), turns, jnp.array(2.0)


def assert_same(found, expected):
    np.testing.assert_array_equal(found["i"], expected["i"])
    np.testing.assert_allclose(found["total"], expected["total"], rtol=1e-6)


@pytest.mark.parametrize("n", [1, lanes.LANES - 1, lanes.LANES, 3 * lanes.LANES + 1])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_each_ends_where_it_ends_alone(n, transform):
    expected = jax.vmap(alone, (0, 0, None))(*some(n))
    assert_same(transform(jax.vmap(in_lanes, (0, 0, None)))(*some(n)), expected)
    key, turns, factor = some(n)
    one = transform(in_lanes)(key[0], turns[0], factor)
    assert_same(one, jax.tree.map(lambda a: a[0], expected))


@pytest.mark.parametrize("outer", [(None, None, 0), (0, 0, None)])
def test_mapped_twice(outer):
    inner = (0, 0, None) if outer[0] is None else (None, None, 0)

    def constants():
        return *some(2 * lanes.LANES)[:2], jnp.arange(1.0, 4.0)

    expected = jax.vmap(jax.vmap(alone, inner), outer)(*constants())
    assert_same(jax.jit(jax.vmap(jax.vmap(in_lanes, inner), outer))(*constants()), expected)


def test_a_lane_that_has_ended_goes_on_with_the_next():
    n = 4 * lanes.LANES
    turns = jnp.where(jnp.arange(n) % lanes.LANES == 0, 40, 5)
    seen = []
    run = jax.vmap(lambda turns: lanes.run(*parts(jax.random.key(0), turns, 1.0, seen)))
    assert_same(run(turns), jax.vmap(lambda t: alone(jax.random.key(0), t, 1.0))(turns))
    jax.effects_barrier()
    assert len(seen) <= int(jnp.sum(turns)) + lanes.LANES * int(jnp.max(turns))
    assert len(seen) < n * int(jnp.max(turns)) / 2  # what all need until the last one has ended
