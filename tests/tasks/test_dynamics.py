"""The ODE tasks: accuracy against a high-precision solver, and behaviour at the extremes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

from jaxsbi import tasks
from jaxsbi.tasks import lotka_volterra, sir
from jaxsbi.tasks.ode import solve

_SOLVERS = {"sir": sir._log_infected, "lotka_volterra": lotka_volterra._log_populations}
_BATCH = 81  # one compiled program per task: 3^4 corners, or as many draws of the prior


@functools.cache
def _program(name):
    """Return the compiled map from latent vectors (81, d) to parameters and log-trajectories."""
    task = tasks.get(name)

    def run(z):
        theta = task.prior.from_latent(z)
        return task.flatten(theta), _SOLVERS[name](theta)

    return jax.jit(jax.vmap(run))


def _prior_draws(name, n=30):
    """Return parameters and log-trajectories of `n` draws of the prior, in NumPy's float64."""
    z = jax.random.normal(jax.random.key(5), (_BATCH, tasks.get(name).dim))
    return (np.asarray(part, np.float64)[:n] for part in _program(name)(z))


def test_lotka_volterra_trajectories():
    rows, ours = _prior_draws("lotka_volterra")
    times = 2.1 * np.arange(10)
    for mine, (a, b, c, d) in zip(ours, rows, strict=True):
        exact = solve_ivp(
            lambda t, u: [a - b * np.exp(u[1]), d * np.exp(u[0]) - c],  # noqa: B023
            (0, times[-1]), np.log([30.0, 1.0]), t_eval=times,
            method="DOP853", rtol=1e-10, atol=1e-10,
        ).y  # fmt: skip
        exact = np.clip(exact.ravel(), np.log(1e-10), np.log(1e4))
        np.testing.assert_allclose(mine, exact, atol=1e-3)  # a hundredth of the noise


def test_sir_trajectories():
    rows, ours = _prior_draws("sir")
    days = 17.0 * np.arange(10)
    for mine, (b, g) in zip(ours, rows, strict=True):
        exact = solve_ivp(
            lambda t, u: [-b * u[0] * u[1], b * u[0] * u[1] - g * u[1]],  # noqa: B023
            (0, days[-1]), [1 - 1e-6, 1e-6], t_eval=days,
            method="DOP853", rtol=1e-11, atol=1e-20,
        ).y[1]  # fmt: skip
        np.testing.assert_allclose(mine, np.log(exact), atol=2e-4)


@pytest.mark.parametrize("name", ["sir", "lotka_volterra"])
def test_extreme_parameters_are_finite(name):
    """At four prior standard deviations in any direction the trajectories are solved."""
    corners = itertools.product([-4.0, 0.0, 4.0], repeat=tasks.get(name).dim)
    z = np.resize(np.array(list(corners), np.float32), (_BATCH, tasks.get(name).dim))
    _, trajectories = _program(name)(z)
    assert jnp.isfinite(trajectories).all()


def test_a_trajectory_that_explodes_is_nan_and_leaves_the_batch_alone():
    def field(t, y, rate):
        return rate * y**2

    ends = jax.jit(jax.vmap(lambda rate: solve(field, jnp.ones(1), jnp.array([0.0, 0.5]), rate)))(
        jnp.array([1.0, 100.0])
    )
    np.testing.assert_allclose(ends[0, :, 0], [1.0, 2.0], rtol=1e-4)
    assert jnp.isnan(ends[1]).all()


def test_sir_likelihood_is_the_binomial_s():
    task = tasks.get("sir")
    theta = task.unflatten(jnp.array([0.5, 0.12]))
    x = np.array([0, 0, 15, 560, 250, 40, 8, 0, 1, 0])
    p = np.exp(np.asarray(jax.jit(sir._log_infected)(theta), np.float64))
    expected = stats.binom(1000, p).logpmf(x).sum()
    ours = jax.jit(task.log_likelihood)(theta, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
