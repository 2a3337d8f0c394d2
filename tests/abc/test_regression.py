"""Regression adjustment and learned summaries, against conjugate posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import abc, networks
from jaxsbi.abc.regression import ridge

PRIOR = jaxsbi.Prior(mean=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
MIX = jnp.array([[1.0, 0.5], [-0.3, 1.0], [0.2, 0.8]])
OBSERVED = jnp.array([0.9, -0.4, 0.6])
NOISE = 0.5
PRECISION = np.eye(2) + np.asarray(MIX).T @ np.asarray(MIX) / NOISE**2
COVARIANCE = np.linalg.inv(PRECISION)
MEAN = COVARIANCE @ np.asarray(MIX).T @ np.asarray(OBSERVED) / NOISE**2


def linear(key, theta):
    return MIX @ theta["mean"] + NOISE * jax.random.normal(key, (3,))


def kept(simulator=linear, x=OBSERVED, n=20_000, keep=2_000):
    return abc.rejection(
        jax.random.key(0), PRIOR, simulator, x, num_simulations=n, keep=keep,
    )  # fmt: skip


def moments(draws, weights):
    values = np.asarray(draws["mean"], np.float64)
    weights = np.asarray(weights, np.float64)
    mean = weights @ values
    return mean, (weights[:, None] * (values - mean)).T @ (values - mean)


def errors(draws, weights):
    """Return the moments' distance from the exact ones, in units of their sampling errors."""
    effective = 1 / np.sum(np.asarray(weights, np.float64) ** 2)
    mean, covariance = moments(draws, weights)
    deviation = np.sqrt(np.diag(COVARIANCE))
    of_mean = (mean - MEAN) / (deviation / np.sqrt(effective))
    # Var of an element of a normal's sample covariance: (c_ii c_jj + c_ij²) / n.
    variance = np.outer(deviation**2, deviation**2) + COVARIANCE**2
    of_covariance = (covariance - COVARIANCE) / np.sqrt(variance / effective)
    return max(np.abs(of_mean).max(), np.abs(of_covariance).max())


@pytest.mark.parametrize("local", [True, False])
def test_a_conjugate_posterior_is_recovered(local):
    draws, info = kept()
    adjusted, weights = abc.adjust(PRIOR, draws, info, OBSERVED, local=local)
    # Slopes are estimated from the same draws: their error is of the order of the mean's.
    assert errors(adjusted, weights) < 4.5
    plain = errors(draws, np.full(2_000, 1 / 2_000))
    assert plain > 3 * errors(adjusted, weights)


def test_weighted_particles_are_adjusted_with_their_weights():
    draws, info = abc.smc(
        jax.random.key(0), PRIOR, linear, OBSERVED, num_simulations=20_000, particles=2_000,
        rounds=3,
    )  # fmt: skip
    adjusted, weights = abc.adjust(PRIOR, draws, info, OBSERVED)
    assert float(jnp.sum(weights)) == pytest.approx(1.0, abs=1e-5)
    assert errors(adjusted, weights) < 4.5


def test_adjusted_draws_stay_in_the_support():
    prior = jaxsbi.Prior(width=dist.Uniform(0.0, 1.0))

    def simulator(key, theta):
        return theta["width"] + 0.2 * jax.random.normal(key, (2,))

    x = jnp.array([1.2, 1.1])
    draws, info = abc.rejection(
        jax.random.key(0), prior, simulator, x, num_simulations=1_000, keep=300
    )
    adjusted, _ = abc.adjust(prior, draws, info, x)
    assert bool(jnp.all((adjusted["width"] > 0) & (adjusted["width"] < 1)))
    assert float(jnp.mean(adjusted["width"])) > float(jnp.mean(draws["width"]))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (jnp.array(0.9), ValueError, r"observation: expected shape \(3,\), got \(\)"),
        (OBSERVED[:1], ValueError, r"observation: expected shape \(3,\), got \(1,\)"),
        (OBSERVED[None], ValueError, r"observation: expected shape \(3,\), got \(1, 3\).*batch"),
        (OBSERVED.at[1].set(jnp.nan), ValueError, "observation: expected finite numbers, got 1"),
        ({"x": OBSERVED}, TypeError, "structure the simulator returned"),
        (jnp.array([1, 0, 1]), TypeError, r"expected dtype float\d+, got int"),
    ],
)
def test_the_observation_is_checked(x, error, message):
    draws, info = kept(n=1_000, keep=100)
    with pytest.raises(error, match=message):
        abc.adjust(PRIOR, draws, info, x)


