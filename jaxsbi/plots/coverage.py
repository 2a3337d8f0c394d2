"""Coverage: how often regions of a nominal level hold the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from jaxsbi.diagnostics.calibration import Ranks
from jaxsbi.plots.canvas import COLORS, DASHES, REFERENCE, figure_of, panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coverage(
    ranks: Ranks | Mapping[str, Ranks], *, sigmas: bool = False, figure: Figure | None = None
) -> Figure:
    """Draw realised against nominal coverage of credible regions.

    With the ordering `Density` of highest-density regions; with `Distance` this is TARP. Above the
    diagonal the posterior is too wide (conservative), below it too narrow. The grey band holds the
    whole curve of a calibrated posterior in 95 of 100 studies.

    Args:
        ranks: One ordering of what `jaxsbi.diagnostics.calibration` returned, or several by label;
            of an ordering with several tests the first is drawn.
        sigmas: Draw levels as a normal distribution's number of standard deviations, in which the
            tails are visible.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is nothing to draw.
    """
    groups = {ranks.name: ranks} if isinstance(ranks, Ranks) else dict(ranks)
    if not groups:
        raise ValueError("coverage: expected at least one ordering's ranks, got none.")
    axes = panel("coverage", figure, (4.0, 3.8))
    level = ndtr(np.linspace(0, 3, 200)) * 2 - 1 if sigmas else np.linspace(0, 1, 200)

    def scale(share: np.ndarray) -> np.ndarray:
        # A share of one would lie at infinity.
        return ndtri(0.5 + 0.5 * np.clip(share, 0, 1 - 1e-4)) if sigmas else share

    band = max(each.band for each in groups.values())
    low, high = np.clip(level - band, 0, 1), np.clip(level + band, 0, 1)
    axes.fill_between(scale(level), scale(low), scale(high), color=REFERENCE, alpha=0.25, lw=0)
    axes.plot(scale(level), scale(level), color=REFERENCE, lw=0.8)
    for order, (label, each) in enumerate(groups.items()):
        realised = each.coverage(level)[0]
        color, dash = COLORS[order % 6], DASHES[order % 6]
        axes.plot(scale(level), scale(realised), color=color, ls=dash, lw=1.6, label=label)
    end = 3.0 if sigmas else 1.0
    unit = " (standard deviations)" if sigmas else ""
    axes.set(
        xlim=(0, end), ylim=(0, end), xlabel=f"nominal{unit}", ylabel=f"realised{unit}", aspect=1
    )
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return figure_of(axes)
