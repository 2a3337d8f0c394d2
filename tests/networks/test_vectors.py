"""What single networks, flattening and activations do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.networks import (
    Conv,
    DeepSet,
    GraphNet,
    SetTransformer,
    SortedSet,
    Transformer,
    activations,
    flatten,
)
from jaxsbi.networks.conv import patches

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


@pytest.mark.parametrize(
    ("shape", "kernel", "strides"), [((9, 2), 4, 2), ((7, 8, 3), 5, 2), ((4, 5, 6, 1), 3, 1)]
)
def test_patches_make_a_convolution(key, shape, kernel, strides):
    h = jax.random.normal(key, shape)
    size = (kernel,) * (len(shape) - 1)
    conv = nn.Conv(4, size, strides)
    params = conv.init(jax.random.key(1), h)
    flat = params["params"]["kernel"].reshape(-1, 4)
    np.testing.assert_allclose(patches(h, size, strides) @ flat, conv.apply(params, h), atol=1e-4)


def test_a_convolution_wants_its_grid_and_channels(key):
    with pytest.raises(ValueError, match=r"Conv\(dims=2\): expected x of shape \(height, width"):
        Conv().init(key, SET)
    with pytest.raises(ValueError, match=r"Conv: expected dims of 1, 2 or 3"):
        Conv(dims=4)


def test_attention_wants_a_multiple_of_its_heads():
    for cls in (SetTransformer, Transformer):
        with pytest.raises(ValueError, match=r"expected hidden to be a multiple of heads, got"):
            cls(hidden=10, heads=4)


EDGES = {"senders": jnp.array([0, 1]), "receivers": jnp.array([1, 2])}
WRONG = {
    "an array": (SET, ValueError, r'GraphNet: expected \{"nodes": .* got \(5, 2\)'),
    "another name": (
        {"nodes": SET, "edges": EDGES | {"weights": SET}},
        ValueError,
        r"got edges with \['receivers', 'senders', 'weights'\]",
    ),
    "floats": (
        {"nodes": SET, "edges": EDGES | {"senders": jnp.ones(2)}},
        TypeError,
        r'x\["edges"\]\["senders"\]: expected a vector of integers, .* got float32\[2\]',
    ),
    "too few": (
        {"nodes": SET, "edges": EDGES | {"senders": jnp.arange(3)}},
        ValueError,
        r"expected as many senders as receivers and edges, got \(3,\), \(2,\) and 3",
    ),
}


@pytest.mark.parametrize(("x", "error", "match"), WRONG.values(), ids=WRONG)
def test_wrong_graphs_are_refused(key, x, error, match):
    with pytest.raises(error, match=match):
        GraphNet().init(key, x)
