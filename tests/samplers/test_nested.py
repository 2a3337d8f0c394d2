"""Nested sampling agrees with exact answers, and with the samplers it is to check."""

from __future__ import annotations

import math
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxsbi import samplers


def two_modes(z):
    """Return a mixture of weights 0.3 and 0.7, 12 deviations apart; its evidence is 1."""
    height = -0.5 * jnp.sum(((z[None] - jnp.array([[-1.2, 0.0], [1.2, 0.0]])) / 0.2) ** 2, 1)
    return jax.scipy.special.logsumexp(height + jnp.log(jnp.array([0.3, 0.7]))) - math.log(
        2 * math.pi * 0.2**2
    )


@pytest.mark.slow
def test_evidence_and_weights_of_modes(key):
    key_nested, key_smc = jax.random.split(key)
    draws, info = samplers.nested(key_nested, two_modes, 2, 4_000, live=200)
    assert draws.shape == (4_000, 2)
    assert info.log_evidence_error < 0.25  # sqrt(information / live) is 0.14
    assert abs(info.log_evidence) < 4 * info.log_evidence_error
    size = 1 / (1 / info.ess + 1 / 4_000)
    assert abs(float(jnp.mean(draws[:, 0] > 0)) - 0.7) < 4 * math.sqrt(0.21 / size)
    assert info.evaluations > 1_000
    _, other = jax.jit(lambda k: samplers.smc()(k, two_modes, 2, 4_000))(key_smc)
    error = math.hypot(info.log_evidence_error, float(other.log_evidence_error))
    assert abs(info.log_evidence - float(other.log_evidence)) < 4 * error


def test_bad_input(key, monkeypatch):
    with pytest.raises(ValueError, match=r"live >= 6 in 2 dimensions, got 5"):
        samplers.nested(key, two_modes, 2, 10, live=5)
    with pytest.raises(ValueError, match="-inf or NaN at all 20 points"):
        samplers.nested(key, lambda z: jnp.nan * z[0], 2, 10, live=20)
    monkeypatch.setitem(sys.modules, "dynesty", None)
    with pytest.raises(ImportError, match="pip install dynesty"):
        samplers.nested(key, two_modes, 2, 10)
