"""Surrogates of waveforms and detection: against ripplegw, and against exact detectors."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Not by importing it: ripplegw starts JAX, and changes its precision.
if not all(importlib.util.find_spec(name) for name in ("ripplegw", "h5py")):
    pytest.skip('needs pip install "jaxsbi[gw]"', allow_module_level=True)

import jaxsbi
from examples.gravitational_waves import detection, families, mismatch, surrogate

FREQUENCY = np.arange(20.0, 1024.0, 0.25)
ASD = np.sqrt((40.0 / FREQUENCY) ** 6 + 1.0 + (FREQUENCY / 200.0) ** 2)


def mismatches(found, exact, mf, mass):
    """Return the mismatch of each pair in double precision."""
    power = mismatch.power(mf, np.full(len(exact), mass * families.SUN), FREQUENCY, ASD)
    with jax.enable_x64(True):
        one = jax.jit(jax.vmap(mismatch.mismatch, (0, 0, None, 0)))
        return np.asarray(one(*(jnp.asarray(a) for a in (found, exact, mf, power))))


def evaluated(x, theta, mf, *, timed):
    """Return the waveforms of what a surrogate predicts, in double precision."""
    with jax.enable_x64(True):
        x, theta = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), (x, theta))
        x = jax.tree.map(lambda a: a.astype(complex if jnp.iscomplexobj(a) else float), x)

        def one(x, theta):
            return surrogate.waveform(x, jnp.asarray(mf), theta, timed=timed)

        return np.asarray(jax.jit(jax.vmap(one))(x, theta))


@pytest.fixture(scope="module")
def drawn():
    """Waveforms of binaries that do not precess: 300 to learn from, 40 to test."""
    theta = surrogate.draw(jax.random.key(0), surrogate.ALIGNED, 340)
    h = families.waveforms("IMRPhenomD", surrogate.grid(surrogate.FINER), theta)
    return h, jaxsbi.from_arrays(theta, surrogate.prepare(h, theta))


def test_nodes_hold_waveforms_with_their_times_and_amplitudes(drawn):
    exact, rows = jax.tree.map(lambda a: a[:40], drawn)
    mf = surrogate.grid(surrogate.FINER)
    found = evaluated(rows.x, rows.theta, mf, timed=True)
    assert np.max(mismatches(found, exact, mf, 50.0)) < 1e-7
    # The model's pieces join with kinks, between nodes.
    np.testing.assert_allclose(np.abs(found), np.abs(exact), rtol=2e-3)
    # Times are right too: one phase per waveform is all that differs.
    turn = np.angle(found * np.conj(exact))
    turn = turn - turn[:, :1]
    assert np.max(np.abs(np.angle(np.exp(1j * turn)))) < 0.02


def test_a_surrogate_of_few_waveforms(drawn):
    _, rows = drawn
    fitted = surrogate.train(
        jax.random.key(1), surrogate.ALIGNED, rows[:300], max_epochs=500, batch_size=64
    )
    predict = jax.jit(jax.vmap(lambda theta: jaxsbi.emulate(fitted, theta)))
    test = jax.tree.map(lambda a: a[300:], rows)
    mf = surrogate.grid(surrogate.FINER)
    pair = [evaluated(x, test.theta, mf, timed=False) for x in (predict(test.theta), test.x)]
    assert np.median(mismatches(*pair, mf, 50.0)) < 1e-3


@pytest.mark.slow
def test_two_modes_are_a_precessing_binary():
    theta = {"mass_ratio": 0.5, "chi1": 0.3, "chi2": -0.2, "chip": 0.6}
    rows = surrogate.precessing({name: np.array([value]) for name, value in theta.items()})
    mf = surrogate.grid(surrogate.FINER)
    h = evaluated({name: rows.x[name] for name in ("h", "time")}, rows.theta, mf, timed=True)[0]
    with jax.enable_x64(True):
        tilt = surrogate.between(jnp.asarray(rows.x["tilt"][0], complex), jnp.asarray(mf))
        numbers = [jnp.asarray(theta[name]) for name in ("mass_ratio", "chi1", "chi2", "chip")]
        f = families.hertz(jnp.asarray(mf))
        seen, view = families.seen(numbers, jnp.asarray(1.1), 0.4, f[0])
        plus, _ = jax.jit(families.gen_IMRPhenomPv2)(f, seen, f[0])
        found = surrogate.seen(jnp.asarray(h), tilt, theta["chip"], jnp.stack(view))
    assert mismatches(np.asarray(found)[None], np.asarray(plus)[None], mf, 50.0) < 1e-6


def test_mismatch_is_of_shapes_only():
    mf = np.linspace(0.004, 0.1, 2000)
    h = mf ** (-7 / 6) * np.exp(1j * 3.0 * mf**-1.5)
    moved = 5.0 * h * np.exp(1j * (1.0 + 2 * np.pi * 4.3 * mf))
    half = np.where(mf < 0.02, h, 0.0)
    power = mismatch.power(mf, np.array([50.0 * families.SUN]), FREQUENCY, ASD)[0]
    share = np.abs(h) ** 2 * np.gradient(mf) / power
    found = mismatches(np.stack([moved, half]), np.stack([h, h]), mf, 50.0)
    assert found[0] < 1e-4
    np.testing.assert_allclose(
        found[1], 1 - np.sqrt(share[mf < 0.02].sum() / share.sum()), atol=1e-4
    )


@pytest.fixture(scope="module")
def templates():
    """A bank of signals in a steep spectrum."""
    return detection.bank(FREQUENCY, ASD, masses=4, times=5)


def test_bank_is_of_orthonormal_quadratures(templates):
    assert templates.shape == (20, 2, detection.SAMPLES)
    gram = np.einsum("ais,ajs->aij", templates, templates)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(2), gram.shape), atol=1e-5)
    # Later mergers are later in the data.
    centre = np.sum(np.arange(detection.SAMPLES) * np.sum(templates**2, 1), -1).reshape(4, 5)
    assert np.all(np.diff(centre, axis=1) > 0)


def test_exact_detector_of_one_template(templates):
    """With one template the areas are known: of a Rice law above a Rayleigh law."""
    one, loudness, n = templates[:1], 2.0, 4000
    prior, simulator = detection.models(one)["signal"]
    keys = jax.random.split(jax.random.key(3), (3, n))
    theta = jax.vmap(prior.sample)(keys[0]) | {"loudness": jnp.full(n, loudness)}
    noise = jax.vmap(detection.simulate_noise, (0, None))(keys[1], {})
    pair = [
        detection.statistics(one, loudness, x) for x in (noise, jax.vmap(simulator)(keys[2], theta))
    ]
    for name in pair[0]:
        found = detection.area(*(np.asarray(p[name]) for p in pair))
        # The error of an area is below sqrt(area (1 - area) / n) = 0.006 of both samples.
        np.testing.assert_allclose(found, 1 - 0.5 * np.exp(-(loudness**2) / 4), atol=0.025)
    alarms, detected = detection.curve(*(np.asarray(p["matched filter"]) for p in pair))
    np.testing.assert_allclose(np.trapezoid(detected, alarms), found, atol=1e-3)
    # A ratio of evidences has mean 1 in noise (heavy-tailed: the loudness is low).
    assert abs(np.mean(np.exp(np.asarray(pair[0]["likelihood ratio"]))) - 1) < 0.3


@pytest.mark.slow
def test_a_network_detects(templates):
    comparison = detection.train(jax.random.key(4), templates, 1_000)
    prior, simulator = detection.models(templates)["signal"]
    keys = jax.random.split(jax.random.key(5), (3, 500))
    theta = jax.vmap(prior.sample)(keys[0]) | {"loudness": jnp.full(500, 11.0)}
    noise = jax.vmap(detection.simulate_noise, (0, None))(keys[1], {})
    pair = [detection.score(comparison, x) for x in (noise, jax.vmap(simulator)(keys[2], theta))]
    assert detection.area(*(np.asarray(p) for p in pair)) > 0.9
