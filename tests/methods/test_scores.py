"""Normal scores: monotone, close to normal, and only where a number has heavy tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsbi.methods.features import init_context, read_context
from jaxsbi.methods.scores import EDGE, fit_scores, tame

N = 4_000


def heavy(key, power=1.5):
    """Log-normal draws, standardised: kurtosis in the hundreds."""
    x = jnp.exp(power * jax.random.normal(key, (N, 1)))
    return (x - jnp.mean(x)) / jnp.std(x)


def test_heavy_tails_become_normal(key):
    x = heavy(key)
    scores = fit_scores(x)
    score = jax.vmap(lambda row: tame(scores, row))(x)[:, 0]
    assert bool(scores["heavy"][0])
    # The 1e-4 critical value of the Kolmogorov-Smirnov statistic is 2.2 / sqrt(N).
    assert stats.kstest(np.asarray(score), "norm").statistic < 2.2 / np.sqrt(N)


def test_the_map_rises_and_stays_moderate_far_outside(key):
    scores = fit_scores(heavy(key))
    grid = jnp.concatenate([-jnp.logspace(6, -3, 200), jnp.logspace(-3, 6, 2_000)])[:, None]
    score = jax.vmap(lambda row: tame(scores, row))(grid)[:, 0]
    assert np.all(np.diff(score) > -1e-6)
    assert float(jnp.max(jnp.abs(score))) < EDGE + np.log1p(1e6 * float(scores["slope"].max()))
    slope = jax.vmap(jax.grad(lambda v: tame(scores, v[None])[0]))(grid[:, 0])
    assert np.all(np.isfinite(slope))


def test_other_numbers_keep_their_values(key):
    x = jax.random.normal(key, (N, 3)) * jnp.array([[1.0, 0.0, 1.0]])
    scores = fit_scores(x.at[:, 2].set(jnp.round(x[:, 2])))
    assert not np.any(scores["heavy"])
    row = jnp.array([0.3, 0.0, 9.0])
    np.testing.assert_allclose(tame(scores, row), [0.3, 0.0, 2 * EDGE], rtol=1e-6)


def test_rare_counts_have_one_score_each(key):
    x = jax.random.poisson(key, 0.02, (N, 1)).astype(float)
    x = (x - jnp.mean(x)) / jnp.std(x)
    scores = fit_scores(x)
    values = jnp.asarray(np.unique(x))
    score = jax.vmap(lambda v: tame(scores, v[None]))(values)[:, 0]
    assert bool(scores["heavy"][0])
    assert np.all(np.isfinite(score))
    assert np.all(np.diff(score) > 0)


@pytest.mark.parametrize("summary", [None, "fixed"])
def test_a_context_is_tame(key, summary):
    import flax.linen as nn

    class Reverse(nn.Module):
        def __call__(self, x):
            return x[::-1]

    key_heavy, key_light, key_init = jax.random.split(key, 3)
    x = jnp.concatenate([heavy(key_heavy), jax.random.normal(key_light, (N, 1))], 1)
    x = 100.0 + 50.0 * x
    module = None if summary is None else Reverse()
    stats, params, context = init_context(key_init, module, x)
    assert context.shape == (2,)
    rows = jax.vmap(lambda x: read_context(module, stats, params, x))(x)
    np.testing.assert_allclose(jnp.std(rows, 0), 1.0, atol=0.05)
    assert float(jnp.mean(rows**4)) < 4.0
