"""Data of several kinds: the product of three densities, against sums and quadrature."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi import densities
from jaxsbi.densities.mixed import parts

MIXED = densities.Mixed(
    binary=densities.MaskedBernoulli(hidden=8),
    integer=densities.MaskedCategorical(classes=3, hidden=8),
    continuous=densities.MaskedAutoregressive(layers=1, hidden=8),
)
CONTEXT = jnp.array([0.5, -1.0])


def example(bits=(True, False), k=1, u=0.2):
    return parts({"a": jnp.asarray(u, float), "b": jnp.asarray(bits), "c": jnp.asarray(k)})


def variables(density):
    params = jax.jit(lambda k: density.init(k, example(), CONTEXT, method="log_prob"))(
        jax.random.key(0)
    )["params"]
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(0.4 * generator.normal(size=a.shape)), params)
    return {"params": params}


def test_parts_are_told_apart_by_dtype():
    x = {
        "flag": jnp.array(True),
        "count": jnp.arange(4, dtype=jnp.uint8).reshape(2, 2),
        "signed": jnp.array(-3),
        "value": jnp.array([0.5, 1.5]),
    }
    binary, integer, continuous = parts(x)
    assert (binary.dtype, binary.tolist()) == (jnp.bool_, [True])
    assert integer.tolist() == [0, 1, 2, 3, -3]
    assert continuous.tolist() == [0.5, 1.5]
    with pytest.raises(TypeError, match=r"expected bool, integer or float.*complex64"):
        parts(jnp.zeros(2, jnp.complex64))


def test_the_whole_is_one(x64):
    density = MIXED.sized(example())
    given = variables(density)
    u = jnp.linspace(-40.0, 40.0, 4_001)

    @jax.jit
    def integral(bits, k):
        value = jax.vmap(
            lambda u: density.apply(given, example(bits, k, u), CONTEXT, method="log_prob")
        )(u)
        return jnp.sum(jnp.exp(value)) * (u[1] - u[0])

    total = sum(
        float(integral(jnp.asarray(bits), jnp.asarray(k)))
        for *bits, k in itertools.product([False, True], [False, True], range(3))
    )
    assert total == pytest.approx(1.0, abs=1e-6)


def test_draws_carry_their_density_and_every_kind_sees_those_before_it():
    density = MIXED.sized(example())
    given = variables(density)

    def one(key):
        x, own = density.apply(given, key, CONTEXT, method="sample_and_log_prob")
        return x, own, density.apply(given, x, CONTEXT, method="log_prob")

    x, own, log_prob = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 50))
    assert [(a.shape, a.dtype.kind) for a in x] == [((50, 2), "b"), ((50, 1), "i"), ((50, 1), "f")]
    np.testing.assert_allclose(own, log_prob, rtol=1e-4, atol=1e-4)

    @jax.jit
    def log_prob_of(x):
        return density.apply(given, x, CONTEXT, method="log_prob")

    # A difference in u is another one for other bits and other counts.
    def step(bits, k):
        return float(log_prob_of(example(bits, k, 1.0)) - log_prob_of(example(bits, k, 0.0)))

    steps = [step((True, False), 1), step((True, True), 1), step((True, False), 2)]
    assert len({round(s, 4) for s in steps}) == 3
