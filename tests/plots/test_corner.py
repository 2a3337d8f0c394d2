"""Corner plots return a figure that shows everything it was given."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxsbi.plots import corner

pytest.importorskip("corner")


def draws(seed: int, scale: float) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(seed))
    return {
        "a": scale * jax.random.normal(keys[0], (500,)),
        "b": scale * jax.random.normal(keys[1], (500, 2)),
    }


def test_several_over_a_reference_with_the_truth() -> None:
    sharp, wide = draws(0, 0.2), draws(1, 1.0)
    figure = corner(
        {"wide": wide, "sharp": sharp}, reference=wide, truth={"a": 0.0, "b": np.zeros(2)}
    )
    assert len(figure.axes) == 9
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["reference", "wide", "sharp", "truth"]
    tallest = np.max(figure.axes[0].patches[0].get_path().vertices[:, 1])
    assert figure.axes[0].get_ylim()[1] >= tallest


def test_an_existing_figure_is_drawn_into() -> None:
    figure = corner(draws(0, 1.0))
    assert corner(draws(1, 1.0), figure=figure) is figure


def test_other_parameters_are_refused() -> None:
    other = {"c": draws(0, 1.0)["a"]}
    with pytest.raises(ValueError, match="corner: expected parameters"):
        corner({"one": draws(0, 1.0), "two": other})


def test_weighted_draws_are_those_of_the_target():
    # Draws of N(0, 2²) weighed to N(1, 0.5²): the histogram's mean and width are the target's.
    x = 2.0 * np.random.default_rng(0).normal(size=40_000)
    log_weights = -0.5 * ((x - 1.0) / 0.5) ** 2 + 0.5 * (x / 2.0) ** 2
    figure = corner({"a": x, "b": x[::-1].copy()}, log_weights=log_weights + 1000.0)
    outline = figure.axes[0].patches[0].get_path().vertices
    edges, heights = np.unique(outline[:, 0]), outline[1:-1:2, 1]
    middle = 0.5 * (edges[1:] + edges[:-1])
    mean = np.average(middle, weights=heights)
    width = np.sqrt(np.average((middle - mean) ** 2, weights=heights))
    # Some 9,000 draws count: errors 0.005 and 0.004, and the histogram is cut and smoothed.
    assert mean == pytest.approx(1.0, abs=0.03)
    assert width == pytest.approx(0.5, abs=0.03)
    # The frame follows the weights, not the draws.
    assert figure.axes[0].get_xlim()[1] < 4.0
    several = {"all": {"a": x}, "weighted": {"a": x}}
    figure = corner(several, log_weights={"weighted": log_weights}, levels=(0.5, 0.9, 0.99))
    assert len(figure.legends[0].get_texts()) == 2


def test_weights_and_levels_that_do_not_fit_are_refused():
    one = {"a": np.arange(50.0)}
    with pytest.raises(ValueError, match="expected 50 numbers"):
        corner(one, log_weights=np.zeros(3))
    with pytest.raises(ValueError, match="not all -inf"):
        corner(one, log_weights=np.full(50, -np.inf))
    with pytest.raises(ValueError, match="expected a dict from labels"):
        corner({"one": one, "two": one}, log_weights=np.zeros(50))
    with pytest.raises(ValueError, match="expected labels among"):
        corner({"one": one, "two": one}, log_weights={"three": np.zeros(50)})
    with pytest.raises(ValueError, match="levels between 0 and 1"):
        corner(one, levels=(68.0,))
