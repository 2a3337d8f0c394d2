"""Distortions of Gaussian noise, whose likelihood ratios are known: linear in x."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi import diagnostics
from jaxsbi.diagnostics import classifiers

SHIFT = 2.0
# x ~ N(0, I) whatever theta is.
PRIOR = jaxsbi.Prior(unused=dist.Normal(0.0, 1.0))


def simulator(key, theta):
    return jax.random.normal(key, (3,)) + 0.0 * theta["unused"]


def shift(key, x, direction):
    return x + SHIFT * direction


def simulate(seed=0, n=4000):
    return jaxsbi.simulate(jax.random.key(seed), PRIOR, simulator, n, progress=False)


def run(x, seed=0, simulations=None, distortion=shift, parameters=None):
    simulations = simulate() if simulations is None else simulations
    parameters = jnp.eye(3) if parameters is None else parameters
    return diagnostics.distortions(jax.random.key(seed), simulations, x, distortion, parameters)


def test_log_ratios_and_p_values_of_shifts_are_the_exact_ones():
    x = jnp.array([2.5, 0.3, 0.0])
    found = run(x, simulations=simulate(n=8000))
    # N(2, 1) against N(0, 1): 2 x - 2; learned best where both have data.
    np.testing.assert_allclose(found.log_ratio, SHIFT * x - SHIFT**2 / 2, atol=0.5)
    # Scatter among 4,000 simulations 0.008; the rest is by how much the classifier misplaces x,
    # least where it is far out: 0.3 nat of a standard deviation of 2.
    np.testing.assert_allclose(found.local[0], scipy.stats.norm.sf(x[0]), atol=4 * 0.0013)
    np.testing.assert_allclose(found.local, scipy.stats.norm.sf(x), atol=0.07)
    # Of three independent p-values, the smallest.
    assert found.p_value == pytest.approx(1 - (1 - found.local.min()) ** 3, abs=4 * 0.0021)
    # E_0[log p_i / p_0] = -2.
    np.testing.assert_allclose(found.null.mean(0), -(SHIFT**2) / 2, atol=0.3)


def test_a_distorted_observation_fails_and_its_distortion_is_named():
    found = run(jnp.array([0.2, 4.5, 0.1]))
    assert found.p_value < 0.005
    assert int(np.argmin(found.local)) == 1
    assert "FAILS" in found.verdict
    assert "distortion 1" in found.verdict
    assert "passes" in run(jnp.array([0.5, -0.3, 0.1])).verdict


def test_the_global_p_value_is_uniform_under_the_null(monkeypatch):
    # However short the training, and for distortions that resemble one another. A number of
    # simulations of its own, since the length of training is read when the program is traced.
    monkeypatch.setattr(classifiers, "STEPS", 40)
    similar = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.2, 0.0], [0.0, 0.0, 1.0]])
    p_values = []
    for seed in range(100):
        x = simulate(1000 + seed, 1).x[0]
        p_values.append(run(x, seed, simulate(seed, 400), parameters=similar).p_value)
    # Ties among the smallest of discrete p-values make it conservative by a step or two of 1/201.
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01


def test_distortions_may_be_random():
    def outlier(key, x, size):
        place, sign = jax.random.split(key)
        at = jax.random.randint(place, (), 0, 3)
        return x.at[at].add(size * jax.random.rademacher(sign, (), x.dtype))

    found = run(jnp.array([0.0, 0.0, -5.0]), distortion=outlier, parameters=jnp.array([3.0, 5.0]))
    assert found.p_value < 0.005


def test_wrong_input_is_named():
    x = jnp.zeros(3)
    with pytest.raises(ValueError, match="at least 200 finite ones, got 100"):
        run(x, simulations=simulate(n=100))
    with pytest.raises(ValueError, match=r"got none for parameters number \[1\]"):
        run(x, parameters=jnp.eye(3).at[1].set(0.0))
    with pytest.raises(ValueError, match=r"got none for parameters number \[0\]"):
        run(x, parameters=jnp.eye(3).at[0].set(jnp.nan))
    with pytest.raises(ValueError, match="one entry per distortion"):
        run(x, parameters=jnp.array(1.0))
    with pytest.raises(ValueError, match="expected shape"):
        run(jnp.zeros(2))
    with pytest.raises(TypeError, match="typed key"):
        diagnostics.distortions(jax.random.PRNGKey(0), simulate(), x, shift, jnp.eye(3))
