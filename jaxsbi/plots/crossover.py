"""From how many observations on an amortized posterior is the cheaper one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxsbi.plots.canvas import COLORS, DASHES, figure_of, panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def crossover(
    costs: Mapping[str, tuple[float, float]],
    *,
    most: int = 10_000,
    figure: Figure | None = None,
) -> Figure:
    """Draw seconds against the number of observations, for several roads.

    Args:
        costs: Label → seconds spent once (simulate, train, compile), and seconds for each
            observation.
        most: The largest number of observations drawn.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If a cost is negative, or there is none.
    """
    if not costs or any(min(each) < 0 for each in costs.values()):
        raise ValueError(
            f"crossover: expected label → (seconds once, seconds each), not negative, got {costs}."
        )
    axes = panel("crossover", figure)
    number = np.geomspace(1, most, 200)
    for order, (label, (once, each)) in enumerate(costs.items()):
        color, dash = COLORS[order % 6], DASHES[order % 6]
        axes.plot(number, once + each * number, color=color, ls=dash, lw=1.8, label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(1, most),
        xlabel="number of observations",
        ylabel="seconds in all",
    )
    axes.legend(frameon=False, fontsize=9)
    return figure_of(axes)
