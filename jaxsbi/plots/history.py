"""How a training, and a sequence of rounds, went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxsbi.base import History
from jaxsbi.plots.canvas import COLORS, REFERENCE, figure_of, panel, panels
from jaxsbi.sequential import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss(history: History, *, figure: Figure | None = None) -> Figure:
    """Draw the losses of each epoch; a line for each member of an ensemble.

    The dot marks the epoch that was kept. A validation loss that still falls at the end asks for
    more epochs; one that rises while the training loss falls asks for more simulations.

    Args:
        history: `fitted.history`.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If no epoch was finished.
    """
    if not history.epochs:
        raise ValueError("loss: expected at least one finished epoch, got none.")
    axes = panel("loss", figure)
    train, validation = np.atleast_2d(history.train_loss), np.atleast_2d(history.validation_loss)
    best = np.atleast_1d(history.best_epoch)
    epochs = np.arange(1, history.epochs + 1)
    lines = {"training": (train, REFERENCE, "--"), "validation": (validation, COLORS[0], "-")}
    for label, (values, color, dash) in lines.items():
        for member, line in enumerate(values):
            name = label if member == 0 else None
            axes.plot(epochs, line, color=color, ls=dash, lw=1.4, alpha=0.8, label=name)
    kept = best[best > 0]
    axes.plot(
        kept, validation[best > 0, kept - 1], "o", ms=6, color=COLORS[1], ls="none", label="kept"
    )
    # The first epochs are far from everything that matters.
    seen = np.concatenate([train, validation])
    late = seen[:, history.epochs // 10 :]
    low, high = np.nanmin(seen), np.nanmax(late)
    margin = 0.08 * max(high - low, 1e-6)
    axes.set(ylim=(low - margin, high + margin), xlabel="epoch", ylabel="loss (nats per row)")
    axes.legend(frameon=False, fontsize=9)
    return figure_of(axes)


def rounds(result: Result, *, figure: Figure | None = None) -> Figure:
    """Draw what each round of a sequential method simulated and kept.

    Args:
        result: What a function of `jaxsbi.sequential` returned.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure with two panels: simulations (all, and those trained on), and the share
        of the prior that the proposal covered. (Losses of different rounds are in different
        coordinates, and do not compare.)

    Raises:
        ImportError: If matplotlib is not installed.
    """
    first, second = panels("rounds", 2, figure, (3.0, 2.6))
    number = np.arange(1, len(result.rounds) + 1)
    made = np.cumsum([len(r.simulations) for r in result.rounds])
    first.bar(number, made, color=REFERENCE, alpha=0.4, label="simulated")
    first.bar(number, [r.kept for r in result.rounds], color=COLORS[0], width=0.5, label="kept")
    first.set(xlabel="round", ylabel="simulations, in all")
    first.legend(frameon=False, fontsize=9, loc="upper left")
    second.plot(number, [r.prior_mass for r in result.rounds], "o-", color=COLORS[0], lw=1.4)
    second.set(xlabel="round", ylabel="share of the prior", yscale="log")
    for axes in (first, second):
        axes.set_xticks(number)
    return figure_of(first)
