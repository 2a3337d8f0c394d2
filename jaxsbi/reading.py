"""Simulations that others have made: arrays, and HDF5 files as they come from a campaign."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Data, Simulations, Theta, warn
from jaxsbi.dataspec import check_range
from jaxsbi.missing import cleared, refuse_masked_arrays
from jaxsbi.simulate import all_finite

if TYPE_CHECKING:
    import h5py

Names = str | Sequence[str] | Mapping[str, str]
"""Columns of a file: one, several under their own names, or by the names they will have."""
UNITS = ("units", "unit")
COLUMNS = ("columns", "names")
PRECISION_ROWS = 1024
"""Rows that are looked at for a spread that single precision loses."""
COARSE = 100.0
"""Steps of single precision that the spread of a column has at least."""
LISTS = (
    "expected arrays with a leading axis of runs, got a list of data sets. Stack those of one "
    "size, numpy.stack(…); pad those of several, with a mask: jaxsbi.networks.pad(…)."
)


@dataclasses.dataclass(frozen=True)
class Campaign:
    """What a file says of the simulations in it.

    Attributes:
        path: The file.
        units: Name of a parameter, or place in x, to its unit; "" where the file gives none.
        invalid: How many runs are not finite.
    """

    path: str
    units: dict[str, str]
    invalid: int


def from_arrays(theta: Mapping[str, Any], x: Data, weight: Any = None) -> Simulations:
    """Return simulations from arrays.

    Args:
        theta: Named parameters, each of shape `(n, *shape)`.
        x: A pytree of arrays, each of shape `(n, *shape)`. What is masked may be anything, also
            NaN, and becomes 0.
        weight: Shape `(n,)`, 0 for runs to leave out; 1 by default.

    Raises:
        TypeError: If `theta` is no dict.
        ValueError: If the arrays do not have the same number of rows, there are none or lists of
            data sets in their place, no row is finite, a weight is negative or NaN, or one is a
            masked array of NumPy's.

    Warns:
        UserWarning: If some rows are not finite; they have weight 0.
    """
    if not hasattr(theta, "items"):  # a table with columns has them, too
        raise TypeError(
            "from_arrays: theta: expected a dict of named parameters, as the prior names them, got "
            f'{type(theta).__name__}. Pass {{"name": column, …}}.'
        )
    refuse_masked_arrays("from_arrays: x", x)
    refuse_masked_arrays("from_arrays: theta", theta, "Leave out runs of unknown parameters.")
    theta = {name: _on_device(a) for name, a in theta.items()}
    x = jax.tree.map(_on_device, x)
    shapes = {
        f"{part}{jax.tree_util.keystr(path)}": a.shape
        for part, tree in (("theta", theta), ("x", x))
        for path, a in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    rows = {shape[:1] for shape in shapes.values()}
    if len(rows) > 1 and _has_lists(x):
        raise ValueError(f"from_arrays: x: {LISTS}")
    if not theta or len(rows) != 1 or rows == {()} or rows == {(0,)}:
        raise ValueError(
            "from_arrays: expected a leading axis of runs, one or more, of one length in theta and "
            "in x, got "
            f"{', '.join(f'{name} {shape}' for name, shape in shapes.items()) or 'no theta'}."
        )
    n, x = rows.pop()[0], cleared(x)
    given = jnp.ones(n) if weight is None else jnp.asarray(weight, float)
    if given.shape != (n,):
        raise ValueError(f"from_arrays: expected weight of shape ({n},), got {given.shape}.")
    if not bool(jnp.all(given >= 0)):
        raise ValueError(
            "from_arrays: weight: expected 1 for runs to train on and 0 for others, got negative "
            "numbers or NaN."
        )
    valid = np.asarray(jax.vmap(all_finite)((theta, x)))
    if not valid.any():
        raise ValueError(
            f"from_arrays: expected finite runs, got NaN or infinity in each of {n}. Look for a "
            f"column that was never written: {_never(theta, x)}."
        )
    if not valid.all():
        warn(
            f"from_arrays: {n - valid.sum()} of {n} runs are not finite; they have weight 0 and "
            "are left out of training. Look at simulations.theta where weight == 0."
        )
    return Simulations(theta, x, jnp.where(valid, given, 0.0))


def read_hdf5(
    path: str | os.PathLike[str],
    theta: Names,
    x: Names,
    *,
    units: Mapping[str, str] | None = None,
    rows: slice = slice(None),
) -> tuple[Simulations, Campaign]:
    """Read simulations from an HDF5 file (`pip install "jaxsbi[hdf5]"`).

    A column is a dataset with one row per run, "group/dataset"; a field of a table,
    "table/field"; or a column of a matrix whose names are in its attribute "columns" or "names",
    "matrix/name". A unit is its attribute "units" or "unit".

        simulations, campaign = jaxsbi.read_hdf5(
            "runs.h5", theta={"h": "parameters/hubble"}, x={"tt": "spectra/tt", "ee": "spectra/ee"}
        )

    Args:
        path: The file.
        theta: The parameters' columns: names as the prior has them, to columns; or a list of
            columns that have the prior's names.
        x: The data's columns, in the same ways; one column alone makes x an array.
        units: Units that some of theta and x (by name) must have in the file.
        rows: Which runs to read.

    Returns:
        The simulations, of weight 0 where a number is not finite, and what the file says of them.

    Raises:
        ImportError: If h5py is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it is no HDF5 file, a column is missing (the message lists those there
            are) or named twice, columns have different numbers of rows or none, or a unit is
            another.
    """
    with _opened(path) as file:
        wanted = {"theta": _by_name(theta, "theta"), "x": _by_name(x, "x")}
        if both := [name for name in wanted["x"] if name in wanted["theta"]]:
            raise ValueError(
                f"read_hdf5: expected other names in x than in theta, got {both} in both. Give a "
                'column another name, as in x={"name": "column"}.'
            )
        missing = [c for names in wanted.values() for c in names.values() if not _find(file, c)]
        if missing:
            raise ValueError(
                f"{path}: expected the columns {missing}, got none so named. There are: "
                f"{_listing(file)}."
            )
        found = {
            part: {name: _read(file, column, rows) for name, column in names.items()}
            for part, names in wanted.items()
        }
        said = {n: _unit(file, c) for names in wanted.values() for n, c in names.items()}
    _check_units(path, dict(units or {}), said)
    data = found["x"] if not isinstance(x, str) else found["x"][x]
    try:
        simulations = from_arrays(found["theta"], data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return simulations, Campaign(str(path), said, len(simulations) - simulations.num_valid)


def _opened(path: str | os.PathLike[str]) -> h5py.File:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            'read_hdf5 needs h5py. Install it: pip install "jaxsbi[hdf5]".'
        ) from error
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: expected an HDF5 file, got none.")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path}: expected an HDF5 file, got another. Pass arrays: from_arrays.")
    return h5py.File(path, "r")


def _by_name(names: Names, part: str) -> dict[str, str]:
    if isinstance(names, str):
        return {names: names}
    found = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    if not found:
        raise ValueError(f"read_hdf5: {part}: expected at least one column, got none.")
    return found


def _find(file: h5py.File, column: str) -> tuple[Any, str | None] | None:
    """Return the dataset of a column, and its field or column within; None if there is none."""
    if column in file and hasattr(file[column], "dtype"):
        return file[column], None
    parent, _, name = column.rpartition("/")
    if parent in file and name in _within(file[parent]):
        return file[parent], name
    return None


def _within(dataset: Any) -> list[str]:
    """Return the names of a table's fields, or of a matrix's columns."""
    if not hasattr(dataset, "dtype"):
        return []
    if dataset.dtype.names:
        return list(dataset.dtype.names)
    for attribute in COLUMNS:
        if attribute in dataset.attrs and len(dataset.shape) == 2:
            return [_text(name) for name in np.ravel(dataset.attrs[attribute])]
    return []


def _read(file: h5py.File, column: str, rows: slice) -> np.ndarray:
    found = _find(file, column)
    assert found is not None
    dataset, name = found
    if not dataset.shape:
        raise ValueError(f"{column}: expected one row per run, got a single number.")
    if name is None:
        values = dataset[rows]
    elif dataset.dtype.names:
        values = dataset[name][rows]
    else:
        names = _within(dataset)
        if len(names) != dataset.shape[1] or len(set(names)) != len(names):
            raise ValueError(
                f"{column}: expected a name for each of the matrix's {dataset.shape[1]} columns, "
                f"and no name twice, got {names}."
            )
        values = dataset[rows, names.index(name)]
    if values.dtype.kind not in "biufc":
        raise ValueError(f"{column}: expected numbers, got {values.dtype}.")
    return values


def _unit(file: h5py.File, column: str) -> str:
    """Return a column's unit; a table or a matrix may have one for each of its columns."""
    found = _find(file, column)
    assert found is not None
    dataset, name = found
    for attribute in UNITS:
        if attribute not in dataset.attrs:
            continue
        texts = [_text(unit) for unit in np.ravel(dataset.attrs[attribute])]
        if name is None or len(texts) == 1:
            return texts[0]
        return dict(zip(_within(dataset), texts, strict=False)).get(name, "")
    return ""


