"""Every network × what a summary or a classifier must be."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi import networks
from jaxsbi.networks import MLP, DeepSet, ResNet, SortedSet, activations, flatten

# Name → a network whose output has 3 numbers, and one data set it reads.
VECTOR = jnp.array([0.3, -1.0, 2.0, 0.5])
SET = jnp.arange(10.0).reshape(5, 2) / 5
REGISTRY = {
    "MLP": (MLP(8, 8, out=3), VECTOR),
    "MLP without head": (MLP(8, 3, activation="tanh"), VECTOR),
    "ResNet": (ResNet(hidden=8, out=3), VECTOR),
    "ResNet normalised": (ResNet(hidden=3, normalize=True), VECTOR),
    "DeepSet": (DeepSet(out=3, hidden=8), SET),
    "SortedSet": (SortedSet(), jnp.array([[0.3], [-1.0], [2.0]])),
    "MLP of a pytree": (MLP(8, out=3), {"a": SET, "b": jnp.arange(3)}),
}
registry = pytest.mark.parametrize(("network", "x"), REGISTRY.values(), ids=REGISTRY)


def output(network, x):
    return jax.jit(lambda x: network.init_with_output(jax.random.key(0), x)[0])(x)


@registry
def test_one_data_set_becomes_one_finite_vector(network, x):
    out = output(network, x)
    assert out.shape == (3,)
    assert np.all(np.isfinite(out))
    assert np.any(out != 0)


@registry
def test_a_network_is_its_own_configuration(network, x):
    again = network.clone()
    assert isinstance(network, nn.Module)
    assert (again, hash(again)) == (network, hash(network))
    assert type(network).__name__ in repr(network)


def test_every_public_network_is_registered():
    assert set(networks.__all__) - {"flatten", "MultilayerPerceptron"} == {
        name.split()[0] for name in REGISTRY
    }


def test_a_set_has_no_order():
    network = DeepSet(out=3, hidden=8)
    np.testing.assert_allclose(output(network, SET), output(network, SET[::-1]), atol=1e-6)
    assert np.any(np.abs(output(network, SET) - output(network, SET[:4])) > 1e-4)


def test_a_sorted_set_keeps_its_members_whole():
    np.testing.assert_array_equal(output(SortedSet(), SET[::-1]), jnp.ravel(SET))


def test_a_set_is_one_matrix(key):
    for wrong in (VECTOR, SET[None], {"a": SET}):
        with pytest.raises(ValueError, match=r"DeepSet: expected x of shape \(members, features\)"):
            DeepSet().init(key, wrong)


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
