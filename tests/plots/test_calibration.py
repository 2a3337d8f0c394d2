"""Calibration plots show every test, and which of them failed."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsbi.diagnostics import CalibrationReport, Ranks
from jaxsbi.diagnostics.uniformity import ks_band, ks_p_value
from jaxsbi.plots import calibration
from jaxsbi.plots.canvas import WORST

pytest.importorskip("matplotlib")


def ranks(name: str, power: float) -> Ranks:
    values = np.random.default_rng(1).uniform(size=(500, 2)) ** power
    p_value = ks_p_value(values)
    return Ranks(name, values, p_value, p_value, ks_band(500), "nothing")


def test_each_ordering_has_a_panel_and_failures_another_colour() -> None:
    report = CalibrationReport({"good": ranks("good", 1.0), "bad": ranks("bad", 2.0)})
    figure = calibration(report)
    good, bad = figure.axes
    assert good.get_title().startswith("good")
    assert [line.get_color() == WORST for line in good.lines[1:]] == [False, False]
    assert [line.get_color() == WORST for line in bad.lines[1:]] == [True, True]
    assert bad.get_ylim()[1] >= 0.25  # u² strays by 1/4
    assert calibration(report, figure=figure) is figure