def _check_units(path: Any, wanted: dict[str, str], said: dict[str, str]) -> None:
    for name, unit in wanted.items():
        if name not in said:
            raise ValueError(f"units: expected names among {list(said)}, got {name!r}.")
        if said[name] != unit:
            raise ValueError(
                f"{path}: {name}: expected the unit {unit!r}, got {said[name] or 'none'!r}. "
                "Convert the prior, or the file."
            )


def _listing(file: h5py.File) -> str:
    names: list[str] = []

    def visit(name: str, node: Any) -> None:
        if hasattr(node, "dtype"):
            inner = _within(node)
            names.extend(f"{name}/{i}" for i in inner)
            if not inner:
                names.append(f"{name} {list(node.shape)}")

    file.visititems(visit)
    return ", ".join(names) or "none at all"


def _never(theta: Theta, x: Data) -> list[str]:
    """Return the places of arrays of which no row is finite."""
    leaves = jax.tree_util.tree_flatten_with_path({"theta": theta, "x": x})[0]
    return [
        jax.tree_util.keystr(path)
        for path, a in leaves
        if not np.isfinite(np.asarray(a)).reshape(len(a), -1).all(1).any()
    ]


def _has_lists(x: Data) -> bool:
    nodes = jax.tree.leaves(x, is_leaf=lambda node: isinstance(node, list | tuple))
    return any(isinstance(node, list | tuple) for node in nodes)


