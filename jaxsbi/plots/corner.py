"""Corner plots: one- and two-dimensional marginals of one or several posteriors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Theta
from jaxsbi.plots.canvas import COLORS, REFERENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.6827, 0.9545)


def corner(
    draws: Theta | dict[str, Theta],
    *,
    reference: Theta | None = None,
    truth: Theta | None = None,
    log_weights: Array | dict[str, Array] | None = None,
    levels: tuple[float, ...] = LEVELS,
    figure: Figure | None = None,
) -> Figure:
    """Draw one or several posteriors over a reference, with contours.

    Args:
        draws: Named draws, each of shape `(n, *shape)`, or a dict from a label to such draws.
        reference: Named draws of a reference posterior, drawn in grey below the others.
        truth: The true parameters, drawn as lines.
        log_weights: Of the draws, shape `(n,)`, up to a constant (`importance(...).log_weights`);
            with several posteriors, a dict from the labels of those that are weighted, where
            `"reference"` is the reference.
        levels: Contours hold these shares of a posterior: 68 % and 95 % by default.
        figure: An existing figure to draw into.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib or corner is not installed.
        ValueError: If the sets of draws have different names or shapes, weights do not fit the
            draws, or a level is not between 0 and 1.
    """
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise ValueError(f"corner: expected levels between 0 and 1, got {levels}.")
    try:
        import corner as corner_package
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            'jaxsbi.plots.corner needs matplotlib and corner: pip install "jaxsbi[plots]".'
        ) from error
    groups = _groups(draws, reference)
    weights = _weights(groups, log_weights)
    arrays, labels = {}, None
    for name, theta in groups.items():
        arrays[name], columns = as_matrix(theta)
        if labels not in (None, columns):
            raise ValueError(f"corner: expected parameters {labels}, got {columns} for {name!r}.")
        labels = columns
    size = 1.2 + 1.9 * len(labels or ())
    figure = figure if figure is not None else plt.figure(figsize=(size, size))
    extent = _extent(arrays, weights)
    style = {"labels": labels, "range": extent, "levels": tuple(sorted(levels))}
    handles: list[Any] = []
    tops = np.zeros(len(extent))
    for order, (name, matrix) in enumerate(arrays.items()):
        is_reference = reference is not None and order == 0
        color = REFERENCE if is_reference else COLORS[(order - (reference is not None)) % 6]
        _overplot(
            corner_package, figure, matrix, weights.get(name), color, style, fill=is_reference
        )
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


def _weights(groups: dict[str, Theta], log_weights: Any) -> dict[str, np.ndarray]:
    """Return normalised weights of the groups that have any."""
    if log_weights is None:
        return {}
    if not isinstance(log_weights, dict):
        names = [name for name in groups if name != "reference"]
        if len(names) > 1:
            raise ValueError(
                f"log_weights: expected a dict from labels among {names} to weights, got one array."
            )
        log_weights = {names[0]: log_weights}
    weights = {}
    for name, value in log_weights.items():
        if name not in groups:
            raise ValueError(f"log_weights: expected labels among {list(groups)}, got {name!r}.")
        rows = len(next(iter(groups[name].values())))
        logs = np.asarray(value, float)
        if logs.shape != (rows,) or np.isnan(logs).any() or not np.isfinite(logs.max()):
            raise ValueError(
                f"log_weights of {name!r}: expected {rows} numbers, not NaN and not all -inf, got "
                f"shape {logs.shape}."
            )
        weights[name] = np.exp(logs - logs.max())
    return weights


def _extent(
    arrays: dict[str, np.ndarray], weights: dict[str, np.ndarray]
) -> list[tuple[float, float]]:
    """A range per parameter that holds all sets, with a margin; outliers do not widen it."""
    both = [
        np.quantile(a, [0.002, 0.998], axis=0, weights=weights.get(name), method="inverted_cdf")
        for name, a in arrays.items()
    ]
    low = np.min([b[0] for b in both], axis=0)
    high = np.max([b[1] for b in both], axis=0)
    margin = 0.08 * np.maximum(high - low, 1e-9)
    return list(zip(low - margin, high + margin, strict=True))


def _overplot(
    package: Any,
    figure: Figure,
    matrix: np.ndarray,
    weights: np.ndarray | None,
    color: str,
    style: dict[str, Any],
    *,
    fill: bool,
) -> None:
    package.corner(
        matrix,
        weights=weights,
        fig=figure,
        color=color,
        **style,
        bins=40,
        smooth=1.0,
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
