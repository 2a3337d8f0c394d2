"""Where a posterior is too high or too low at one observation: maps of the local test."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from jaxsbi.diagnostics.local import LocalC2ST
from jaxsbi.plots.canvas import COLORS, REFERENCE, WORST, figure_of, panels
from jaxsbi.plots.corner import as_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPS = 3
"""Pairs of parameters that are drawn."""


def local_c2st(test: LocalC2ST, *, figure: Figure | None = None) -> Figure:
    """Draw the local test's statistic among its null, and maps of what the classifier saw.

    Each dot is a posterior draw. Purple: there are more true parameters than draws, the posterior
    is too low; orange: it is too high; white: the classifier cannot tell. The colours mean
    something only where the test fails.

    Args:
        test: What `jaxsbi.diagnostics.local_c2st` returned.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure: the null distribution, then draws of each pair of parameters (three
        pairs at most), or of the only parameter against the probability.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    matrix, names = as_matrix(test.draws)
    pairs = list(itertools.combinations(range(matrix.shape[1]), 2))[:MAPS]
    first, *maps = panels("local_c2st", 1 + max(1, len(pairs)), figure, (3.1, 2.8))
    first.hist(test.null, bins=20, color=REFERENCE, alpha=0.5, label="right posteriors")
    color = COLORS[0] if test.passed else WORST
    first.axvline(test.statistic, color=color, lw=2, label=f"this one (p {test.p_value:.2g})")
    first.set(xlabel="statistic", ylabel="classifiers", xlim=(0, None))
    first.legend(frameon=False, fontsize=8)
    shift = test.probability - 0.5
    reach = max(float(np.quantile(np.abs(shift), 0.98)), 0.05)
    if not pairs:
        maps[0].axhline(0.5, color=REFERENCE, lw=0.8)
        maps[0].plot(matrix[:, 0], test.probability, ".", ms=3, color=color)
        maps[0].set(xlabel=names[0], ylabel="probability of being true", ylim=(0, 1))
    for axes, (i, j) in zip(maps, pairs, strict=False):
        # The palest colours would vanish on white paper.
        axes.set_facecolor("#e8e8e8")
        dots = axes.scatter(
            matrix[:, i], matrix[:, j], c=shift, s=6, cmap="PuOr_r", vmin=-reach, vmax=reach
        )
        axes.set(xlabel=names[i], ylabel=names[j])
        if axes is maps[len(pairs) - 1]:
            bar = figure_of(axes).colorbar(dots, ax=axes)
            bar.set_label("probability of being true - 1/2")
    return figure_of(first)
