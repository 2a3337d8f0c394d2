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
