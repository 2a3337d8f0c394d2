"""The simulations of all rounds, and which of them a round is trained on."""

from __future__ import annotations

import jax
import numpy as np

from jaxsbi.base import Key, Simulations


def concatenate(parts: list[Simulations]) -> Simulations:
    """Return the rows of several simulations, on the host."""
    return jax.tree.map(lambda *a: np.concatenate([np.asarray(b) for b in a]), *parts)


def chosen(key: Key, pool: Simulations, keep: np.ndarray, capacity: int) -> Simulations:
    """Return the rows that are kept, shuffled: the last rows validate, and all rounds should.

    Args:
        key: A typed key.
        pool: All rounds' simulations.
        keep: Which of them to train on.
        capacity: How many there will be in the last round.
    """
    order = np.asarray(jax.random.permutation(key, capacity))
    order = order[order < len(pool)]
    index = order[keep[order]]
    return jax.tree.map(lambda a: np.asarray(a)[index], pool)
