"""Every picture shows what it was given, in a figure that exists, and says what is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from jaxsbi import plots
from jaxsbi.base import History
from jaxsbi.diagnostics import CalibrationReport, LocalC2ST, Ranks, Stratified
from jaxsbi.diagnostics.uniformity import ks_band, ks_p_value
from jaxsbi.sequential import Result

pytest.importorskip("matplotlib")
RNG = np.random.default_rng(0)


def ranks(name: str = "density", power: float = 1.0, n: int = 400) -> Ranks:
    values = RNG.uniform(size=(n, 2)) ** power
    p_value = ks_p_value(values)
    return Ranks(name, values, p_value, p_value, ks_band(n), "nothing")


def history(members: int | None = None) -> History:
    shape = (20,) if members is None else (members, 20)
    line = np.broadcast_to(np.exp(-np.arange(20) / 5.0), shape)
    best = np.full(shape[:-1], 18)
    return History(line, line + 0.1, best, "max_epochs", 1.0, 1.0, (90, 10), 0)


def result() -> Result:
    each = [
        SimpleNamespace(simulations=range(100), kept=kept, prior_mass=mass)
        for kept, mass in ((100, 1.0), (150, 0.1), (170, 0.01))
    ]
    return Result(tuple(each))  # type: ignore[arg-type]


def local(dim: int) -> LocalC2ST:
    draws = {"theta": RNG.normal(size=(100, dim))}
    return LocalC2ST(0.1, RNG.uniform(size=99), 0.3, draws, RNG.uniform(size=100))


STRATIFIED = Stratified({name: CalibrationReport({"density": ranks()}) for name in "ab"})
TRUE = RNG.uniform(1.0, 2.0, size=(50, 7))
PATHS = np.cumsum(RNG.normal(size=(30, 40, 5)), 0)
PICTURES = {
    "calibration": lambda f: plots.calibration(CalibrationReport({"a": ranks("a")}), figure=f),
    "coverage": lambda f: plots.coverage(ranks(), figure=f),
    "crossover": lambda f: plots.crossover({"npe": (10.0, 0.01)}, figure=f),
    "emulator_errors": lambda f: plots.emulator_errors(TRUE * 1.01, TRUE, figure=f),
    "local_c2st": lambda f: plots.local_c2st(local(3), figure=f),
    "loss": lambda f: plots.loss(history(), figure=f),
    "predictive": lambda f: plots.predictive(RNG.normal(size=(50, 7)), np.zeros(7), figure=f),
    "rank_histograms": lambda f: plots.rank_histograms(ranks(), figure=f),
    "rounds": lambda f: plots.rounds(result(), figure=f),
    "strata": lambda f: plots.strata(STRATIFIED, "density", figure=f),
    "trajectories": lambda f: plots.trajectories(PATHS, figure=f),
}


@pytest.fixture(autouse=True)
def closed():
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def test_every_picture_is_here():
    assert {*PICTURES, "corner"} == set(plots.__all__)


@pytest.mark.parametrize("name", PICTURES)
def test_it_draws_into_a_figure_that_exists(name):
    from matplotlib.figure import Figure

    fresh = PICTURES[name](None)
    assert isinstance(fresh, Figure)
    fresh.canvas.draw()
    given = Figure()
    assert PICTURES[name](given) is given
    assert len(given.axes) == len(fresh.axes) > 0


@pytest.mark.parametrize("name", PICTURES)
def test_without_matplotlib_it_says_how_to_install_it(name, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"jaxsbi\.plots\.\w+ needs matplotlib: pip install"):
        PICTURES[name](None)


def test_coverage_is_below_the_diagonal_where_the_posterior_is_too_narrow():
    # A truth whose rank is sqrt(u) lies in regions of level a with probability a².
    figure = plots.coverage({"right": ranks(), "narrow": ranks(power=0.5)})
    _, right, narrow = figure.axes[0].lines
    level, realised = narrow.get_data()
    assert np.max(np.abs(realised - level**2)) < ks_band(400, 0.999)
    assert np.max(np.abs(right.get_ydata() - level)) < ks_band(400, 0.999)
    figure = plots.coverage(ranks(power=0.5), sigmas=True)
    nominal, realised = figure.axes[0].lines[1].get_data()
    assert nominal[-1] == pytest.approx(3.0)
    assert realised[100] < nominal[100]
    assert np.all(np.isfinite(realised))


def test_rank_histograms_are_densities_and_failures_have_another_colour():
    each = ranks(power=2.0)
    first = plots.rank_histograms(each, bins=10).axes[0]
    values, edges, _ = first.patches[0].get_data()
    assert np.sum(values * np.diff(edges)) == pytest.approx(1.0)
    assert first.patches[0].get_facecolor()[:3] == pytest.approx((0xD5 / 255, 0x5E / 255, 0))


def test_losses_of_an_ensemble_have_a_line_each():
    axes = plots.loss(history(3)).axes[0]
    assert len(axes.lines) == 2 * 3 + 1
    np.testing.assert_array_equal(axes.lines[-1].get_xdata(), [18, 18, 18])


def test_rounds_show_what_was_simulated_and_kept():
    simulations, mass = plots.rounds(result()).axes
    heights = [bar.get_height() for bar in simulations.patches]
    assert heights == [100, 200, 300, 100, 150, 170]
    np.testing.assert_allclose(mass.lines[0].get_ydata(), [1.0, 0.1, 0.01])


def test_the_local_test_maps_pairs_or_the_only_parameter():
    # The null, three maps and the bar of colours.
    assert len(plots.local_c2st(local(5)).axes) == 5
    _, only = plots.local_c2st(local(1)).axes
    assert only.get_ylabel() == "probability of being true"
    assert only.lines[1].get_xdata().size == 100


def test_strata_have_a_panel_each():
    titles = [axes.get_title() for axes in plots.strata(STRATIFIED, "density").axes]
    assert [title[0] for title in titles] == ["a", "b"]


def test_bands_hold_their_share():
    rows = RNG.normal(size=(4000, 3))
    axes = plots.predictive({"prior": 3 * rows, "posterior": rows}, np.zeros(3)).axes[0]
    inner = axes.collections[2].get_paths()[0].vertices[:, 1]
    # The quantiles of 4,000 normal numbers, at ±1: sqrt(.16 · .84 / 4000) / phi(1) = 0.024.
    assert inner.max() == pytest.approx(1.0, abs=0.1)


def test_errors_of_an_emulator_are_percentiles():
    true = RNG.uniform(1.0, 2.0, size=(1000, 3))
    error = np.linspace(0, 1, 1000)[:, None] * np.array([0.1, 1.0, 2.0])
    for figure in (
        plots.emulator_errors(true * (1 + error), true),
        plots.emulator_errors(true + 3 * error, true, unit=np.full(3, 3.0)),
    ):
        tops = [c.get_paths()[0].get_extents().y1 for c in figure.axes[0].collections]
        np.testing.assert_allclose(tops, [1.0, 1.36, 1.9, 1.98], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.coverage({}), "at least one ordering"),
        (lambda: plots.rank_histograms(ranks(), bins=100), "between 2 and 80"),
        (lambda: plots.crossover({}), "seconds once"),
        (lambda: plots.strata(STRATIFIED, "prior"), r"expected one of \['density'\]"),
        (lambda: plots.crossover({"npe": (1.0, -1.0)}), "not negative"),
        (lambda: plots.trajectories(np.zeros((3, 4))), "points, n, dim"),
        (lambda: plots.emulator_errors(TRUE, TRUE[0]), r"\(50, 7\) and \(7,\)"),
        (lambda: plots.emulator_errors(TRUE, 0 * TRUE), "Pass `unit`"),
        (lambda: plots.emulator_errors(TRUE, TRUE, unit=np.ones(3)), r"unit of shape \(7,\)"),
        (lambda: plots.predictive(np.zeros((5, 3)), np.zeros(4)), r"shape \(n, 4\)"),
        (lambda: plots.predictive(np.zeros((5, 3)), np.zeros((3, 1))), "shape \\(numbers,\\)"),
        (
            lambda: plots.loss(
                History(np.zeros(0), np.zeros(0), np.array(0), "", 0.0, 0.0, (1, 1), 0)
            ),
            "at least one finished epoch",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
