"""How wrong an emulator is, output by output, over runs it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxsbi.plots.canvas import COLORS, figure_of, panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERCENTILES = (50, 68, 95, 99)


def emulator_errors(
    predicted: ArrayLike,
    true: ArrayLike,
    *,
    unit: ArrayLike | None = None,
    at: ArrayLike | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw percentiles of an emulator's absolute error in each output, over held-out runs.

    Args:
        predicted: Emulated outputs, shape `(n, numbers)`: `jax.vmap(emulate)` of one array of x.
        true: The simulator's, of the same shape.
        unit: What errors are measured in, shape `(numbers,)`: the noise of the observation, for
            instance; the size of the true output by default (relative errors).
        at: Where each output is; 0, 1, … by default.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure: bands up to the 50th, 68th, 95th and 99th percentile.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If shapes do not agree, or relative errors are asked of outputs of 0.
    """
    one, other = np.asarray(predicted), np.asarray(true)
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(
            "emulator_errors: expected two arrays of shape (n, numbers), got "
            f"{one.shape} and {other.shape}. Pass one array of x at a time."
        )
    scale = np.abs(other) if unit is None else np.asarray(unit)
    where = np.arange(one.shape[1]) if at is None else np.asarray(at)
    if unit is not None and scale.shape != one.shape[1:]:
        raise ValueError(
            f"emulator_errors: expected unit of shape ({one.shape[1]},), got {scale.shape}."
        )
    if np.any(scale <= 0):
        raise ValueError(
            "emulator_errors: expected errors in units above 0, got 0. Pass `unit`, the noise of "
            "each output: relative errors are none where the true output is 0."
        )
    levels = np.percentile(np.abs(one - other) / scale, PERCENTILES, axis=0)
    axes = panel("emulator_errors", figure, (5.4, 3.4))
    below = np.zeros_like(levels[0])
    for level, percentile, alpha in zip(levels, PERCENTILES, (0.85, 0.55, 0.32, 0.15), strict=True):
        axes.fill_between(
            where, below, level, color=COLORS[0], alpha=alpha, lw=0, label=f"{percentile} %"
        )
        below = level
    axes.set(
        xlabel="number" if at is None else "",
        ylabel="relative error" if unit is None else "error / unit",
        ylim=(0, None),
        xlim=(where.min(), where.max()),
    )
    if at is None:
        axes.locator_params(axis="x", integer=True)
    axes.legend(
        title="of the runs are below",
        title_fontsize=8,
        frameon=False,
        fontsize=8,
        ncols=4,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    return figure_of(axes)
