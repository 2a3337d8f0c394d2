"""Warnings at the line of the user's program, and whether there are values to look at."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import jax

_PACKAGE = os.path.dirname(__file__) + os.sep


def warn(message: str) -> None:
    """Issue a `UserWarning` that points at the nearest line outside of this package."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def is_concrete(tree: Any) -> bool:
    """Whether no leaf of the pytree is a tracer (so values may be looked at)."""
    return not any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(tree))
