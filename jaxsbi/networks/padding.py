"""From data of several sizes to arrays of one shape, and a mask that says what is padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsbi.missing import refuse_masked_arrays

MINIMUM = 8
PAD_BOTH = (
    'Pad values and masks: {"values": pad([a.filled(0) for a in arrays])["values"], '
    '"mask": pad([~np.ma.getmaskarray(a) for a in arrays])["values"]}.'
)


def bucket(size: int) -> int:
    """Return the length to which `size` members are padded: a power of two, 8 or more.

    Sizes up to n then take about log2(n) shapes, and so many compiled programs, in all.

    Raises:
        ValueError: If `size` is negative.

    >>> [bucket(n) for n in (0, 8, 9, 500)]
    [8, 8, 16, 512]
    """
    if size < 0:
        raise ValueError(f"bucket: expected a number of members, got {size}.")
    return max(MINIMUM, 1 << max(size - 1, 0).bit_length())


def pad(arrays: Sequence[Any], length: int | None = None) -> dict[str, np.ndarray]:
    """Return a batch of data sets of one shape, from arrays that differ in their first axis.

    A posterior reads the shape that it was trained with: give its `length`.

    Args:
        arrays: N arrays of shape `(n_i, *features)`; the last may be empty.
        length: What to pad to; by default `bucket` of the longest.

    Returns:
        `{"values": (N, length, *features), "mask": (N, length)}`, with zeros as padding.

    Raises:
        ValueError: If there is no array, their features differ, one is too long, or a masked array
            of NumPy's.

    >>> padded = pad([np.ones((2, 3)), np.ones((5, 3))])
    >>> padded["values"].shape, padded["mask"].sum(1)
    ((2, 8, 3), array([2, 5]))
    """
    refuse_masked_arrays("pad: arrays", list(arrays), PAD_BOTH)
    rows = [np.asarray(a) for a in arrays]
    if not rows or any(a.ndim < 1 or a.shape[1:] != rows[0].shape[1:] for a in rows):
        got = sorted({a.shape[1:] for a in rows if a.ndim}) or "none"
        raise ValueError(
            f"pad: expected arrays of shape (members, *features) with the same features, got {got}."
        )
    longest = max(len(a) for a in rows)
    length = bucket(longest) if length is None else length
    if longest > length:
        raise ValueError(
            f"pad: expected at most length={length} members, got {longest}. Give a larger length "
            "(a posterior reads only the one that it was trained with), or leave members out."
        )
    values = np.zeros((len(rows), length, *rows[0].shape[1:]), np.result_type(*rows))
    mask = np.zeros((len(rows), length), bool)
    for i, a in enumerate(rows):
        values[i, : len(a)], mask[i, : len(a)] = a, True
    return {"values": values, "mask": mask}
