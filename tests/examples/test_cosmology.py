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


def test_lowe_stands_for_the_bins_of_ee_at_low_l(example):
    two_ways = example("two_ways")
    spectra = [name for name, *_ in example("planck").LOW]
    assert spectra[: -two_ways.EE_BINS] == ["TT", "TT"]
    assert set(spectra[-two_ways.EE_BINS :]) == {"EE"}
    prior, box = two_ways.PRIOR_LOWE, example("boltzmann").PRIOR
    assert prior.names == box.names
    theta = {name: jnp.mean(jnp.stack([d.low, d.high])) for name, d in two_ways._NAMED.items()}
    tau, width = two_ways.LOWE
    near = prior.log_prob(theta | {"tau": tau}) - prior.log_prob(theta | {"tau": tau + width})
    np.testing.assert_allclose(near, 0.5, rtol=1e-4)


@pytest.fixture
def line(likelihood):
    """Return a problem of two parameters: prior, runs, and the likelihood of data drawn from it."""
    prior = jaxsbi.Prior(amplitude=dist.Uniform(0.97, 1.03), tilt=dist.Uniform(-0.03, 0.03))
    simulations = jaxsbi.simulate(
        jax.random.key(0), prior, lambda _, theta: likelihood.mean(peaks(theta)), 200
    )
    mean = likelihood.mean(peaks({"amplitude": 1.002, "tilt": -0.002}))
    noise = jax.random.normal(jax.random.key(1), mean.shape)
    return prior, simulations, likelihood._replace(data=mean + noise)


def exact_moments(likelihood):
    """Return means and standard deviations by sums over a grid, the calibration included."""
    axes = (np.linspace(0.97, 1.03, 61), np.linspace(-0.03, 0.03, 61), np.linspace(-3.5, 3.5, 15))
    a, t, c = (g.ravel() for g in np.meshgrid(*axes, indexing="ij"))

    def log_density(a, t, c):
        spectra = peaks({"amplitude": a, "tilt": t})
        return likelihood.log_likelihood(likelihood.mean(spectra), 1 + 0.0025 * c) - 0.5 * c**2

    values = jax.lax.map(lambda p: log_density(*p), jnp.stack([a, t, c], 1), batch_size=500)
    weights = np.asarray(jax.nn.softmax(values))
    means = {n: weights @ v for n, v in (("amplitude", a), ("tilt", t))}
    spread = {n: np.sqrt(weights @ (v - means[n]) ** 2) for n, v in (("amplitude", a), ("tilt", t))}
    return means, spread


@pytest.mark.slow
@pytest.mark.key_reuse  # numpyro.infer.MCMC uses a typed key twice,
@pytest.mark.rank_promotion  # and promotes ranks
def test_both_roads_meet_the_exact_posterior(line, example):
    two_ways, learned = example("two_ways"), example("learned")
    prior, simulations, likelihood = line
    means, spread = exact_moments(likelihood)
    emulator = example("emulators").of_bins(jax.random.key(2), prior, simulations, steps=800)
    chains, report = two_ways.by_mcmc(
        jax.random.key(3), emulator, likelihood.data, chains=4, warmup=200, steps=500
    )
    assert report["r_hat"] < 1.02
    compressed = learned.summaries(simulations.theta, simulations.x)
    fitted = two_ways.by_npe(
        jax.random.key(4), prior, simulations, compressed, num_steps=1_500, progress=False
    )
    x = compressed.matrix @ likelihood.data
    direct = fitted.posterior.sample(jax.random.key(5), x, 2_000)
    # NUTS: 4 standard errors of its means at an effective sample of 400. NPE: what 180 stored
    # signals and 1,500 steps leave.
    for draws, shift, ratio in ((chains, 0.2, 0.15), (direct, 0.35, 0.2)):
        for name, mean in means.items():
            assert abs(jnp.mean(draws[name]) - mean) < shift * spread[name]
            assert abs(jnp.std(draws[name]) / spread[name] - 1) < ratio
    target = functools.partial(two_ways.marginal, emulator, likelihood)
    weighted = jaxsbi.importance(jax.random.key(6), fitted.posterior, target, prior, x, 2_000)
    assert weighted.efficiency > 0.5
