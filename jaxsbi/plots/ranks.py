"""Rank histograms: the classical picture of simulation-based calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxsbi.diagnostics.calibration import Ranks
from jaxsbi.diagnostics.uniformity import LEVEL
from jaxsbi.plots.canvas import COLORS, REFERENCE, WORST, columns_of, figure_of, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rank_histograms(ranks: Ranks, *, bins: int = 20, figure: Figure | None = None) -> Figure:
    """Draw a histogram of the truth's ranks for each test of an ordering.

    Flat is right. A hump in the middle: the posterior is too wide; horns at both ends: too narrow;
    a slope: a bias. Each bar of a calibrated posterior lies in the grey band in 95 of 100 studies;
    `plots.calibration` has bands that hold for all at once, and depends on no bins.

    Args:
        ranks: One ordering of what `jaxsbi.diagnostics.calibration` returned.
        bins: The number of bars.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are fewer than two bins, or more than a fifth of the data sets.
    """
    n, count = ranks.ranks.shape
    if not 2 <= bins <= n / 5:
        raise ValueError(
            f"bins: expected between 2 and {n // 5} (a fifth of the {n} data sets), got {bins}."
        )
    every = panels("rank_histograms", count, figure, (2.4, 2.2))
    spread = 1.96 * np.sqrt((bins - 1) / n)
    top = 1.0 + spread
    for place, axes in enumerate(every):
        failed = ranks.corrected[place] < LEVEL
        heights, edges = np.histogram(ranks.ranks[:, place], bins=bins, range=(0, 1))
        heights = heights * bins / n
        top = max(top, heights.max())
        axes.fill_between([0, 1], 1 - spread, 1 + spread, color=REFERENCE, alpha=0.25, lw=0)
        axes.axhline(1.0, color=REFERENCE, lw=0.8)
        axes.stairs(heights, edges, fill=True, color=WORST if failed else COLORS[0], alpha=0.55)
        axes.set_title(f"{ranks.name}[{place}]  (p {ranks.corrected[place]:.2g})", fontsize=9)
        if place % columns_of(count) == 0:
            axes.set_ylabel("density")
        if place + columns_of(count) >= count:
            axes.set_xlabel("rank of the truth")
    for axes in every:
        axes.set(xlim=(0, 1), ylim=(0, 1.08 * top))
    return figure_of(every[0])
