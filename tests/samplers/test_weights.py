"""Weights, resampling and evidence by hand-made numbers, and what the reports warn of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.samplers import RejectionInfo, SIRInfo, SMCInfo
from jaxsbi.samplers.smc import next_temperature
from jaxsbi.samplers.weights import (
    covariance_factor,
    effective_size,
    finite_log_ratio,
    log_mean_and_error,
    log_normal,
    systematic,
)


def test_systematic_counts_are_the_weights_up_to_one(key):
    weight = jax.nn.softmax(jnp.linspace(-4.0, 2.0, 50))
    counts = np.bincount(systematic(key, weight, 1000), minlength=50)
    assert counts.sum() == 1000
    np.testing.assert_array_less(np.abs(counts - 1000 * np.asarray(weight)), 1.0 + 1e-3)


def test_weight_zero_is_never_drawn(key):
    weight = jnp.array([0.0, 0.5, 0.0, 0.5, 0.0])
    assert set(np.asarray(systematic(key, weight, 1000)).tolist()) == {1, 3}


def test_effective_size():
    # Any scale: only ratios of weights count.
    equal = jnp.full(8, -1e4).at[:3].set(-jnp.inf)
    assert float(effective_size(equal)) == pytest.approx(5.0)
    assert float(effective_size(jnp.array([0.0, -100.0]))) == pytest.approx(1.0)
    assert float(effective_size(jnp.full(4, -jnp.inf))) == 0.0


def test_mean_and_error_of_weights():
    weight = np.random.default_rng(0).exponential(size=500)
    log_mean, error = log_mean_and_error(jnp.log(jnp.asarray(weight)) + 1000.0)
    assert float(log_mean) == pytest.approx(np.log(weight.mean()) + 1000.0, abs=1e-3)
    exact = weight.std(ddof=1) / np.sqrt(500) / weight.mean()
    assert float(error) == pytest.approx(exact, rel=1e-3)
    nothing = log_mean_and_error(jnp.full(3, -jnp.inf))
    assert [float(a) for a in nothing] == [-np.inf, np.inf]


def test_ratios_that_are_no_numbers_are_zero():
    z = jnp.zeros((4, 3))
    value = jnp.array([1.0, jnp.nan, jnp.inf, -jnp.inf])
    expected = [1.0 - float(log_normal(z)[0]), -np.inf, -np.inf, -np.inf]
    np.testing.assert_allclose(finite_log_ratio(z, value), expected, rtol=1e-6)


def test_the_factor_of_a_covariance(key):
    factor = jnp.array([[1.0, 0.0], [0.7, 0.2]])
    z = jax.random.normal(key, (20_000, 2)) @ factor.T
    # A covariance is known to about 1 % from so many points.
    np.testing.assert_allclose(covariance_factor(z), factor, atol=0.03)
    one_point = covariance_factor(jnp.ones((5, 3)))
    assert bool(jnp.all(jnp.isfinite(one_point)))


@pytest.mark.parametrize("scale", [3.0, 1e3, 1e7])
def test_the_next_temperature_keeps_its_share(scale, key):
    ratio = (-scale * jax.random.exponential(key, (1000,))).at[:300].set(-jnp.inf)
    temperature = next_temperature(ratio, jnp.array(0.0), 0.7)
    assert 0.0 < float(temperature) < 1.0
    # Of the 700 that are finite.
    assert float(effective_size(temperature * ratio)) == pytest.approx(490.0, rel=1e-2)


def test_the_temperature_ends_at_one_and_never_stands_still(key):
    flat = 0.1 * jax.random.normal(key, (100,))
    assert float(next_temperature(flat, jnp.array(0.3), 0.7)) == 1.0
    steep = jnp.zeros(100).at[0].set(1e30)
    assert float(next_temperature(steep, jnp.array(0.5), 0.7)) > 0.5


GOOD = {
    "r_hat": jnp.ones(2),
    "ess_bulk": jnp.full(2, 1000.0),
    "ess_tail": jnp.full(2, 1000.0),
    "divergences": jnp.array(0),
    "acceptance": jnp.array(0.8),
    "log_density": jnp.zeros(1000),
    "log_evidence": jnp.array(-3.0),
    "log_evidence_error": jnp.array(0.05),
}
SMC = {"temperature": jnp.array(1.0), "temperatures": jnp.array(5)}
SIR, REJECTION = {"ess": jnp.array(500.0)}, {"proposals": jnp.array(20_000)}


@pytest.mark.parametrize(
    ("report", "extra", "bad", "message"),
    [
        (SMCInfo, SMC, {"log_evidence": -jnp.inf}, "at every particle .* raise particles"),
        (SMCInfo, SMC, {"temperature": jnp.array(0.25)}, "temperature 0.25, .*Raise max_t"),
        (SMCInfo, SMC, {"r_hat": jnp.array([1.0, 1.3])}, "R-hat .* is 1.300 .*Raise particles"),
        (SMCInfo, SMC, {"log_evidence_error": jnp.nan}, "known to nan .*Raise particles"),
        (SIRInfo, SIR, {"ess": jnp.array(20.0)}, "20 of the candidates .*Raise candidates"),
        (SIRInfo, SIR, {"log_density": jnp.zeros(20_000)}, ">= 1000 for 20000 draws"),
        (RejectionInfo, REJECTION, {"ess_bulk": jnp.full(2, 7.0)}, "7 of the 1000 .*Raise rounds"),
    ],
)
def test_bad_reports_are_warned_of(report, extra, bad, message, recwarn):
    report(**(GOOD | extra)).warn()
    assert not recwarn.list
    with pytest.warns(UserWarning, match=message):
        report(**(GOOD | extra | {name: jnp.asarray(value) for name, value in bad.items()})).warn()
