"""Corner plots: one- and two-dimensional marginals of one or several posteriors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Theta
from jaxsbi.plots.canvas import COLORS, REFERENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.6827, 0.9545)


def corner(
    draws: Theta | dict[str, Theta],
    *,
    reference: Theta | None = None,
    truth: Theta | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw one or several posteriors over a reference, with contours at 68 % and 95 %.

    Args:
        draws: Named draws, each of shape `(n, *shape)`, or a dict from a label to such draws.
        reference: Named draws of a reference posterior, drawn in grey below the others.
        truth: The true parameters, drawn as lines.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib or corner is not installed.
        ValueError: If the sets of draws have different names or shapes.
    """
    try:
        import corner as corner_package
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            'jaxsbi.plots.corner needs matplotlib and corner: pip install "jaxsbi[plots]".'
        ) from error
    groups = _groups(draws, reference)
    arrays, labels = {}, None
    for name, theta in groups.items():
        arrays[name], columns = as_matrix(theta)
        if labels not in (None, columns):
            raise ValueError(f"corner: expected parameters {labels}, got {columns} for {name!r}.")
        labels = columns
    size = 1.2 + 1.9 * len(labels or ())
    figure = figure if figure is not None else plt.figure(figsize=(size, size))
    extent = _extent(arrays)
    handles: list[Any] = []
    tops = np.zeros(len(extent))
    for order, (name, matrix) in enumerate(arrays.items()):
        is_reference = reference is not None and order == 0
        color = REFERENCE if is_reference else COLORS[(order - (reference is not None)) % 6]
        _overplot(corner_package, figure, matrix, color, labels, extent, fill=is_reference)
        _raise_tops(figure, len(extent), tops)
        handles.append(plt.Line2D([], [], color=color, lw=5 if is_reference else 2, label=name))
    if truth is not None:
        values = as_matrix({k: jnp.asarray(v)[None] for k, v in truth.items()})[0][0]
        corner_package.overplot_lines(figure, values, color="black", lw=0.8, ls="--")
        handles.append(plt.Line2D([], [], color="black", lw=0.8, ls="--", label="truth"))
    if len(handles) > 1:
        figure.legend(handles=handles, loc="upper right", frameon=False, fontsize=11)
    return figure


def _groups(draws: Any, reference: Theta | None) -> dict[str, Theta]:
    several = all(isinstance(value, dict) for value in draws.values())
    groups = dict(draws) if several else {"posterior": draws}
    return groups if reference is None else {"reference": reference, **groups}


def _extent(arrays: dict[str, np.ndarray]) -> list[tuple[float, float]]:
    """A range per parameter that holds all sets, with a margin; outliers do not widen it."""
    both = [np.quantile(a, [0.002, 0.998], axis=0) for a in arrays.values()]
    low = np.min([b[0] for b in both], axis=0)
    high = np.max([b[1] for b in both], axis=0)
    margin = 0.08 * np.maximum(high - low, 1e-9)
    return list(zip(low - margin, high + margin, strict=True))


def _overplot(
    package: Any,
    figure: Figure,
    matrix: np.ndarray,
    color: str,
    labels: list[str] | None,
    extent: list[tuple[float, float]],
    *,
    fill: bool,
) -> None:
    package.corner(
        matrix,
        fig=figure,
        color=color,
        labels=labels,
        range=extent,
        bins=40,
        smooth=1.0,
        levels=LEVELS,
        plot_datapoints=False,
        plot_density=False,
        no_fill_contours=not fill,
        fill_contours=fill,
        contour_kwargs={"linewidths": 1.4},
        hist_kwargs={
            "density": True,
            "lw": 1.4,
            **({"histtype": "stepfilled", "alpha": 0.35} if fill else {}),
        },
        max_n_ticks=3,
    )


def _raise_tops(figure: Figure, dim: int, tops: np.ndarray) -> None:
    """Keep the tallest histogram of each diagonal panel in view; corner fits only the last."""
    for i in range(dim):
        panel = figure.axes[i * dim + i]
        tops[i] = max(tops[i], panel.get_ylim()[1])
        panel.set_ylim(0.0, tops[i])


def as_matrix(theta: Theta) -> tuple[np.ndarray, list[str]]:
    """Return named draws as a matrix `(n, d)`, and a label per column."""
    columns, labels = [], []
    for name, value in theta.items():
        array = np.asarray(value)
        flat = array.reshape(array.shape[0], -1)
        columns.append(flat)
        labels += [name] if array.ndim == 1 else [f"{name}[{i}]" for i in range(flat.shape[1])]
    return np.concatenate(columns, axis=1), labels
