"""Many draws at once, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

DRAWS_AT_ONCE = 65_536
"""More are not faster."""
FEW = 16_384
"""So many are never split."""
BYTES_AT_ONCE = 2**29
ALIVE = 4
"""Arrays as large as the largest that are needed at a time, by measurement: flows of 10, 100 and
1,000 dimensions take 3.2 to 4 times their largest array."""
PROBE = 9_973
"""A number of draws that is no other size: what has it in its shape is there for each draw."""


def over_draws(function: Callable[[Any], Any], draws: Any) -> Any:
    """Apply a function to each draw of the leading axis, to so many at once that memory is bounded.

    What a network makes of one draw on its way is thousands of numbers, or millions.
    """
    n = jax.tree.leaves(draws)[0].shape[0]
    at_once = n if n <= FEW else draws_at_once(function, draws)
    if n <= at_once:
        return jax.vmap(function)(draws)
    return jax.lax.map(function, draws, batch_size=at_once)


def draws_at_once(function: Callable[[Any], Any], draws: Any) -> int:
    """Return how many draws `BYTES_AT_ONCE` allows, by the largest array of the program."""
    probe = jax.tree.map(lambda a: jax.ShapeDtypeStruct((PROBE, *a.shape[1:]), a.dtype), draws)
    arrays = _arrays(jax.make_jaxpr(jax.vmap(function))(probe).jaxpr)
    largest = max((a.size * a.dtype.itemsize for a in arrays if PROBE in a.shape), default=1)
    return max(1, min(DRAWS_AT_ONCE, BYTES_AT_ONCE * PROBE // (ALIVE * largest)))


def _arrays(jaxpr: Any) -> Iterator[Any]:
    """Yield the type of each array that a program makes, in its loops and branches too."""
    for equation in jaxpr.eqns:
        yield from (v.aval for v in equation.outvars if hasattr(v.aval, "shape"))
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _arrays(inner)
