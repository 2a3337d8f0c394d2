"""The transformer over numbers: what is absent is unseen, what is given is told apart."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxsbi

NETWORK = jaxsbi.fields.JointTransformer(width=24, layers=2, heads=2)


@functools.cache
def random_network():
    """Return a network's output as a function, its parameters away from their zero start."""
    everything = jnp.ones(4, bool)
    params = jax.jit(NETWORK.init)(
        jax.random.key(0), jnp.zeros(()), jnp.zeros(4), everything, everything
    )
    numbers, unravel = ravel_pytree(params)
    params = unravel(numbers + 0.3 * jax.random.normal(jax.random.key(1), numbers.shape))
    return jax.jit(lambda *arguments: NETWORK.apply(params, *arguments))


def test_an_absent_token_is_never_seen():
    network, noise = random_network(), jnp.array(-0.5)
    u, none = jnp.array([0.3, -1.0, 0.7, 0.2]), jnp.zeros(4, bool)
    present = jnp.array([True, True, True, False])
    expected = network(noise, u, none, present)[:3]
    for value in (50.0, jnp.nan):
        found = network(noise, u.at[3].set(value), none, present)[:3]
        np.testing.assert_array_equal(found, expected)
    # Whether it is called given does not matter either; that it is absent does.
    found = network(noise, u, none.at[3].set(True), present)[:3]
    np.testing.assert_array_equal(found, expected)
    assert np.all(network(noise, u, none, jnp.ones(4, bool))[:3] != expected)


def test_a_given_value_matters_and_its_role_does():
    network, noise = random_network(), jnp.array(-0.5)
    u, everything = jnp.array([0.3, -1.0, 0.7, 0.2]), jnp.ones(4, bool)
    given = jnp.array([False, False, True, True])
    F = network(noise, u, given, everything)
    assert np.all(F[:2] != network(noise, u.at[3].set(0.5), given, everything)[:2])
    assert np.all(F[:2] != network(noise, u, ~everything, everything)[:2])


def test_values_and_gradients_of_the_network_are_finite():
    everything = jnp.ones(3, bool)
    given = jnp.array([False, True, False])
    params = jax.jit(NETWORK.init)(
        jax.random.key(0), jnp.zeros(()), jnp.zeros(3), given, everything
    )
    params = jax.tree.map(lambda a: np.asarray(a) + np.float32(0.5), params)

    @jax.jit
    @jax.value_and_grad
    def total(params, noise, u, present):
        return jnp.sum(NETWORK.apply(params, noise, u, given, present))

    for noise, size, present in itertools.product((-16.0, 16.0), (0.0, 30.0), (True, False)):
        u = size * jnp.array([1.0, -0.5, 0.2])
        found = total(params, jnp.asarray(noise), u, everything.at[2].set(present))
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(found))


def test_the_heads_divide_the_width():
    with pytest.raises(ValueError, match="width: expected a multiple of heads"):
        jaxsbi.fields.JointTransformer(width=10, heads=4)
