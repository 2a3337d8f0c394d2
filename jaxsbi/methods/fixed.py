"""A function of a user's as a part of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxsbi.base import configuration


@configuration
class Fixed:
    """A function that has nothing to train, as a pytree.

    Attributes:
        function: The function; traced once per function object.
    """

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Return the function's result."""
        return self.function(*args)


def fixed(function: Any) -> Any:
    """Return a function that is a pytree, and may be an argument of a compiled program.

    If it is one, itself: its arrays are then traced.
    """
    is_pytree = not jax.tree_util.all_leaves([function])
    return function if is_pytree else Fixed(function=function)
