"""Draws by number: draw i of a key is the same whoever makes it, whenever, and in whatever order.

A simulator outside JAX may fail, and a store may be filled by several programs that are killed and
started again: what is known of a draw beforehand follows from (key, i), the rest is recorded.
"""

from __future__ import annotations

import collections
import dataclasses

import jax
import numpy as np

from jaxsbi.base import Array, Data, Key, Theta
from jaxsbi.priors import Prior

STATUSES = ("ok", "timeout", "crashed", "error", "invalid")
_SEED_BITS = 0x7FFF_FFFF


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of each draw.

    Attributes:
        status: Shape `(n,)`: "ok"; "timeout"; "crashed" (the process ended); "error" (an
            exception, or a program that says it failed); "invalid" (not finite, or of another
            structure, shape or dtype than most results of the first block).
        attempts: How often it was tried, each time with the same seed.
        seconds: Wall-clock seconds of all attempts together.
        message: What went wrong, "" for "ok".
    """

    status: np.ndarray
    attempts: np.ndarray
    seconds: np.ndarray
    message: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.status)

    @property
    def counts(self) -> dict[str, int]:
        """The number of draws of each status that occurs."""
        return count(self.status)


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive draws: NumPy arrays with a leading axis; `x` is `None` if no draw is valid."""

    theta: dict[str, np.ndarray]
    log_proposal: np.ndarray
    x: Data | None
    weight: np.ndarray
    record: Record


def count(status: np.ndarray) -> dict[str, int]:
    """Return the number of draws of each status that occurs, "ok" first."""
    found = collections.Counter(status.tolist())
    return {name: found[name] for name in STATUSES if found[name]}


def draw_key(key: Key, index: Array) -> Key:
    """Return the key of one draw; `simulate.draw` makes θ and x from it."""
    return jax.random.fold_in(key, index)


@jax.jit
def parameters(law: Prior, key: Key, index: Array) -> tuple[Theta, Array]:
    """Return θ of the draws with these numbers, and its log-density under the law they are from."""

    def one(i: Array) -> tuple[Theta, Array]:
        key_theta, _ = jax.random.split(draw_key(key, i))  # as `simulate.draw` splits it
        theta = law.sample(key_theta)
        return theta, law.log_prob(theta)

    return jax.vmap(one)(index)


def seeds(key: Key, index: np.ndarray) -> np.ndarray:
    """Return the seeds of draws for simulators outside JAX: no two of one key are equal.

    They are below 2³¹, which a signed integer holds in any language. The number of the draw is
    scrambled one to one, since generators that are seeded by 1, 2, 3 … are often correlated.
    """
    # The last number is no draw's.
    base = int(jax.random.bits(jax.random.fold_in(key, np.uint32(0xFFFF_FFFF))))
    s = (index.astype(np.uint64) + np.uint64(base)) & np.uint64(_SEED_BITS)
    # A shift to the right and a product with an odd number are both invertible on 31 bits.
    for shift, factor in ((16, 0x7FEB352D), (15, 0x046CA68B), (16, 1)):
        s ^= s >> np.uint64(shift)
        s = (s * np.uint64(factor)) & np.uint64(_SEED_BITS)
    return s.astype(np.int64)
