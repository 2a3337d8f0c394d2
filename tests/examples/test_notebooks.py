"""Every notebook runs top to bottom."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").rglob("*.ipynb"))

SMALL = {"gw150914": ("4_000, 128, 500", "200, 40, 40")}
"""What is made smaller in those that take more than two minutes."""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    if path.stem == "gw150914":
        find_the_event()
    if path.stem in SMALL:
        large, small = SMALL[path.stem]
        assert sum(large in cell.source for cell in notebook.cells) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(large, small)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()


def test_notebooks_are_committed_without_output() -> None:
    nbformat = pytest.importorskip("nbformat")
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), f"{path.name} holds output; clear it before committing"


def find_the_event() -> None:
    """Skip where the data of GW150914, or what reads them, are not to be had."""
    if not all(importlib.util.find_spec(name) for name in ("ripplegw", "h5py")):
        pytest.skip('needs pip install "jaxsbi[gw]"')
    from examples.gravitational_waves import data

    try:
        for name in data.FILES:
            data.find(name)
    except OSError as error:
        pytest.skip(f"the data of GW150914 are neither here nor to be had: {error}")
