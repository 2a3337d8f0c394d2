"""What ends a training: the mean loss of the validation rows, of which one does not decide."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.training import OUTLYING, _cut

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))


def test_only_outliers_are_cut():
    loss = jax.random.normal(jax.random.key(0), (400,))
    weight = jnp.ones(400)
    np.testing.assert_array_equal(_cut(loss, weight), loss)  # not one of normal losses
    spoiled = loss.at[7].set(1e4)
    low, middle, high = np.quantile(spoiled, (0.25, 0.5, 0.75))
    found = np.asarray(_cut(spoiled, weight))
    # A quartile between two of 400 numbers is known to their distance, 0.01.
    assert found[7] == pytest.approx(middle + OUTLYING * (high - low), abs=0.1)
    np.testing.assert_array_equal(np.delete(found, 7), np.delete(np.asarray(spoiled), 7))
    # What is less than OUTLYING nats off is none, however alike the others are: squared errors.
    squares = (0.01 * loss) ** 2
    squares = squares.at[7].set(0.9 * OUTLYING)
    np.testing.assert_array_equal(_cut(squares, weight), squares)


def test_what_is_not_finite_or_does_not_count_stays():
    loss = jnp.arange(100.0)
    wrong = loss.at[0].set(jnp.nan).at[1].set(jnp.inf).at[2].set(-jnp.inf)
    np.testing.assert_array_equal(_cut(wrong, jnp.ones(100)), wrong)
    # Padding, however many rows of it, moves no quantile.
    padded = jnp.concatenate([loss.at[50].set(1e6), jnp.full(300, 1e9)])
    found = _cut(padded, jnp.concatenate([jnp.ones(100), jnp.zeros(300)]))
    assert found[50] == pytest.approx(50.0 + OUTLYING * 50.0, rel=0.05)
    np.testing.assert_array_equal(found[100:], padded[100:])
    same = jnp.zeros(50).at[3].set(5.0)  # no spread to be measured in
    np.testing.assert_array_equal(_cut(same, jnp.ones(50)), same)
    for few in (1, 2, 3):
        np.testing.assert_array_equal(_cut(loss[:few], jnp.ones(few)), loss[:few])
    np.testing.assert_array_equal(_cut(loss, jnp.zeros(100)), loss)


def test_one_row_does_not_end_a_training():
    key_theta, key_x, key_fit = jax.random.split(jax.random.key(1), 3)
    theta = jax.random.normal(key_theta, (400,))
    x = theta[:, None] + 0.1 * jax.random.normal(key_x, (400, 1))

    def epochs_and_width(x):
        simulations = jaxsbi.Simulations({"theta": theta}, x, jnp.ones(400))
        method = jaxsbi.nle(density=jaxsbi.densities.Gaussian(hidden=8))
        fitted = jaxsbi.fit(jax.random.clone(key_fit), method, PRIOR, simulations, progress=False)
        log_prob = fitted.posterior.log_prob({"theta": jnp.zeros(())}, jnp.zeros(1))
        peak = -jnp.log(2 * jnp.pi) - jnp.log(0.1)
        return int(fitted.history.best_epoch), float(log_prob - peak)

    # The last rows validate. One of 40 is 300 widths off: the narrower, the worse its loss.
    best, off = epochs_and_width(x.at[-1].add(30.0))
    plain, expected = epochs_and_width(x)
    assert best > 0.5 * plain
    # By 40 rows the log of the width is known to 0.11; twenty epochs in, it is off by a nat.
    assert off == pytest.approx(expected, abs=0.25)
