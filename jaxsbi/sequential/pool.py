"""The simulations of all rounds, and which of them a round is trained on."""

from __future__ import annotations

import jax
import numpy as np

from jaxsbi.base import Key, Simulations

MIN_KEPT = 20
"""Simulations below which a round is not trained on a part of them."""


def concatenate(parts: list[Simulations]) -> Simulations:
    """Return the rows of several simulations, on the host."""
    return jax.tree.map(lambda *a: np.concatenate([np.asarray(b) for b in a]), *parts)


def chosen(key: Key, pool: Simulations, keep: np.ndarray, capacity: int) -> Simulations:
    """Return the rows that are kept, shuffled: the last rows validate, and all rounds should.

    Args:
        key: A typed key.
        pool: All rounds' simulations.
        keep: Which of them the proposal keeps; all that did not fail, if these are too few.
        capacity: How many there will be in the last round.
    """
    valid = np.asarray(pool.weight) > 0
    keep = keep & valid if np.sum(keep & valid) >= MIN_KEPT else valid
    order = np.asarray(jax.random.permutation(key, capacity))
    order = order[order < len(pool)]
    index = order[keep[order]]
    return jax.tree.map(lambda a: np.asarray(a)[index], pool)
