"""The flagship example: each part against numbers of other programs, and the whole, small."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsbi

# Not by importing it: ripplegw starts JAX, and changes its precision.
if not all(importlib.util.find_spec(name) for name in ("ripplegw", "h5py")):
    pytest.skip('needs pip install "jaxsbi[gw]"', allow_module_level=True)

from examples.gravitational_waves import (
    bands,
    data,
    detectors,
    dingo,
    evaluate,
    precessing,
    problem,
    ratio,
    reference,
    ripple,
)

# Right ascension, declination, polarization, GPS time; sidereal time; for Hanford and Livingston
# F+, Fx and the delay: LALSuite 7.26 (ComputeDetAMResponse, TimeDelayFromEarthCenter).
LAL = [
    ((4.002148315014479, -0.47847567661101387, 0.12872212178963477, 1126259460.0661106),
     36137.055064451364,
     ((-0.8078106892, -0.3425887180, 0.0185764921), (0.9301392877, 0.3630434153, 0.0212270033))),
    ((5.109927617709579, 0.9711072838331709, 1.9058024965549174, 1126259462.9179862),
     36137.05527241557,
     ((-0.1011120300, 0.6702007223, -0.0128749205), (-0.1229490964, -0.4580310863, -0.0041482708))),
    ((3.415696558991173, 1.0554961743852478, 2.563079532033328, 1126259460.010954),
     36137.05506042927,
     ((-0.3041435735, 0.0533922228, -0.0061515536), (0.2005149100, -0.0568762308, -0.0018905371))),
    ((5.3872299529679575, -1.2021856584134354, 2.292280190156093, 1126259460.7026224),
     36137.055110866546,
     ((-0.5662584706, 0.2693112117, 0.0127383111), (0.5350916735, -0.0216231322, 0.0113273107))),
]  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    """The real data, where they are or can be downloaded."""
    try:
        for name in data.FILES:
            data.find(name)
    except OSError as error:
        pytest.skip(f"the data of GW150914 are neither here nor to be had: {error}")


@pytest.fixture(scope="module")
def quiet():
    """Eight seconds of Gaussian noise of a known, steep spectrum."""
    frequency = np.arange(160, 4096) / 8.0
    asd = 1e-23 * np.sqrt((40.0 / frequency) ** 6 + 1.0 + (frequency / 200.0) ** 2)
    asd = np.stack([asd, 1.5 * asd])
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, *asd.shape))
    strain = (noise[0] + 1j * noise[1]) * asd / np.sqrt(4.0 / 8.0)
    return data.Segment(frequency, strain, asd)


def binary(**changes):
    theta = {"chirp_mass": 30.0, "mass_ratio": 0.7, "chi1": 0.3, "chi2": -0.2}
    return theta | {"distance": 500.0, "time": 0.011} | changes


def arrays(theta):
    return {name: jnp.asarray(value, float) for name, value in theta.items()}


def test_ripplegw_does_not_change_the_precision():
    assert jnp.zeros(1).dtype == jnp.float32


def test_nor_does_one_that_cannot_be_imported(tmp_path, monkeypatch):
    broken = tmp_path / "ripplegw" / "__init__.py"
    broken.parent.mkdir()
    switch = 'import jax\njax.config.update("jax_enable_x64", True)\n'
    broken.write_text(switch + 'raise ImportError("half-way")')
    for name in [name for name in sys.modules if name.partition(".")[0] == "ripplegw"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="half-way"):
        runpy.run_path(str(Path(ripple.__file__)))
    assert jnp.zeros(1).dtype == jnp.float32


@pytest.mark.parametrize(("where", "sidereal", "expected"), LAL)
def test_detectors_are_those_of_lal(where, sidereal, expected, x64):
    ra, dec, psi, gps = where
    turns = (detectors.sidereal(gps) - sidereal) / (2.0 * np.pi)
    assert abs(turns - round(turns)) < 1e-7
    angles = jnp.asarray([ra, dec, psi, detectors.sidereal(gps)])
    found = np.stack(detectors.project(*angles), axis=1)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-6)


def test_the_grid_loses_nothing(quiet, x64):
    event, _ = problem.observe(quiet)
    corners = [binary(), binary(chirp_mass=26.5), binary(chirp_mass=35.5, chi1=-0.7, time=0.0085)]
    draws = {name: np.array([corner[name] for corner in corners]) for name in corners[0]}
    lost = problem.mismatch(event, quiet, draws)
    assert np.all((lost >= 0.0) & (lost < 1e-4))


def test_noise_on_the_grid_is_white(quiet):
    _, seen = bands.compress(quiet, np.linspace(20.0, 511.875, 500), problem._reference)
    numbers = np.concatenate([seen.real, seen.imag]).ravel()  # 2,000
    assert abs(np.mean(numbers**2) - 1.0) < 4.0 * np.sqrt(2.0 / 2000.0)
    assert abs(np.mean(numbers.reshape(4, -1)[:, 1:] * numbers.reshape(4, -1)[:, :-1])) < 4.0 / 44.0


def test_data_and_likelihood_know_no_phase(quiet, x64):
    strain = quiet.strain + problem.full_strain(quiet.frequency, binary())
    event, x = problem.observe(quiet._replace(strain=strain))
    _, turned = problem.observe(quiet._replace(strain=strain * np.exp(1.3j)))
    np.testing.assert_allclose(x["strain"], turned["strain"], atol=1e-9)
    found = float(event.log_likelihood(arrays(binary()), x))
    # Whittle's likelihood at all frequencies, the phase integrated out by quadrature.
    whitener = np.sqrt(4.0 * quiet.resolution) / quiet.asd
    signal = whitener * problem.full_strain(quiet.frequency, binary())
    product = np.vdot(signal, whitener * strain)
    phases = np.linspace(0.0, 2.0 * np.pi, 2000, endpoint=False)
    terms = (np.exp(1j * phases) * product).real
    exact = np.log(np.mean(np.exp(terms - terms.max()))) + terms.max()
    exact -= 0.5 * np.linalg.norm(signal) ** 2
    assert abs(found - exact) < 0.1
    # Single precision, as in training, is good enough for weights, too.
    with jax.enable_x64(False):
        single = event.log_likelihood(arrays(binary()), jax.tree.map(jnp.float32, x))
    assert abs(float(single) - found) < 0.05


@pytest.mark.slow
@pytest.mark.rank_promotion  # ripplegw's
def test_published_likelihoods_are_reproduced(measured, x64):
    drawn = data.published()
    rows = np.random.default_rng(1).choice(len(drawn["tc"]), 60, replace=False)
    found = reference.published_ratios({k: v[rows] for k, v in drawn.items()})
    expected = drawn["log_ratio"][rows]
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    # Their spectrum was estimated from other data: a constant of 10 nat, and little else.
    assert np.std(found - expected) < 0.5


@pytest.mark.slow
# A small network's efficiency may be below 1 %, of which it warns.
@pytest.mark.filterwarnings("ignore:importance:UserWarning")
def test_a_small_network_is_calibrated_and_weighed_by_the_exact_likelihood(quiet):
    event, _ = problem.observe(quiet, count=72)
    small = dingo.method(components=48, hidden=96, blocks=2, layers=5)
    fitted = dingo.train(
        jax.random.key(0), event, signals=8192, steps=1500, batch=128, network=small
    )
    posterior = fitted.posterior
    report = jaxsbi.diagnostics.calibration(
        jax.random.key(1), posterior, problem.prior(), event.simulate, num_datasets=300
    )
    assert report.passed, str(report)
    strain = quiet.strain + problem.full_strain(quiet.frequency, binary(distance=800.0))
    _, x = problem.observe(quiet._replace(strain=strain), count=72)
    weighted, _ = evaluate.weigh(jax.random.key(2), posterior, event, x, 10_000)
    assert float(weighted.efficiency) > 0.002

    again, _ = evaluate.weigh(jax.random.key(3), posterior, event, x, 10_000)
    errors = np.hypot(float(weighted.log_evidence_error), float(again.log_evidence_error))
    assert abs(float(weighted.log_evidence - again.log_evidence)) < 4.0 * errors


def test_coordinates_of_the_sampler_are_the_published_ones(x64):
    theta = jax.vmap(precessing.prior().sample)(jax.random.split(jax.random.key(0), 500))
    seen = jax.vmap(precessing.published_from)(theta)
    at = jax.vmap(detectors.project, (0, 0, None, None))
    _, _, delay = at(seen["ra"], jnp.arcsin(seen["sin_dec"]), 0.0, detectors.sidereal(data.EVENT))
    np.testing.assert_allclose(seen["time"] + delay[:, 0], theta["time_hanford"], atol=1e-12)
    length = np.linalg.norm(detectors.VERTEX[1] - detectors.VERTEX[0]) / detectors.LIGHT
    np.testing.assert_allclose(
        delay[:, 0] - delay[:, 1], length * theta["cos_baseline"], atol=1e-12
    )
    both = precessing.comparable(seen)
    np.testing.assert_allclose(both["chirp_mass"], theta["chirp_mass"])
    np.testing.assert_allclose(both["mass_ratio"], theta["mass_ratio"])


@pytest.mark.slow
@pytest.mark.rank_promotion  # ripplegw's
def test_the_grid_for_precessing_binaries_loses_nothing(measured, x64):
    drawn = precessing.published_draws()
    few = {name: jnp.asarray(values[:8]) for name, values in drawn.items()}
    at = precessing.likelihood()
    score = jax.jit(lambda theta: jax.lax.map(at, theta))
    sure = {name: values[:8] for name, values in data.published().items()}
    np.testing.assert_allclose(score(few), reference.published_ratios(sure), atol=0.1)


def test_masses_have_the_published_volume(x64):
    rest = {name: 0.5 for name in ("cos_baseline", "around", "time_hanford")}

    def masses(pair):
        seen = precessing.published_from(
            {"chirp_mass": pair[0], "mass_ratio": pair[1]}
            | {name: jnp.asarray(value) for name, value in rest.items()}
        )
        return jnp.stack([seen["mass1"], seen["mass2"]])

    pairs = jnp.asarray([[27.0, 0.3], [31.0, 0.8], [36.0, 0.99]])
    jacobian = jax.vmap(lambda pair: jnp.linalg.slogdet(jax.jacfwd(masses)(pair))[1])(pairs)
    volume = precessing.volume({"chirp_mass": pairs[:, 0], "mass_ratio": pairs[:, 1]})
    np.testing.assert_allclose(volume - jacobian, volume[0] - jacobian[0], atol=1e-10)


@pytest.mark.slow
def test_a_small_ratio_is_calibrated_in_each_marginal(quiet):
    event, _ = problem.observe(quiet, count=72)
    full = dingo.train(
        jax.random.key(0),
        event,
        signals=8192,
        steps=400,
        batch=128,
        network=ratio.method(contrasts=16),
    )
    groups = (("chirp_mass",), ("mass_ratio", "distance"))
    learned = ratio.marginals(
        jax.random.key(1), full.posterior, event, groups, rows=16_384, epochs=15
    )
    for number, group in enumerate(groups):
        key = jax.random.key(2 + number)
        found = ratio.calibrated(key, learned[group], event, group)
        assert found["p_value"] > 0.01, found
    strain = quiet.strain + problem.full_strain(quiet.frequency, binary())
    _, x = problem.observe(quiet._replace(strain=strain), count=72)
    draws = learned["chirp_mass",].sample(jax.random.key(4), x, 1000)["chirp_mass"]
    assert np.std(draws) < 0.85 * 10.0 / np.sqrt(12.0)  # the prior's
