"""The likelihood of examples/cosmology against independent sums, and both roads on a stand-in."""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.linalg

import jaxsbi
from jaxsbi.base import Simulations
from jaxsbi.tasks.references import cache_directory

FOLDER = Path(__file__).parents[2] / "examples" / "cosmology"
ELL = np.arange(2, 2509)
# Cₗ of ℓ = 2 … 29 in μK² and the log-likelihoods that planck-low-py publishes for them.
PUBLISHED_TT = (
    1040.445708, 493.7108487, 280.7957, 179.5291553, 124.518398, 91.6391846, 70.47641317,
    56.10229094, 45.88889052, 38.34544984, 32.66126069, 28.22418194, 24.69305786, 21.81216287,
    19.47048692, 17.54166894, 15.91557179, 14.54456699, 13.35503751, 12.32476399, 11.42662518,
    10.63438912, 9.934980301, 9.315612662, 8.760112556, 8.263096288, 7.815236201, 7.409548724,
)  # fmt: skip
PUBLISHED_EE = (
    3.100762562e-02, 2.008208152e-02, 1.055692033e-02, 4.751318788e-03, 1.917202348e-03,
    7.789672817e-04, 3.8814249e-04, 2.483675286e-04, 1.741540758e-04, 1.229174803e-04,
    9.112394404e-05, 7.501855856e-05, 6.768323429e-05, 6.409407439e-05, 6.247686486e-05,
    6.307235326e-05, 6.601114382e-05, 7.068987498e-05, 7.627444364e-05, 8.235458053e-05,
    8.885275244e-05, 9.552058166e-05, 1.022338661e-04, 1.089584955e-04, 1.157357481e-04,
    1.225882795e-04, 1.294002931e-04, 1.363139354e-04,
)  # fmt: skip
PUBLISHED_LOW = -11.660801515314658 + 9.656235151568294


