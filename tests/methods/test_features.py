"""What a network sees of the data: masks, what it keeps of them, and modules of other makes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx

import jaxsbi
from jaxsbi.compression import frozen
from jaxsbi.methods.features import init_context, read_context, standardize, statistics
from jaxsbi.networks import MLP, SVD, DeepSet, Fuse, GraphNet

ROWS = 64


def sets(rng, room=6):
    mask = np.arange(room) < rng.integers(1, room + 1, size=(ROWS, 1))
    return {"values": rng.normal(3.0, 2.0, (ROWS, room, 2)).astype(np.float32), "mask": mask}


def filled(x, by):
    return x | {"values": np.where(x["mask"][..., None], x["values"], np.float32(by))}


def test_padding_is_in_no_statistic_and_becomes_zero():
    x = sets(np.random.default_rng(0))
    stats = statistics(filled(x, 1e6), pooled=True)
    there = x["values"][x["mask"]]
    np.testing.assert_allclose(stats["mean"]["values"], there.mean(0)[None], rtol=1e-5)
    np.testing.assert_allclose(stats["scale"]["values"], there.std(0)[None], rtol=1e-5)
    one = standardize(stats, jax.tree.map(lambda a: a[0], filled(x, 1e6)))
    assert one["mask"].dtype == bool
    np.testing.assert_array_equal(one["mask"], x["mask"][0])
    np.testing.assert_array_equal(one["values"][~x["mask"][0]], 0.0)
    for a, b in zip(
        jax.tree.leaves(stats), jax.tree.leaves(statistics(x, pooled=True)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_missing_numbers_are_in_no_statistic_of_their_own():
    values = jnp.array([[1.0, 10.0], [3.0, 1e6], [5.0, 30.0], [1e6, 20.0]])
    mask = jnp.array([[True, True], [True, False], [True, True], [False, True]])
    stats = statistics({"values": values, "mask": mask})
    np.testing.assert_allclose(stats["mean"]["values"], [3.0, 20.0])
    # Never there: nothing to scale by.
    stats = statistics({"values": values, "mask": jnp.zeros_like(mask)})
    np.testing.assert_array_equal(stats["mean"]["values"], 0.0)
    np.testing.assert_array_equal(stats["scale"]["values"], 1.0)


def test_indices_are_no_quantities_but_counts_are():
    count = jnp.arange(ROWS * 4).reshape(ROWS, 4)
    x = {"nodes": jnp.ones((ROWS, 5, 2)), "edges": {"senders": count % 5, "receivers": count % 3}}
    stats = statistics(x, pooled=True)
    one = standardize(stats, jax.tree.map(lambda a: a[0], x))
    np.testing.assert_array_equal(one["edges"]["senders"], count[0] % 5)
    assert jnp.issubdtype(one["edges"]["senders"].dtype, jnp.integer)
    assert standardize(statistics(count), count[0]).dtype == jnp.float32
    _, _, context = init_context(jax.random.key(0), GraphNet(out=3, hidden=4), x)
    assert np.all(np.isfinite(context))


@pytest.mark.parametrize("summary", [None, DeepSet(out=3, hidden=8), MLP(8)], ids=str)
def test_what_a_posterior_reads_does_not_depend_on_padding(summary):
    x = sets(np.random.default_rng(1))
    found = []
    for by in (0.0, 1e4):
        given = jax.tree.map(jnp.asarray, filled(x, by))
        stats, params, _ = init_context(jax.random.key(0), summary, given)
        read = jax.vmap(lambda x, s=stats, p=params: read_context(summary, s, p, x))
        found.append(np.asarray(read(given)))
    np.testing.assert_array_equal(*found)
    assert np.all(np.isfinite(found[0]))


def low_rank(rng, rows, numbers=40):
    signal = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, numbers))
    return jnp.asarray(signal + 0.01 * rng.normal(size=(rows, numbers)), jnp.float32)


@pytest.mark.parametrize("rows", [30, 200])
def test_a_basis_is_that_of_the_data_and_not_trained(key, rows):
    x = low_rank(np.random.default_rng(0), rows)
    stats, params, context = init_context(key, SVD(components=2, out=3), x)
    assert context.shape == (3,)
    assert "statistics" not in params
    kept = jax.tree.map(np.asarray, stats["summary"]["statistics"])
    standard = np.asarray(jax.vmap(lambda x: standardize(stats, x))(x))
    scores = (standard - kept["mean"]) @ kept["basis"]
    np.testing.assert_allclose(np.cov(scores.T, bias=True), np.eye(2), atol=1e-3)
    # Its plane is the data's: NumPy's decomposition, up to signs.
    directions = np.linalg.svd(standard - standard.mean(0), full_matrices=False)[2][:2]
    basis = kept["basis"] / np.linalg.norm(kept["basis"], axis=0)
    np.testing.assert_allclose(np.abs(directions @ basis), np.eye(2), atol=1e-3)


def test_a_basis_within_another_network_sees_its_part(key):
    rng = np.random.default_rng(0)
    x = {"strain": low_rank(rng, ROWS), "bag": jax.tree.map(jnp.asarray, sets(rng))}
    stats, params, _ = init_context(key, Fuse({"strain": SVD(components=2), "bag": DeepSet()}), x)
    (basis,) = [a for a in jax.tree.leaves(stats["summary"]) if a.ndim == 2]
    assert basis.shape == (40, 2)
    assert np.all(np.linalg.norm(basis, axis=0) > 0)
    assert params


def test_a_basis_wants_enough_data(key):
    x = low_rank(np.random.default_rng(0), 10)
    with pytest.raises(ValueError, match=r"SVD: .* got components=11 for 40 numbers and 10"):
        init_context(key, SVD(components=11), x)


def test_a_fusion_wants_its_names(key):
    network = Fuse({"image": MLP(4), "bag": DeepSet()})
    with pytest.raises(ValueError, match=r"Fuse: expected x to be a dict of \['bag', 'image'\]"):
        network.init(key, {"image": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"Fuse: expected at least one network"):
        Fuse({}).init(key, {})


class Own(nnx.Module):
    """A user's NNX module."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.first, self.last = nnx.Linear(2, width, rngs=rngs), nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


