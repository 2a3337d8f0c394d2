"""What all pictures share: colours, and a figure to draw into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, distinguishable by colour-blind readers and in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
"""Beside a colour, for print: colour is never the only sign."""
REFERENCE = "#8c8c8c"
WORST = "#D55E00"


def pyplot(name: str) -> Any:
    """Return matplotlib's pyplot, for the function of a name.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            f'jaxsbi.plots.{name} needs matplotlib: pip install "jaxsbi[plots]".'
        ) from error
    return plt


def columns_of(count: int) -> int:
    """Return how many panels stand in a row: at most four, and rows of equal length."""
    return -(-count // -(-count // 4))


def panels(name: str, count: int, figure: Figure | None, size: tuple[float, float]) -> list[Axes]:
    """Return the axes of `count` panels, in rows of `columns_of`, of a new figure or one given."""
    columns = columns_of(count)
    rows = -(-count // columns)
    if figure is None:
        across = (size[0] * columns, size[1] * rows + 0.3)
        figure = pyplot(name).figure(figsize=across, layout="constrained")
    made = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for axes in made:
        axes.spines[["top", "right"]].set_visible(False)
    return made


def panel(name: str, figure: Figure | None, size: tuple[float, float] = (4.6, 3.6)) -> Axes:
    """Return the axes of a picture with one panel."""
    return panels(name, 1, figure, size)[0]


def figure_of(axes: Axes) -> Figure:
    """Return the figure that a panel belongs to."""
    figure: Any = axes.get_figure()
    return figure
