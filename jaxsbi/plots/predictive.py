"""Bands of simulated data beside the observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxsbi.plots.canvas import COLORS, figure_of, panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.6827, 0.9545)


def predictive(
    simulated: ArrayLike | Mapping[str, ArrayLike],
    observed: ArrayLike,
    *,
    at: ArrayLike | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw 68 % and 95 % bands of simulated data, and the observation.

    Args:
        simulated: Data sets, shape `(n, numbers)`: simulations at draws of the posterior, for
            instance; or several by label (prior and posterior).
        observed: The observation, shape `(numbers,)`.
        at: Where each number was measured; 0, 1, … by default.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If shapes do not agree.
    """
    groups = dict(simulated) if isinstance(simulated, Mapping) else {"predictive": simulated}
    truth = np.asarray(observed)
    where = np.arange(truth.size) if at is None else np.asarray(at)
    if truth.ndim != 1 or where.shape != truth.shape:
        raise ValueError(
            "predictive: expected an observation of shape (numbers,) and as many places `at`, got "
            f"{truth.shape} and {where.shape}. Ravel other data, or draw them yourself."
        )
    axes = panel("predictive", figure, (5.4, 3.4))
    for order, (label, values) in enumerate(groups.items()):
        rows = np.asarray(values)
        if rows.shape[1:] != truth.shape:
            raise ValueError(
                f"predictive: expected data sets of shape (n, {truth.size}) for {label!r}, got "
                f"{rows.shape}."
            )
        color = COLORS[order % 6]
        for level, alpha in zip(LEVELS, (0.45, 0.2), strict=True):
            low, high = np.quantile(rows, [0.5 - level / 2, 0.5 + level / 2], axis=0)
            name = f"{label}, 68 % and 95 %" if level == LEVELS[0] else None
            axes.fill_between(where, low, high, color=color, alpha=alpha, lw=0, label=name)
        axes.plot(where, np.median(rows, 0), color=color, lw=1.0)
    axes.plot(where, truth, "o", ms=4, color="black", label="observed")
    axes.set(xlabel="number" if at is None else "", ylabel="x")
    if at is None:
        axes.locator_params(axis="x", integer=True)
    # Above the panel, for bands fill it.
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure_of(axes)
