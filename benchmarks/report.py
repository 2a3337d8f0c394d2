"""Writes `report.html`, one self-contained file, and every figure as a PNG beside it."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jaxsbi
from benchmarks import configs, figures, page, records, summary
from benchmarks.records import Record

DPI = 110
PAIR = summary.ORDER[:2]
"""The two roads of the corner plots; more than two over a reference cannot be told apart."""


def write_report(out: Path, results: Mapping[str, Any]) -> Path:
    """Write `figures/*.png` and `report.html`; return the path of the page."""
    shown = summary.current(dict(results))
    table = summary.rows(shown)
    crossings = summary.crossovers(table)
    images = _figures(out, table, crossings)
    corners = _corners(out, shown)
    text = page.page(results, shown, table, crossings, images, corners)
    path = out / "report.html"
    records.write_atomically(path, text.encode())
    return path


def main_budget(table: list[summary.Row]) -> int | None:
    """Return the largest number of simulations that something was finished with."""
    return max((row.budget for row in table if row.scores), default=None)


def _figures(
    out: Path, table: list[summary.Row], crossings: list[summary.Crossover]
) -> dict[str, str]:
    """Return name → data URI of the figures over all tasks."""
    budget = main_budget(table)
    if budget is None:
        return {}
    budgets = sorted({row.budget for row in table if row.scores})
    published = summary.published()
    images = {
        f"accuracy_{number}": _save(
            out, f"accuracy_{number}", lambda n=number: figures.accuracy(table, n, published)
        )
        for number in budgets
    }
    images["wall_time"] = _save(out, "wall_time", lambda: figures.wall_time(table))
    images["crossover"] = _save(
        out, "crossover", lambda: figures.crossover(table, crossings, budget)
    )
    return images


def _corners(out: Path, shown: list[Record]) -> list[dict[str, Any]]:
    """Return a corner plot per task, with what it shows."""
    pictures = []
    best = summary.first_records(shown)
    for task_name in (name for name in configs.task_names() if name in best):
        found = best[task_name]
        draws = {m: records.load_draws(out, found[m]) for m in _pair(found)}
        draws = {m: array for m, array in draws.items() if array is not None}
        if not draws:
            continue
        record = found[next(iter(draws))]
        task = jaxsbi.tasks.get(task_name)
        reference = jaxsbi.tasks.reference(task_name, record["observation"]).posterior_samples
        uri = _save(
            out,
            f"corner_{task_name}",
            lambda d=draws, r=reference, t=task: figures.corner(d, r[::5], t.labels),
        )
        scores = {m: found[m]["c2st"] for m in draws}
        columns = len(figures.shown_parameters(task.labels))
        pictures.append(
            {"task": task_name, "record": record, "scores": scores, "image": uri}
            | {"columns": columns}
        )
    return pictures


def _pair(found: Mapping[str, Record]) -> tuple[str, ...]:
    """Return the methods of a corner plot, whose colours go by order: one where the pair is not."""
    return PAIR if all(m in found for m in PAIR) else (next(iter(found)),)


def _save(out: Path, name: str, draw: Callable[[], Any]) -> str:
    """Draw a figure, write it as a PNG and return it as a data URI.

    A figure that cannot be drawn must not take the report with it: its error is returned, and
    the page shows it in the figure's place.
    """
    from matplotlib import pyplot

    try:
        figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    except Exception as error:
        warnings.warn(f"figure {name}: {type(error).__name__}: {error}", stacklevel=2)
        return f"{name} could not be drawn: {type(error).__name__}: {error}"
    finally:
        pyplot.close("all")
    records.write_atomically(out / "figures" / f"{name}.png", buffer.getvalue())
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