def _on_device(a: Any) -> jax.Array:
    """Return an array of JAX's; doubles become floats unless JAX works in double precision.

    Raises:
        ValueError: If it holds no numbers.
    """
    array = np.asarray(a)
    if array.dtype.kind in "OSU":
        hint = LISTS if array.dtype.hasobject else "expected numbers."
        raise ValueError(f"from_arrays: got an array of {array.dtype}: {hint}")
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype != array.dtype:
        _check_precision(array, dtype)
    return jnp.asarray(array, dtype)


def _check_precision(array: np.ndarray, dtype: np.dtype) -> None:
    """Look at whether numbers survive JAX's single precision.

    Raises:
        ValueError: If integers are beyond its range.

    Warns:
        UserWarning: If numbers of a column that differ become equal: small ones on a large offset.
    """
    check_range(
        "from_arrays", array, str(dtype),
        "Pass them as floats, or enable double precision: "
        "jax.config.update('jax_enable_x64', True).",
    )  # fmt: skip
    if dtype.kind == "f" and array.ndim and len(array) > 1:
        # From all over: the first of sorted rows have a spread that is none of the column's.
        rows = np.linspace(0, len(array) - 1, min(len(array), PRECISION_ROWS)).astype(int)
        some = array[rows].reshape(len(rows), -1)
        with np.errstate(all="ignore"):
            spread, size = np.ptp(some, 0), np.abs(some).max(0)
            lost = np.isfinite(size) & (spread > 0) & (spread < COARSE * np.finfo(dtype).eps * size)
        if lost.any():
            warn(
                f"from_arrays: {lost.sum()} of {lost.size} numbers differ by less than {dtype} can "
                f"tell: their size is {size[lost][0]:.3g}, their spread {spread[lost][0]:.3g}. "
                "Subtract an offset, from observations too, or enable double precision."
            )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
