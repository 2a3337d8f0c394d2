"""Many draws at once, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

DRAWS_AT_ONCE = 65_536


def over_draws(function: Callable[[Any], Any], draws: Any) -> Any:
    """Apply a function to each draw of the leading axis, to so many at once that memory is bounded.

    What a network makes of one draw on its way is thousands of numbers.
    """
    if jax.tree.leaves(draws)[0].shape[0] <= DRAWS_AT_ONCE:
        return jax.vmap(function)(draws)
    return jax.lax.map(function, draws, batch_size=DRAWS_AT_ONCE)