@pytest.fixture
def example(monkeypatch):
    """Return a module of the example by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def likelihood(example):
    planck = example("planck")
    if "JAXSBI_DATA" not in os.environ and not (cache_directory() / "planck_lite").is_dir():
        pytest.skip("needs Planck's files")
    return planck.planck()


def peaks(theta=None):
    """Return spectra with acoustic peaks, of about the size of the real ones."""
    amplitude, tilt = (1.0, 0.0) if theta is None else (theta["amplitude"], theta["tilt"])
    x = jnp.asarray(ELL, jnp.float32)
    envelope = amplitude * (x / 500.0) ** tilt * jnp.exp(-((x / 1500.0) ** 1.2))
    tt = envelope * (900.0 + 4500.0 * jnp.cos(x / 97.0 - 2.3) ** 2)
    ee = envelope * (0.04 + 40.0 * jnp.sin(x / 97.0 - 2.3) ** 2 * (x / (x + 400.0)) ** 2)
    return {"TT": tt, "TE": 0.5 * jnp.sqrt(tt * ee) * jnp.sin(x / 48.0), "EE": ee}


def test_plik_lite_against_numpy(likelihood, example):
    planck, spectra, calibration = example("planck"), peaks(), 1.003
    folder = planck._file("bweight.dat").parent
    weight = np.loadtxt(folder / "bweight.dat")
    first, last = (np.loadtxt(folder / f"bl{end}.dat").astype(int) for end in ("min", "max"))
    observed = np.loadtxt(folder / "cl_cmb_plik_v22.dat")[:, 1]
    words = np.fromfile(folder / "c_matrix_plik_v22.dat", np.uint8)[4:-4]  # without record marks
    triangle = np.tril(words.view("<f8").reshape(613, 613))
    covariance = triangle + np.tril(triangle, -1).T
    model = []
    for name, count in (("TT", 215), ("TE", 199), ("EE", 199)):
        c = np.asarray(spectra[name], float) * 2 * np.pi / (ELL * (ELL + 1))
        model += [
            c[a + 28 : b + 29] @ weight[a : b + 1]
            for a, b in zip(first[:count], last[:count], strict=True)
        ]
    residual = observed - np.array(model) / calibration**2
    expected = residual @ scipy.linalg.solve(covariance, residual, assume_a="pos")
    mean = likelihood.mean(spectra)
    found = likelihood.data - planck.calibrate(mean, calibration)
    np.testing.assert_allclose(jnp.sum(found[:613] ** 2), expected, rtol=2e-5)
    np.testing.assert_allclose(
        likelihood.log_likelihood(mean, calibration), -0.5 * jnp.sum(found**2), rtol=1e-6
    )


def test_low_bins_give_the_published_log_likelihoods(likelihood, example):
    power = {"TT": np.ones(2507), "TE": np.ones(2507), "EE": np.ones(2507)}
    factor = ELL[:28] * (ELL[:28] + 1) / (2 * np.pi)
    power["TT"][:28], power["EE"][:28] = factor * PUBLISHED_TT, factor * PUBLISHED_EE
    residual = likelihood.data - likelihood.mean(jax.tree.map(jnp.asarray, power))
    found = -0.5 * jnp.sum(residual[613:] ** 2) + example("planck").low_constant()
    np.testing.assert_allclose(found, PUBLISHED_LOW, atol=2e-5)


def test_windows_keep_a_flat_spectrum(likelihood, example):
    _, weights = example("planck")._windows()
    index, _ = example("planck")._windows()
    flat = np.concatenate([ELL * (ELL + 1) / (2 * np.pi)] * 3)  # Cₗ = 1
    np.testing.assert_allclose(np.sum(weights * flat[index], 1), 1.0, rtol=1e-6)


# From the published table of EE at low ℓ (planck_2018_lowE.zip of planck_native_data, release v1):
# Dₗ in μK², then log-probabilities of ℓ = 2, 5, 8, 15 and 29.
TABULATED = (
    (0.0005, -9.746, -12.599, -6.470, -6.686, -7.014),
    (0.0041, -9.555, -10.949, -6.420, -6.878, -7.005),
    (0.0123, -9.239, -8.692, -6.554, -7.389, -7.237),
    (0.0345, -8.828, -7.338, -7.555, -8.561, -8.194),
    (0.0777, -8.547, -7.859, -9.111, -9.858, -9.857),
    (0.1234, -8.588, -8.696, -10.004, -10.708, -11.060),
)
TABULATED_PLANCK = -198.071  # PUBLISHED_EE, between rows


def test_lowe_follows_the_published_table(example):
    low = example("lowe").lowe()
    planck = ELL[:28] * (ELL[:28] + 1) / (2 * np.pi) * PUBLISHED_EE

    def value(ee):
        return float(low.log_likelihood(low.roots(jnp.asarray(ee))))

    np.testing.assert_allclose(value(planck), TABULATED_PLANCK, atol=2e-3)
    first, *others = TABULATED
    for column, ell in enumerate((2, 5, 8, 15, 29), start=1):
        ee = planck.copy()
        ee[ell - 2] = first[0]
        reference = value(ee)
        for row in others:
            ee[ell - 2] = row[0]
            np.testing.assert_allclose(
                value(ee) - reference, row[column] - first[column], atol=2e-3
            )


def test_lowe_excludes_power_beyond_its_table(example):
    low = example("lowe").lowe()
    ee = jnp.full(28, 0.01)
    assert jnp.isfinite(low.log_likelihood(low.roots(ee)))
    assert low.log_likelihood(low.roots(ee.at[3].set(0.31))) == -jnp.inf


def test_lowe_stands_for_the_bins_of_ee_at_low_l(example):
    spectra = [name for name, *_ in example("planck").LOW]
    count = example("emulated").EE_BINS
    assert spectra[:-count] == ["TT", "TT"]
    assert set(spectra[-count:]) == {"EE"}


@pytest.fixture
def line(likelihood, example):
    """Return a problem of two parameters: prior, runs, and the likelihoods of data drawn from it.

    That of EE at low ℓ is sharpened, so that it matters beside the others.
    """
    emulated, low = example("emulated"), example("lowe").lowe()
    low = low._replace(coefficients=3 * low.coefficients)
    prior = jaxsbi.Prior(amplitude=dist.Uniform(0.97, 1.03), tilt=dist.Uniform(-0.03, 0.03))

    def simulator(key, theta):
        del key
        return emulated.expected(likelihood, low, peaks(theta))

    simulations = jaxsbi.simulate(jax.random.key(0), prior, simulator, 200)
    mean = likelihood.mean(peaks({"amplitude": 1.002, "tilt": -0.002}))
    noise = jax.random.normal(jax.random.key(1), mean.shape)
    return prior, simulations, likelihood._replace(data=mean + noise), low


def exact_moments(likelihood, low=None):
    """Return means and standard deviations by sums over a grid, the calibration included."""
    axes = (np.linspace(0.97, 1.03, 61), np.linspace(-0.03, 0.03, 61), np.linspace(-3.5, 3.5, 15))
    a, t, c = (g.ravel() for g in np.meshgrid(*axes, indexing="ij"))

    def log_density(a, t, c):
        spectra, calibration = peaks({"amplitude": a, "tilt": t}), 1 + 0.0025 * c
        mean = likelihood.mean(spectra)
        value = likelihood.log_likelihood(mean, calibration) - 0.5 * c**2
        if low is not None:
            value += 0.5 * jnp.sum((likelihood.data - mean)[-3:] ** 2)
            value += low.log_likelihood(low.roots(spectra["EE"] / calibration**2))
        return value

    values = jax.lax.map(lambda p: log_density(*p), jnp.stack([a, t, c], 1), batch_size=500)
    weights = np.asarray(jax.nn.softmax(values))
    means = {n: weights @ v for n, v in (("amplitude", a), ("tilt", t))}
    spread = {n: np.sqrt(weights @ (v - means[n]) ** 2) for n, v in (("amplitude", a), ("tilt", t))}
    return means, spread


def assert_near(draws, exact, shift, ratio):
    for name, mean, spread in zip(exact[0], exact[0].values(), exact[1].values(), strict=True):
        assert abs(jnp.mean(draws[name]) - mean) < shift * spread
        assert abs(jnp.std(draws[name]) / spread - 1) < ratio


@pytest.mark.slow
@pytest.mark.key_reuse  # numpyro.infer.MCMC uses a typed key twice,
@pytest.mark.rank_promotion  # and promotes ranks
def test_both_roads_meet_the_exact_posterior(line, example):
    emulated, learned = example("emulated"), example("learned")
    prior, simulations, likelihood, low = line
    emulator = example("emulators").of_bins(jax.random.key(2), prior, simulations, steps=800)
    exact = exact_moments(likelihood), exact_moments(likelihood, low)
    # The low multipoles must matter, or their likelihood would not be tested.
    assert abs(exact[1][0]["tilt"] - exact[0][0]["tilt"]) > exact[0][1]["tilt"]
    for key, of_ee, moments in zip((3, 7), (None, low), exact, strict=True):
        chains, report = emulated.by_mcmc(
            jax.random.key(key), emulator, likelihood.data, of_ee, chains=4, warmup=200, steps=500
        )
        assert report["r_hat"] < 1.02
        # 4 standard errors of the means at an effective sample of 400.
        assert_near(chains, moments, 0.2, 0.15)
    signals = Simulations(simulations.theta, simulations.x["data"], simulations.weight)
    compressed = learned.summaries(signals.theta, signals.x)
    fitted = learned.by_npe(
        jax.random.key(4), prior, signals, compressed, num_steps=1_500, progress=False
    )
    x = compressed.matrix @ likelihood.data
    direct = fitted.posterior.sample(jax.random.key(5), x, 2_000)
    # What 180 stored signals and 1,500 steps leave.
    assert_near(direct, exact[0], 0.35, 0.2)
    target = functools.partial(emulated.marginal, emulator, likelihood, None)
    weighted = jaxsbi.importance(jax.random.key(6), fitted.posterior, target, prior, x, 2_000)
    assert weighted.efficiency > 0.5
    target = functools.partial(emulated.marginal, emulator, likelihood, low)
    weighted = jaxsbi.importance(jax.random.key(8), fitted.posterior, target, prior, x, 20_000)
    assert_near(weighted.resample(jax.random.key(9), 2_000), exact[1], 0.35, 0.25)
