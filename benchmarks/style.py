"""Colours and settings that all figures share with `jaxsbi.plots`."""

from __future__ import annotations

from typing import Any

from benchmarks import configs
from benchmarks.summary import ORDER
from jaxsbi.plots.canvas import COLORS, REFERENCE

GREY = REFERENCE
INK = "#222222"
SETTINGS: dict[str, Any] = {
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
MARKERS = "osD^vP"


def color(method: str) -> str:
    """Return the colour of a method, the same in every figure."""
    return COLORS[_place(method) % len(COLORS)]


def marker(method: str) -> str:
    """Return the marker of a method: colour is never the only sign."""
    return MARKERS[_place(method) % len(MARKERS)]


def _place(method: str) -> int:
    names = list(ORDER) + [name for name in configs.METHODS if name not in ORDER]
    return names.index(method) if method in names else len(names)