def test_what_is_masked_in_the_observation_may_be_nan():
    def half(key, theta):
        return {"values": linear(key, theta), "mask": jnp.array([True, True, False])}

    def adjusted(hidden):
        x = {"values": OBSERVED.at[2].set(hidden), "mask": jnp.array([True, True, False])}
        draws, info = kept(half, x, n=1_000, keep=100)
        return abc.adjust(PRIOR, draws, info, x)[0]["mean"]

    np.testing.assert_array_equal(adjusted(jnp.nan), adjusted(0.0))


def test_adjust_runs_under_jit():
    draws, info = kept(n=1_000, keep=100)
    found = jax.jit(lambda *args: abc.adjust(PRIOR, *args))(draws, info, OBSERVED)[0]
    expected = abc.adjust(PRIOR, draws, info, OBSERVED)[0]
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-3, atol=1e-3)


def test_data_at_one_distance_are_weighed_alike():
    def coin(key, theta):
        return jax.random.bernoulli(key, jax.nn.sigmoid(theta["mean"][0]))

    draws, info = kept(coin, jnp.array(True), n=1_000, keep=100)
    adjusted, weights = abc.adjust(PRIOR, draws, info, jnp.array(True))
    np.testing.assert_allclose(weights, 0.01, rtol=1e-5)
    np.testing.assert_allclose(adjusted["mean"], draws["mean"], atol=1e-5)


def test_more_numbers_than_draws_do_no_harm():
    """Pure noise cannot be told from the data's numbers, but its slopes are shrunk away."""

    def padded(key, theta):
        key_x, key_noise = jax.random.split(key)
        return jnp.append(linear(key_x, theta), jax.random.normal(key_noise, (200,)))

    x = jnp.append(OBSERVED, jnp.zeros(200))
    draws, info = kept(padded, x, n=2_000, keep=150)
    adjusted, weights = abc.adjust(PRIOR, draws, info, x)
    assert np.linalg.norm(moments(adjusted, weights)[0] - MEAN) < np.linalg.norm(
        moments(draws, np.full(150, 1 / 150))[0] - MEAN
    )


def test_ridge_of_many_rows_is_least_squares():
    key_x, key_z = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (5_000, 3)) * jnp.array([[1.0, 100.0, 0.01]]) + 5.0
    slopes = jnp.array([[1.0, 0.0], [0.02, 0.01], [0.0, 50.0]])
    z = x @ slopes + 0.1 * jax.random.normal(key_z, (5_000, 2))
    found = ridge(x, z, jnp.full(5_000, 1 / 5_000))
    design = np.column_stack([np.ones(5_000), np.asarray(x, np.float64)])
    expected = np.linalg.lstsq(design, np.asarray(z, np.float64), rcond=None)[0][1:]
    scale = np.asarray(x).std(0)[:, None]
    np.testing.assert_allclose(found * scale, expected * scale, atol=2e-3)


def simulations(simulator=linear, n=2_000):
    return jaxsbi.simulate(jax.random.key(9), PRIOR, simulator, n, progress=False)


def test_the_linear_summary_is_the_posterior_mean():
    summary = abc.linear_summary(PRIOR, simulations(n=20_000))
    zero = summary(jnp.zeros(3))
    gain = jnp.stack([summary(row) - zero for row in jnp.eye(3)], 1)
    expected = COVARIANCE @ np.asarray(MIX).T / NOISE**2
    # Slopes of a regression: residual deviation over the data's, with n = 20,000 rows.
    error = np.sqrt(np.diag(COVARIANCE)).max() / NOISE / np.sqrt(20_000)
    np.testing.assert_allclose(gain, expected, atol=4.5 * error)


