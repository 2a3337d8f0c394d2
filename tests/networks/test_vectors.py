"""What single networks, flattening and activations do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.networks import DeepSet, SortedSet, activations, flatten

SET = jnp.arange(10.0).reshape(5, 2) / 5


def test_a_set_knows_its_members():
    short = DeepSet(out=3, hidden=8)
    params = short.init(jax.random.key(0), SET)
    assert np.any(np.abs(short.apply(params, SET) - short.apply(params, SET[:4])) > 1e-4)


def test_a_sorted_set_keeps_its_members_whole():
    np.testing.assert_array_equal(SortedSet().apply({}, SET[::-1]), jnp.ravel(SET))


def test_flatten_keeps_the_pytrees_order_and_makes_floats():
    x = {"b": jnp.array([[1, 2], [3, 4]]), "a": jnp.array(0.5), "c": jnp.array(True)}
    np.testing.assert_array_equal(flatten(x), [0.5, 1, 2, 3, 4, 1])
    assert flatten(x).dtype == jnp.float32
    assert flatten(jnp.array(3)).shape == (1,)


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activations_are_elementwise_and_finite(name):
    out = activations.get(name)(jnp.linspace(-30.0, 30.0, 7))
    assert out.shape == (7,)
    assert np.all(np.isfinite(out))


def test_an_unknown_activation_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"activation: expected one of .*'relu'.*got 'rulu'"):
        activations.get("rulu")
