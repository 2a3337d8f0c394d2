"""How draws move from noise to the posterior, along a flow or by diffusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxsbi.plots.canvas import COLORS, REFERENCE, figure_of, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def trajectories(paths: ArrayLike, *, figure: Figure | None = None) -> Figure:
    """Draw each latent coordinate of draws against the solver's time.

    Args:
        paths: What `jaxsbi.methods.trajectories` returned, shape `(points, n, dim)`; some fifty
            draws are enough.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure with a panel per coordinate, of which the first four are shown: noise
        at the left, the posterior at the right.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the paths have another shape.
    """
    way = np.asarray(paths)
    if way.ndim != 3:
        raise ValueError(
            f"trajectories: expected paths of shape (points, n, dim), got {way.shape}."
        )
    time = np.linspace(0, 1, len(way))
    every = panels("trajectories", min(way.shape[2], 4), figure, (3.0, 2.6))
    for place, axes in enumerate(every):
        axes.plot(time, way[:, :, place], color=COLORS[0], lw=0.7, alpha=0.5)
        for end in (0, -1):
            axes.plot(np.full(way.shape[1], time[end]), way[end, :, place], ".", ms=3, color="k")
        axes.axhline(0.0, color=REFERENCE, lw=0.6)
        axes.set(xlim=(-0.03, 1.03), xlabel="time, noise to data", title=f"z[{place}]")
    return figure_of(every[0])
