"""The mixture that particles are proposed from: its density, what it learns, and what it is for."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi import samplers
from jaxsbi.samplers import mixture
from jaxsbi.samplers.smc import MANY_DIMENSIONS
from jaxsbi.samplers.weights import cholesky_and_inverse

DIMS = (1, 2, 5, 20)
SIGNS = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
WIDTH = jnp.array([0.3, 0.1, 0.08, 0.05, 0.5])


def fitted(z, steps=20):
    return jax.lax.fori_loop(
        0, steps, lambda _, m: mixture.improved(m, z), mixture.first_mixture(z)
    )


def points(key, n, dim):
    """Return points of two clusters, one narrow and one correlated."""
    key_normal, key_side = jax.random.split(key)
    normal = jax.random.normal(key_normal, (n, dim))
    narrow = 2.0 + 0.05 * normal
    wide = jnp.cumsum(normal, 1) - 1.0
    return jnp.where(jax.random.bernoulli(key_side, 0.5, (n, 1)), narrow, wide)


@pytest.mark.parametrize("dim", DIMS)
def test_factors_are_cholesky_factors_and_their_inverses(dim, key):
    root = jax.random.normal(key, (7, dim, dim))
    a = root @ jnp.swapaxes(root, 1, 2) + 0.1 * jnp.eye(dim)[None]
    factor, inverse = cholesky_and_inverse(a)
    np.testing.assert_allclose(factor, np.linalg.cholesky(a), atol=2e-4)
    identity = np.broadcast_to(np.eye(dim), a.shape)
    np.testing.assert_allclose(inverse @ factor, identity, atol=1e-3)


@pytest.mark.parametrize("dim", DIMS)
def test_draws_have_the_density(dim, key):
    # Half of the draws are of q1, half of q2: the mean of q2 / (q1 / 2 + q2 / 2), which is at most
    # 2, is 1 for every pair of densities with one constant.
    key_a, key_b, key_one, key_other = jax.random.split(key, 4)
    one, other = (fitted(points(k, 256, dim)) for k in (key_a, key_b))
    drawn = ((key_one, one), (key_other, other))
    z = jnp.stack([mixture.sample(k, m, 20_000) for k, m in drawn])
    gap = jax.vmap(lambda z: mixture.log_prob(other, z) - mixture.log_prob(one, z))(z)
    share = 2.0 * jax.nn.sigmoid(gap)
    error = 0.5 * math.sqrt(float(jnp.sum(jnp.var(share, 1))) / 20_000)
    assert abs(float(jnp.mean(share)) - 1.0) < 4.0 * error


@pytest.mark.parametrize("dim", [1, 2, 5, MANY_DIMENSIONS])
def test_it_follows_narrow_and_wide_clusters(dim, key):
    z = points(key, 512, dim)
    fit = fitted(z)
    fresh = points(jax.random.fold_in(key, 1), 512, dim)
    whole = z - jnp.mean(z, 0, keepdims=True)
    factor, inverse = cholesky_and_inverse((whole.T @ whole / 512)[None])
    single = mixture.Mixture(jnp.zeros(1), jnp.mean(z, 0)[None], factor, inverse)
    gain = mixture.log_prob(fit, fresh) - mixture.log_prob(single, fresh)
    # The narrow half has a scale 0.05 in place of one near 1: 0.5 * dim * log(1 / 0.05) at best.
    assert float(jnp.mean(gain)) > 0.3 * dim


@pytest.mark.parametrize("dim", DIMS)
def test_equal_points_leave_it_finite(dim):
    fit = fitted(jnp.full((64, dim), 3.0))
    assert all(bool(jnp.all(jnp.isfinite(a))) for a in jax.tree.leaves(fit))
    assert bool(jnp.all(jnp.isfinite(mixture.log_prob(fit, jnp.zeros((5, dim))))))


def four_modes(z):
    """Return the density of four narrow modes in five dimensions, a quarter each."""
    centre = jnp.zeros((4, 5)).at[:, 2:4].set(1.2 * SIGNS)
    return jax.scipy.special.logsumexp(-0.5 * jnp.sum(((z[None] - centre) / WIDTH[None]) ** 2, -1))


def test_separated_modes_agree_over_populations_and_have_their_weights(key):
    """A thousand draws for each of 20 keys: no R-hat above 1.05, and the right weights."""
    run = jax.jit(jax.vmap(lambda k: samplers.smc()(k, four_modes, 5, 1_000)))
    z, info = run(jax.random.split(key, 20))
    assert float(jnp.max(info.r_hat)) < 1.05
    weight = np.asarray(jnp.mean((z[:, :, 2] > 0) & (z[:, :, 3] > 0), 1))
    independent = math.sqrt(0.25 * 0.75 / 1_000)
    assert weight.std(ddof=1) < 3.0 * independent
    assert abs(weight.mean() - 0.25) < 4.0 * weight.std(ddof=1) / math.sqrt(20)
