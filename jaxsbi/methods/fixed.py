"""A function of a user's as a part of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxsbi.base import Data, configuration


@configuration
class Fixed:
    """A function that has nothing to train, as a pytree.

    Attributes:
        function: The function; traced once per function object.
    """

    function: Callable[[Any], Data]

    def __call__(self, value: Any) -> Data:
        """Return the function's result."""
        return self.function(value)


def fixed(function: Callable[[Any], Data]) -> Any:
    """Return a function that is a pytree: itself, if it is one."""
    is_pytree = not jax.tree_util.all_leaves([function])
    return function if is_pytree else Fixed(function=function)
