"""Calibration: how far the ranks' distribution functions stray from the diagonal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxsbi.diagnostics.calibration import CalibrationReport
from jaxsbi.diagnostics.strata import Stratified
from jaxsbi.diagnostics.uniformity import LEVEL
from jaxsbi.plots.canvas import COLORS, REFERENCE, WORST, columns_of, figure_of, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def calibration(report: CalibrationReport, *, figure: Figure | None = None) -> Figure:
    """Draw, for each ordering, the ranks' empirical distribution function minus the diagonal.

    A calibrated posterior stays in the grey band, everywhere at once, in 95 of 100 studies. An arch
    above zero: the truth ranks too low (a bias); an S that rises first: the posterior is too
    narrow; one that falls first: too wide. Tests that fail at the 1 % level, corrected for their
    number, are drawn in the colour of warnings.

    Args:
        report: What `jaxsbi.diagnostics.calibration` returned.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    every = panels("calibration", len(report.tests), figure, (2.9, 2.7))
    columns = columns_of(len(every))
    for place, (axes, ranks) in enumerate(zip(every, report.tests.values(), strict=True)):
        axes.fill_between([0, 1], -ranks.band, ranks.band, color=REFERENCE, alpha=0.25, lw=0)
        axes.axhline(0.0, color=REFERENCE, lw=0.8)
        steps = (np.arange(ranks.ranks.shape[0]) + 0.5) / ranks.ranks.shape[0]
        for column, corrected in zip(ranks.ranks.T, ranks.corrected, strict=True):
            failed = corrected < LEVEL
            color = WORST if failed else COLORS[0]
            ordered = np.sort(column)
            axes.plot(ordered, steps - ordered, color=color, lw=1.4, alpha=0.9 if failed else 0.6)
        worst = float(np.min(ranks.corrected))
        # A long name, of a stratum, gets a line to itself.
        gap = "  " if len(ranks.name) < 16 else "\n"
        axes.set_title(f"{ranks.name}{gap}(p {worst:.2g})", fontsize=10)
        axes.set_xlim(0, 1)
        axes.set_ylim(*(np.array([-1, 1]) * max(1.6 * ranks.band, *np.abs(axes.get_ylim()))))
        if place % columns == 0:
            axes.set_ylabel("share below rank - rank")
        if place + columns >= len(every):
            axes.set_xlabel("rank of the truth")
    return figure_of(every[0])


def strata(report: Stratified, ordering: str, *, figure: Figure | None = None) -> Figure:
    """Draw one ordering's ranks in each stratum of the data, as `calibration` does.

    What cancels over all data sets, a bias whose sign depends on them, shows here.

    Args:
        report: What `jaxsbi.diagnostics.stratified` returned.
        ordering: The name of one of its orderings.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure with a panel per stratum.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no such ordering.
    """
    known = list(next(iter(report.reports.values())).tests)
    if ordering not in known:
        raise ValueError(f"ordering: expected one of {known}, got {ordering!r}.")
    each = {name: within[ordering]._replace(name=name) for name, within in report.reports.items()}
    return calibration(CalibrationReport(each), figure=figure)