def with_its_error(key, theta):
    """Two numbers with noise of a known width, which differs from data set to data set."""
    key_width, key_noise = jax.random.split(key)
    width = jax.random.uniform(key_width, (2,), minval=0.1, maxval=1.0)
    return {"seen": theta["mean"] + width * jax.random.normal(key_noise, (2,)), "width": width}


def test_the_width_is_that_at_the_observation():
    width = np.array([0.25, 0.7])
    x = {"seen": jnp.array([0.4, -0.3]), "width": jnp.asarray(width, jnp.float32)}
    draws, info = kept(with_its_error, x, n=40_000, keep=4_000)
    adjusted, weights = abc.adjust(PRIOR, draws, info, x)
    mean = weights @ adjusted["mean"]
    std = np.sqrt(weights @ (adjusted["mean"] - mean[None]) ** 2)
    exact = width / np.sqrt(1.0 + width**2)
    # Five errors of the estimate, and 0.05 for a logarithm that is not linear in the width.
    error = 5.0 * np.sqrt(0.5 * np.sum(weights**2)) + 0.05
    assert np.all(np.abs(np.log(std / exact)) < error)


def cube(key, theta):
    """Data that are far from linear in the parameters, beside numbers that say nothing."""
    key_x, key_noise = jax.random.split(key)
    signal = jnp.abs(theta["mean"]) ** 0.5 + 0.05 * jax.random.normal(key_x, (2,))
    sign = jnp.sign(theta["mean"])
    noise = 3.0 * jax.random.normal(key_noise, (10,))
    return {"signal": signal, "sign": sign, "noise": noise}


@pytest.fixture(scope="module")
def learned():
    method = jaxsbi.compression.regression(networks.MLP(64, 64, out=PRIOR.dim))
    fitted = jaxsbi.fit(jax.random.key(1), method, PRIOR, simulations(cube), max_epochs=40)
    return jaxsbi.compression.summary(fitted.posterior)


def test_a_network_explains_more_than_a_line(learned):
    fresh = jaxsbi.simulate(jax.random.key(3), PRIOR, cube, 1_000, progress=False)
    line = abc.linear_summary(PRIOR, simulations(cube))

    def loss(summary):
        value = jax.vmap(summary)(fresh.x)
        value = value - jnp.mean(value, 0)[None] + jnp.mean(fresh.theta["mean"], 0)[None]
        return float(jnp.mean((value - fresh.theta["mean"]) ** 2))

    assert loss(learned) < 0.5 * loss(line)


def test_a_learned_summary_makes_rejection_better(learned):
    truth = jnp.array([1.0, -0.7])
    x = cube(jax.random.key(4), {"mean": truth})

    def error(summary):
        draws, _ = abc.rejection(
            jax.random.key(5), PRIOR, cube, x, num_simulations=5_000, keep=50, summary=summary
        )
        return float(jnp.mean(jnp.sum((draws["mean"] - truth[None]) ** 2, 1)))

    assert error(learned) < 0.5 * error(None)


def test_failed_simulations_are_not_learned_from():
    rows = simulations()
    weight = jnp.where(jnp.arange(2_000) < 100, 0.0, 1.0)
    x = jnp.where(weight[:, None] > 0, rows.x, jnp.nan)
    broken = jaxsbi.Simulations(rows.theta, x, weight)
    summary = abc.linear_summary(PRIOR, broken)
    expected = abc.linear_summary(PRIOR, rows[100:])
    np.testing.assert_allclose(summary.slopes, expected.slopes, rtol=1e-2, atol=1e-3)


def test_numbers_that_say_nothing_explain_nothing():
    """Though slopes could pass through all draws."""
    key_x, key_z, key_fresh = jax.random.split(jax.random.key(6), 3)
    x, fresh = jax.random.normal(key_x, (100, 200)), jax.random.normal(key_fresh, (1_000, 200))
    z = jax.random.normal(key_z, (100, 2))
    moved = fresh @ ridge(x, z, jnp.full(100, 0.01))
    # Slopes through all draws would move others by a whole deviation.
    assert np.all(np.std(moved, axis=0) < 0.25)
