"""Every network × what a summary or a classifier must be, and what it promises about its data."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi import networks
from jaxsbi.networks import (
    MLP,
    SVD,
    Conv,
    CosmoPower,
    DeepSet,
    Fuse,
    GraphNet,
    ResNet,
    SetTransformer,
    SortedSet,
    StateSpace,
    Transformer,
    initialize,
)

OUT, BATCH = 3, 6
KEY = jax.random.key(0)


class Entry(NamedTuple):
    """A network whose output has 3 numbers, and how a batch of data for it is made.

    Attributes:
        network: The module.
        data: From a generator to a batch, every leaf of shape `(BATCH, *shape)`.
        unordered: Whether the order of members says nothing.
        padded: Whether the amount of padding says nothing.
    """

    network: nn.Module
    data: Any
    unordered: bool = False
    padded: bool = False


def array(*shape):
    return lambda rng: rng.normal(size=(BATCH, *shape)).astype(np.float32)


def masked(*shape, axes=1, **more):
    """Make values with a mask over their first axes, the last member never there."""

    def make(rng):
        mask = rng.uniform(size=(BATCH, *shape[:axes])) < 0.8
        mask[:, :3], mask[:, -1] = True, False
        more_arrays = {name: array(*s)(rng) for name, s in more.items()}
        return {"values": array(*shape)(rng), "mask": mask, **more_arrays}

    return make


def tree(**makers):
    return lambda rng: {name: make(rng) for name, make in makers.items()}


def graph(nodes, edges, *, features=2, padded=False):
    def make(rng):
        ends = {
            name: rng.integers(nodes, size=(BATCH, edges)).astype(np.int32)
            for name in ("senders", "receivers")
        }
        if not padded:
            return {"nodes": array(nodes, 3)(rng), "edges": ends}
        return {
            "nodes": masked(nodes, 3)(rng),
            "edges": masked(edges, features)(rng) | ends,
        }

    return make


SMALL = {"out": OUT, "hidden": 8}
ATTENTION = {**SMALL, "heads": 2, "blocks": 1}
IMAGE = {**SMALL, "features": (4, 5)}

REGISTRY = {
    "MLP": Entry(MLP(8, 8, out=OUT), array(4)),
    "MLP without head": Entry(MLP(8, OUT, activation="tanh"), array(4)),
    "MLP of a pytree": Entry(MLP(8, out=OUT), tree(a=array(5, 2), b=array(3))),
    "MLP masked": Entry(MLP(8, out=OUT), masked(4)),
    "ResNet": Entry(ResNet(hidden=8, out=OUT), array(4)),
    "CosmoPower": Entry(CosmoPower(hidden=(8, 8), out=OUT), array(4)),
    "CosmoPower without head": Entry(CosmoPower(hidden=(8, OUT)), array(4)),
    "ResNet normalised": Entry(ResNet(hidden=OUT, normalize=True), array(4)),
    "Conv": Entry(Conv(**IMAGE), array(7, 8, 2)),
    "Conv series": Entry(Conv(**IMAGE, dims=1, kernel=5), array(9, 2)),
    "Conv volume": Entry(Conv(**IMAGE, dims=3), array(4, 5, 6, 1)),
    "Conv residual masked": Entry(Conv(**IMAGE, residual=True), masked(7, 8, 2, axes=2)),
    "DeepSet": Entry(DeepSet(**SMALL), array(5, 2), unordered=True),
    "DeepSet masked": Entry(DeepSet(**SMALL), masked(5, 2), unordered=True, padded=True),
    "DeepSet with missing numbers": Entry(
        DeepSet(**SMALL), masked(5, 2, axes=2), unordered=True, padded=True
    ),
    "SortedSet": Entry(SortedSet(), array(3, 1), unordered=True),
    "SetTransformer": Entry(SetTransformer(**ATTENTION), array(5, 2), unordered=True),
    "SetTransformer masked": Entry(
        SetTransformer(**ATTENTION), masked(5, 2), unordered=True, padded=True
    ),
    "SetTransformer of pairs": Entry(
        SetTransformer(**ATTENTION, inducing=None), masked(5, 2), unordered=True, padded=True
    ),
    "Transformer": Entry(Transformer(**ATTENTION), array(5, 2)),
    "Transformer masked": Entry(Transformer(**ATTENTION), masked(5, 2), padded=True),
    "Transformer at positions": Entry(
        Transformer(**ATTENTION), masked(5, 2, positions=(5, 1)), unordered=True, padded=True
    ),
    "StateSpace": Entry(StateSpace(**SMALL, states=4, blocks=1), array(9, 2)),
    "StateSpace masked": Entry(StateSpace(**SMALL, states=4, blocks=1), masked(9, 2), padded=True),
    "GraphNet": Entry(GraphNet(**SMALL, rounds=1), graph(6, 16)),
    "GraphNet masked": Entry(GraphNet(**SMALL, rounds=1), graph(6, 16, padded=True)),
    "SVD": Entry(SVD(components=2, out=OUT, hidden=8), tree(a=array(7), b=array(2, 2))),
    "Fuse": Entry(
        Fuse(
            {"image": Conv(**IMAGE), "bag": DeepSet(**SMALL), "spectrum": SVD(components=2)},
            out=OUT,
        ),
        tree(image=array(7, 8, 2), bag=masked(5, 2), spectrum=array(9)),
    ),
}


registry = pytest.mark.parametrize("name", REGISTRY)
HELPERS = {"flatten", "bucket", "pad", "initialize"}
MADE = {"MultilayerPerceptron": "MLP", "Fusion": "Fuse"}


@functools.cache
def batch(name):
    return jax.tree.map(jnp.asarray, REGISTRY[name].data(np.random.default_rng(0)))


def one(name, row=0):
    return jax.tree.map(lambda a: a[row], batch(name))


@functools.cache
def variables(name):
    """Return the variables of an entry that has seen its data, somewhere else than at the start.

    There, biases are zero and residual blocks the identity.
    """
    network, x = REGISTRY[name].network, batch(name)
    leaves, treedef = jax.tree.flatten(jax.jit(lambda key: initialize(key, network, x)[1])(KEY))
    rng = np.random.default_rng(1)
    return treedef.unflatten(a + 0.1 * rng.normal(size=a.shape).astype(a.dtype) for a in leaves)


@functools.cache
def program(name):
    return jax.jit(REGISTRY[name].network.apply)


def output(name, x):
    return np.asarray(program(name)(variables(name), x))


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@registry
def test_one_data_set_becomes_one_finite_vector_with_finite_gradients(name):
    out = output(name, one(name))
    assert out.shape == (OUT,)
    assert out.dtype == jnp.float32
    assert np.any(out != 0)
    network, x = REGISTRY[name].network, one(name)
    gradients = jax.jit(jax.grad(lambda variables: jnp.sum(network.apply(variables, x))))(
        variables(name)
    )
    for a in (out, *jax.tree.leaves(gradients)):
        assert np.all(np.isfinite(a))


@registry
def test_a_network_is_its_own_configuration(name):
    network = REGISTRY[name].network
    again = network.clone()
    assert isinstance(network, nn.Module)
    assert (again, hash(again)) == (network, hash(network))
    assert type(network).__name__ in repr(network)


@registry
def test_a_batch_is_a_vmap_and_different_data_differ(name):
    outs = jax.jit(jax.vmap(REGISTRY[name].network.apply, (None, 0)))(variables(name), batch(name))
    for row in range(BATCH):
        close(outs[row], output(name, one(name, row)))
    assert program(name)._cache_size() == 1  # data sets of one shape share one program
    assert np.all(np.std(outs, 0) > 1e-4)


def test_every_public_network_is_registered():
    assert set(networks.__all__) - HELPERS - set(MADE) == {name.split()[0] for name in REGISTRY}
    public = [getattr(networks, name) for name in networks.__all__]
    assert {type(entry.network) for entry in REGISTRY.values()} == {
        cls for cls in public if isinstance(cls, type) and issubclass(cls, nn.Module)
    }


def names(promise):
    return pytest.mark.parametrize("name", [name for name in REGISTRY if promise(name)])


def leading(x, change):
    """Change the axis of members of every array."""
    return jax.tree.map(lambda a: jnp.asarray(change(np.asarray(a))), x)


def holds_mask(name):
    return isinstance(batch(name), dict) and "mask" in str(jax.tree.structure(batch(name)))


def padding_replaced(x, by):
    """Return `x` with what is masked replaced, in every dict that has a mask."""
    if not isinstance(x, dict):
        return x
    new = {key: padding_replaced(a, by) for key, a in x.items()}
    if "mask" in x:
        mask = np.asarray(x["mask"])
        for key in set(x) - {"mask"}:
            a = np.array(x[key])
            where = mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim))
            new[key] = np.where(where, a, np.asarray(by).astype(a.dtype))
    return jax.tree.map(jnp.asarray, new)


@names(lambda name: REGISTRY[name].unordered)
def test_order_says_nothing(name):
    x = one(name)
    order = np.random.default_rng(2).permutation(len(jax.tree.leaves(x)[0]))
    close(output(name, leading(x, lambda a: a[order])), output(name, x))


@names(lambda name: holds_mask(name) and not name.startswith("MLP"))
def test_what_is_masked_is_not_looked_at(name):
    x = one(name)
    for by in (0, 7, -1e6):
        np.testing.assert_array_equal(output(name, padding_replaced(x, by)), output(name, x))


@names(lambda name: REGISTRY[name].padded)
def test_more_padding_says_nothing(name):
    x = one(name)
    more = leading(x, lambda a: np.concatenate([a, np.ones_like(a[:4])]))
    more["mask"] = more["mask"].at[-4:].set(False)
    close(output(name, more), output(name, x))


@names(lambda name: REGISTRY[name].padded or name == "GraphNet masked")
def test_with_nothing_there_the_summary_is_finite_and_always_the_same(name):
    outs = []
    for row in (0, 1):
        none = jax.tree.map(lambda a: jnp.zeros_like(a) if a.dtype == bool else a, one(name, row))
        outs.append(output(name, none))
    assert np.all(np.isfinite(outs[0]))
    np.testing.assert_array_equal(*outs)
    if REGISTRY[name].padded:
        more = leading(none, lambda a: np.concatenate([a, np.zeros_like(a[:4])]))
        close(output(name, more), outs[0])


def relabelled(x, rng):
    """Return the same graph with its nodes and edges in another order."""
    nodes, edges = x["nodes"], x["edges"]
    count = len(jax.tree.leaves(nodes)[0])
    order, turn = rng.permutation(count), rng.permutation(len(edges["senders"]))
    label = np.argsort(order)
    edges = leading(edges, lambda a: a[turn])
    edges |= {key: jnp.asarray(label)[edges[key]] for key in ("senders", "receivers")}
    return {"nodes": leading(nodes, lambda a: a[order]), "edges": edges}


@names(lambda name: name.startswith("GraphNet"))
def test_labels_say_nothing_but_edges_do(name):
    x, rng = one(name), np.random.default_rng(3)
    same = relabelled(x, rng)
    close(output(name, same), output(name, x))
    turned = x["edges"] | {
        "senders": x["edges"]["receivers"],
        "receivers": x["edges"]["senders"],
    }
    assert np.max(np.abs(output(name, x | {"edges": turned}) - output(name, x))) > 1e-4


def test_a_graphs_padding_says_nothing():
    name = "GraphNet masked"
    x = one(name)
    more = {
        key: leading(part, lambda a: np.concatenate([a, np.full_like(a[:3], 99)]))
        for key, part in x.items()
    }
    for part in more.values():
        part["mask"] = part["mask"].at[-3:].set(False)
    close(output(name, more), output(name, x))
    # An edge at a masked node is no edge: this one has features, and both are changed.
    edges = {
        "senders": jnp.array([0, 5]),
        "receivers": jnp.array([1, 1]),
        "values": jnp.ones((2, 2)),
        "mask": jnp.array([True, True]),
    }
    nodes = {"values": x["nodes"]["values"], "mask": jnp.arange(6) < 5}
    with_it = output(name, {"nodes": nodes, "edges": edges})
    without = output(name, {"nodes": nodes, "edges": edges | {"mask": jnp.array([True, False])}})
    np.testing.assert_array_equal(with_it, without)
