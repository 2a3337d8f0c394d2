"""The figures of the report, each a function from rows or records to a matplotlib Figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import style
from benchmarks.summary import Crossover, Row, methods_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Published = Mapping[tuple[str, str, int], float]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(style.SETTINGS)
    return pyplot


def accuracy(table: Sequence[Row], budget: int, published: Published) -> Figure:
    """Draw the C2ST of each task and method at an equal number of simulations."""
    pyplot = _pyplot()
    rows = [row for row in table if row.budget == budget]
    tasks = list(dict.fromkeys(row.task for row in rows))
    methods = methods_of(rows)
    figure, axes = pyplot.subplots(figsize=(8.6, 1.5 + 0.62 * len(tasks)), layout="constrained")
    for place in range(0, len(tasks), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f6f6f6", lw=0, zorder=0)
    for index, method in enumerate(methods):
        offset = 0.17 * (index - (len(methods) - 1) / 2)
        _accuracy_of(axes, method, rows, tasks, offset, published)
    axes.axvline(0.5, color=style.INK, lw=1.0)
    axes.set(
        xlim=(0.485, 1.015),
        ylim=(len(tasks) - 0.5, -0.5),
        yticks=range(len(tasks)),
        yticklabels=tasks,
        xlabel=f"C2ST after {budget:,} simulations (0.5: same as the reference, 1: no overlap)",
    )
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    has_published = any((row.task, row.method, budget) in published for row in rows)
    _legend(figure, methods, published=has_published)
    return figure


def _accuracy_of(
    axes: Axes,
    method: str,
    rows: Sequence[Row],
    tasks: Sequence[str],
    offset: float,
    published: Published,
) -> None:
    """Draw one method: filled markers with standard errors, hollow ones for published means."""
    color, marker = style.color(method), style.marker(method)
    for row in (row for row in rows if row.method == method):
        y = tasks.index(row.task) + offset
        there = published.get((row.task, method, row.budget))
        if there is not None:
            axes.plot(there, y, marker, ms=6.5, mfc="white", mec=color, mew=1.1, zorder=2)
        if row.scores:
            error = None if math.isnan(row.error_of_mean) else row.error_of_mean
            axes.errorbar(
                row.mean, y, xerr=error, fmt=marker, ms=6.5, color=color, capsize=2, zorder=3
            )
        else:
            axes.text(0.505, y, row.status, color=color, ha="left", va="center", fontsize=8)


def _legend(figure: Figure, methods: Sequence[str], *, published: bool = False) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.color(m), marker=style.marker(m), lw=0, ms=6.5, label=m)
        for m in methods
    ]
    if published:
        hollow = {"mfc": "white", "mec": "#666666", "color": "#666666"}
        text = "published, same method and simulations"
        handles.append(Line2D([], [], marker="o", lw=0, ms=6.5, label=text, **hollow))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def wall_time(table: Sequence[Row]) -> Figure:
    """Draw the C2ST against all seconds spent until the draws of one observation."""
    rows = [row for row in table if row.scores]
    methods = methods_of(rows)

    def draw(axes: Axes, task: str) -> None:
        for method in methods:
            line = [row for row in rows if (row.task, row.method) == (task, method)]
            axes.plot(
                [row.first for row in line],
                [row.mean for row in line],
                color=style.color(method),
                marker=style.marker(method),
                ms=6.5,
                lw=1.3,
            )
        axes.axhline(0.5, color=style.INK, lw=1.0)
        axes.set(xscale="log", ylim=(0.48, 1.02))

    figure = _panels(rows, draw, "seconds: simulation + training + 10,000 draws", "C2ST")
    limits = [bound for row in rows for bound in (row.first * 0.7, row.first * 1.4)]
    for axes in figure.axes:
        axes.set_xlim(min(limits), max(limits))
        _plain_numbers(axes)
    _legend(figure, methods)
    return figure


def crossover(table: Sequence[Row], crossings: Sequence[Crossover], budget: int) -> Figure:
    """Draw seconds against the number of observations, and where npe overtakes the emulator."""
    rows = [row for row in table if row.scores and row.budget == budget]
    methods = methods_of(rows)
    marks = {c.task: c for c in crossings if c.budget == budget}
    longest = max([1000, *(c.observations or 1 for c in marks.values())])
    numbers = np.geomspace(1, 10 ** math.ceil(math.log10(longest)), 60)

    def draw(axes: Axes, task: str) -> None:
        for row in (row for row in rows if row.task == task):
            # simulate + train + compile once, then draw for each observation.
            cost = row.fixed + numbers * row.sample_run
            axes.plot(numbers, cost, color=style.color(row.method), lw=1.8)
        axes.set(xscale="log", yscale="log", xlim=(1, numbers[-1]))
        crossing = marks.get(task)
        if crossing is not None:
            _mark(axes, crossing)

    figure = _panels(rows, draw, "number of observations", "seconds in all")
    for axes in figure.axes:
        _plain_numbers(axes, axis="x")
        _plain_numbers(axes, axis="y")
    _legend_lines(figure, methods)
    return figure


def _mark(axes: Axes, crossing: Crossover) -> None:
    """Mark the crossover of npe and the emulator, or say that there is none."""
    number = crossing.observations
    text = "npe never cheaper" if number is None else f"npe cheaper from N = {number:,}"
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=8.5, color=style.INK)
    if number is not None and number > 1:
        row = crossing.amortized
        axes.axvline(number, color=style.GREY, lw=1.0, ls="--")
        cost = row.fixed + number * row.sample_run
        axes.plot(number, cost, "o", ms=7, mfc="none", mec=style.INK, mew=1.2)


def _legend_lines(figure: Figure, methods: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=style.color(m), lw=2.0, label=m) for m in methods]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _panels(
    rows: Sequence[Row], draw: Callable[[Axes, str], None], xlabel: str, ylabel: str
) -> Figure:
    """Return a figure with a panel per task."""
    pyplot = _pyplot()
    tasks = list(dict.fromkeys(row.task for row in rows))
    columns = min(5 if len(tasks) > 8 else 4, len(tasks))
    lines = -(-len(tasks) // columns)
    size = (max(2.2 * columns, 4.6), 0.9 + 2.2 * lines)
    figure, grid = pyplot.subplots(
        lines, columns, figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for axes in grid.flat[len(tasks) :]:
        axes.remove()
    for axes, task in zip(grid.flat, tasks, strict=False):
        draw(axes, task)
        axes.set_title(task)
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return figure


def _plain_numbers(axes: Axes, axis: str = "x") -> None:
    """Label a logarithmic axis 1, 3, 10, 30 instead of powers, and never too densely."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    target = axes.xaxis if axis == "x" else axes.yaxis
    low, high = target.get_view_interval()
    wide = high / low > 300
    target.set_major_locator(LogLocator(10, subs=(1.0,) if wide else (1.0, 3.0)))
    target.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    target.set_minor_formatter(NullFormatter())


def shown_parameters(labels: Sequence[str]) -> range:
    """Return the parameters that a corner plot shows: all up to five, otherwise the first four."""
    return range(len(labels) if len(labels) <= 5 else 4)


def corner(draws: Mapping[str, np.ndarray], reference: np.ndarray, labels: Sequence[str]) -> Figure:
    """Draw learned posteriors over the reference.

    Args:
        draws: Method → draws `(n, d)`.
        reference: Reference draws `(m, d)`.
        labels: One per parameter.
    """
    from jaxsbi.plots import corner as plot

    pyplot = _pyplot()
    shown = shown_parameters(labels)

    def named(matrix: np.ndarray) -> dict[str, np.ndarray]:
        return {labels[i]: matrix[:, i] for i in shown}

    with pyplot.rc_context({"axes.grid": False}):
        groups = {method: named(matrix) for method, matrix in draws.items()}
        return plot(groups, reference=named(reference))
