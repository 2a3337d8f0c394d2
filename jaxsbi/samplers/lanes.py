"""Loops that end after different numbers of turns, for many arguments side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from jaxsbi.base import Array

LANES = 8
"""So many at a time: with fewer, turns are too small; with more, the last ones leave more idle."""

_Arrays = list[Any]
_Constants = list[_Arrays]  # what each of the three functions closes over
_Filled = tuple[_Arrays, Array, Array]  # states in the lanes, whose they are, who is next
_Leg = tuple[_Arrays, Array, Array, _Arrays]  # and with what loops have ended


class _Loop(NamedTuple):
    """The functions of a loop, with what they close over as an argument; states are lists."""

    start: Callable[[_Constants], _Arrays]
    unfinished: Callable[[_Constants, _Arrays], Array]
    turn: Callable[[_Constants, _Arrays], _Arrays]


def run(
    start: Callable[[], Any], unfinished: Callable[[Any], Array], turn: Callable[[Any], Any]
) -> Any:
    """Return the last state of a loop, like `jax.lax.while_loop(unfinished, turn, start())`.

    Under `jax.vmap`, that loop would turn all states until the last one has ended: of a hundred
    observations, up to twice as often as they need in the mean. Here some lanes turn side by side,
    and one that has ended begins with the next observation. On accelerators, which small turns
    leave idle, and over several devices, which share the observations, it is that loop.

    Args:
        start: Makes the first state, a pytree of arrays (no keys).
        unfinished: Whether a state needs another turn.
        turn: Makes the next state. All three may close over what is mapped.
    """
    began, shape = jax.make_jaxpr(start, return_shape=True)()
    more, turned = jax.make_jaxpr(unfinished)(shape), jax.make_jaxpr(turn)(shape)
    constants = [list(traced.consts) for traced in (began, more, turned)]
    loop = _Loop(
        lambda c: _call(began, c[0]),
        lambda c, state: _call(more, c[1], *state)[0],
        lambda c, state: _call(turned, c[2], *state),
    )

    def alone(constants: _Constants) -> _Arrays:
        end: _Arrays = jax.lax.while_loop(
            lambda state: loop.unfinished(constants, state),
            lambda state: loop.turn(constants, state),
            loop.start(constants),
        )
        return end

    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        alone = jax.custom_batching.custom_vmap(alone)

        @alone.def_vmap
        def _(size: int, mapped: list[Any], constants: _Constants) -> tuple[_Arrays, list[bool]]:
            empty = [jnp.zeros(a.shape, a.dtype) for a in began.out_avals]
            return _in_lanes(loop, empty, size, mapped[0], constants), [True] * len(empty)

    return jax.tree.unflatten(jax.tree.structure(shape), alone(constants))


def _call(traced: Any, constants: _Arrays, *arguments: Any) -> _Arrays:
    """Call a traced function with other values of what it closed over."""
    return list(jaxpr_as_fun(traced.replace(consts=constants))(*arguments))


def _in_lanes(
    loop: _Loop, empty: _Arrays, size: int, mapped: Any, constants: _Constants
) -> _Arrays:
    """Return the last states of `size` loops, given which of the constants differ."""
    lanes = min(size, LANES)
    axes = jax.tree.map(lambda m: 0 if m else None, mapped)
    turn = jax.vmap(loop.turn, (axes, 0))
    unfinished = jax.vmap(loop.unfinished, (axes, 0))

    def of(number: Array) -> _Constants:
        """Return what belongs to one of the loops, or to several."""

        def pick(differ: bool, a: Any) -> Any:
            if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                return a[number] if differ else a
            # As numbers: of keys that a loop picks one from, JAX's checker takes all for used.
            key = jax.random.key_data(a)
            key = key[number] if differ else key
            return jax.random.wrap_key_data(key, impl=jax.random.key_impl(a))

        found: _Constants = jax.tree.map(pick, mapped, constants)
        return found

    def stacked(n: int) -> _Arrays:
        return [jnp.broadcast_to(a, (n, *a.shape)) for a in empty]

    def fill(carry: _Filled) -> _Filled:
        """Begin the next loop in the first idle lane."""
        states, number, following = carry
        lane = jnp.argmax(number == size)
        begun = loop.start(of(following))
        states = [a.at[lane].set(b) for a, b in zip(states, begun, strict=True)]
        return states, number.at[lane].set(following), following + 1

    def leg(carry: _Leg) -> _Leg:
        """Fill idle lanes, turn until a loop has ended, and keep what it ended with."""
        states, number, following = jax.lax.while_loop(
            lambda c: jnp.any(c[1] == size) & (c[2] < size), fill, carry[:3]
        )
        idle = number == size
        these = of(jnp.minimum(number, size - 1))
        states = jax.lax.while_loop(
            lambda s: jnp.all(unfinished(these, s) | idle), lambda s: turn(these, s), states
        )
        ended = jnp.where(idle | unfinished(these, states), size, number)  # in these rows
        ends = [a.at[ended].set(b, mode="drop") for a, b in zip(carry[3], states, strict=True)]
        return states, jnp.where(ended < size, size, number), following, ends

    none_yet = (stacked(lanes), jnp.full(lanes, size), jnp.array(0), stacked(size))
    *_, ends = jax.lax.while_loop(lambda c: jnp.any(c[1] < size) | (c[2] < size), leg, none_yet)
    return ends