class OwnLinen(nn.Module):
    """A user's Linen module."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(16)(x)))


@pytest.mark.key_reuse  # the bridge makes its module anew, from the same key, in each call
@pytest.mark.parametrize(
    "network", [nnx.bridge.ToLinen(Own, args=(16,)), OwnLinen()], ids=["nnx", "linen"]
)
def test_a_users_own_module_works_in_the_same_place(key, network):
    assert hash(network) == hash(network.clone())
    prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))
    a = jax.random.normal(key, (500,))
    noise = 0.1 * jax.random.normal(jax.random.key(1), (500, 2))
    simulations = jaxsbi.Simulations({"a": a}, a[:, None] + noise, jnp.ones(500))
    method = jaxsbi.npe(density=jaxsbi.densities.Gaussian(), summary=network)
    fitted = jaxsbi.fit(
        jax.random.key(2), method, prior, simulations, max_epochs=40, batch_size=50,
        optimizer=optax.adam(1e-2), progress=False,
    )  # fmt: skip
    assert fitted.history.best_loss < 0.0  # 1.42 for the prior; exactly -1.23
    draws = fitted.posterior.sample(jax.random.key(3), jnp.array([1.0, 1.0]), 1000)["a"]
    assert abs(float(jnp.mean(draws)) - 1.0) < 0.2


def made():
    return Own(4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxsbi.npe(summary=made()), r"method.summary: .*got Own. .*bridge.ToLinen\("),
        (lambda: jaxsbi.npe(summary=Own), r"method.summary: .*got the class Own"),
        (lambda: jaxsbi.npe(density=made()), r"method.density: .*got Own"),
        (lambda: jaxsbi.npe(density=OwnLinen), r"method.density: .*got the class OwnLinen"),
        (lambda: jaxsbi.nle(density=made()), r"method.density.continuous: .*got Own"),
        (lambda: jaxsbi.nre(classifier=jnp.tanh), r"method.classifier: .*got .*function"),
        (lambda: jaxsbi.fmpe(field=made()), r"method.field: .*got Own"),
        (lambda: jaxsbi.npse(field=lambda noise, u, context: u), r"method.field: .*got function"),
        (lambda: jaxsbi.emulator(network=lambda x: x), r"method.network: .*got function"),
        (lambda: jaxsbi.npe(summary=Fuse({"a": made()})), r"method.summary.a: .*got Own"),
        (lambda: frozen(jaxsbi.npe(summary=made()), jnp.ravel), r"method.method.summary: "),
    ],
)
def test_what_is_no_linen_module_is_named(make, message):
    rows = jaxsbi.from_arrays({"a": jnp.ones(20)}, jnp.ones((20, 2)))
    prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match=message):
        jaxsbi.fit(jax.random.key(0), make(), prior, rows, progress=False)


def test_what_a_network_keeps_is_saved_and_loaded(key, tmp_path):
    prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))
    a = jax.random.normal(key, (200,))
    rng = np.random.default_rng(0)
    x = {
        "strain": low_rank(rng, 200) + a[:, None],
        "bag": {"values": low_rank(rng, 200, 5)[..., None], "mask": jnp.ones((200, 5), bool)},
    }
    method = jaxsbi.npe(
        density=jaxsbi.densities.Gaussian(),
        summary=Fuse({"strain": SVD(components=2, hidden=8), "bag": DeepSet(hidden=8)}, hidden=8),
    )
    simulations = jaxsbi.Simulations({"a": a}, x, jnp.ones(200))
    fitted = jaxsbi.fit(
        jax.random.key(1), method, prior, simulations, max_epochs=2, ensemble=2, progress=False
    )
    jaxsbi.save(tmp_path / "run", fitted)
    loaded = jaxsbi.load(tmp_path / "run")
    one = jax.tree.map(lambda a: a[0], x)
    assert loaded.posterior.method == fitted.posterior.method
    density = [f.posterior.log_prob({"a": jnp.array(0.3)}, one) for f in (fitted, loaded)]
    np.testing.assert_array_equal(*density)
    assert np.isfinite(density[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e20, 1e33])
def test_the_unit_of_x_does_not_matter(scale, key):
    x = jnp.array([1.0, -2.0, 30.0])[None] + jax.random.normal(key, (500, 3))
    found, plain = statistics(scale * x), statistics(x)
    for name in ("mean", "scale"):
        np.testing.assert_allclose(found[name] / scale, plain[name], rtol=1e-5)


def test_small_changes_of_large_doubles_are_seen(x64):
    # Seconds since 1980, and milliseconds between the arrivals of a wave.
    x = 1126259462.0 + 1e-3 * np.random.default_rng(0).normal(size=(1000, 1))
    found = statistics(jnp.asarray(x))
    np.testing.assert_allclose(found["scale"], x.std(), rtol=1e-3)


def test_numbers_that_never_change_have_scale_one():
    x = jnp.stack([jnp.full(100, 0.1), jnp.zeros(100), jnp.full(100, 1e-20)], 1)
    np.testing.assert_array_equal(statistics(x)["scale"], 1.0)


def test_half_precision_is_read_in_single_and_complex_numbers_are_refused():
    assert statistics(jnp.ones((9, 2), jnp.float16))["mean"].dtype == jnp.float32
    with pytest.raises(TypeError, match="expected real numbers, got complex64"):
        statistics(jnp.ones((9, 2), jnp.complex64))
