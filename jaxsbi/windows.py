"""Training on draws that stay on disk: a window of them at a time, read while the last is used."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from jaxsbi import devices
from jaxsbi.base import Key, Method, Simulations
from jaxsbi.priors import Prior
from jaxsbi.splitting import check_fraction, check_theta, ready, taken

WINDOW_ROWS, WINDOW_BYTES = 131_072, 128 * 2**20
"""A window has as many rows as either allows: enough for an epoch that is worth a validation, and
at most this much memory, of which there are `AHEAD` + 2 at once."""
AHEAD = 2
"""Windows that are read before they are needed."""
UNIT_ROWS = 8_192
"""Rows that are read together, if chunks are smaller than that."""
MAX_VALIDATION = 16_384
"""Draws held out at most: they stay in memory."""


class Stored(Protocol):
    """Draws on disk, such as a `jaxsbi.Store`."""

    @property
    def proposal(self) -> Prior:
        """The law that the parameters were drawn from."""
        ...

    @property
    def chunk(self) -> int:
        """The number of draws that lie together."""
        ...

    @property
    def status(self) -> dict[str, int]:
        """The number of draws of each status; those that are valid are "ok"."""
        ...

    def __len__(self) -> int:
        """Return the number of draws."""
        ...

    def simulations(self, rows: slice) -> Simulations:
        """Return some draws in memory."""
        ...


class HeldOut(NamedTuple):
    """The valid ones of the last `drawn` draws, of so many bytes each."""

    rows: Simulations
    drawn: int
    row_bytes: int


def held_out(store: Stored, fraction: float, prior: Prior) -> HeldOut:
    """Return the draws that validate: the last ones, in memory.

    Raises:
        ValueError: If the fraction is out of its range, the draws have other parameters, or too
            few are valid.
    """
    n = len(store)
    check_fraction(fraction)
    drawn = min(max(2, round(n * fraction)), MAX_VALIDATION, n)
    every = store.simulations(slice(n - drawn, n))
    check_theta(every, prior)
    size = sum(a.nbytes for a in jax.tree.leaves(every)) // drawn
    return HeldOut(valid(every), drawn, size)


def valid(rows: Simulations) -> Simulations:
    """Return the rows of positive weight.

    Raises:
        ValueError: If there are not even two.
    """
    index = np.flatnonzero(np.asarray(rows.weight) > 0)
    if index.size < 2:
        raise ValueError(
            f"simulations: expected at least 2 finite ones of {len(rows)} in the store, got "
            f"{index.size}. Look at store.record()."
        )
    return rows if index.size == len(rows) else taken(rows, index)


class Windows:
    """The training part of a store, as a sequence of windows without an end.

    A pass goes through whole chunks in an order that follows from the key and the number of the
    pass; so window i is the same in every process, whenever it starts. The few chunks that make no
    whole window are others in every pass. In a context, windows are read ahead by a thread.

    Attributes:
        unit: Draws that are read together.
        units: How many of them there are.
        in_a_pass: Windows in a pass.
        together: Units in a window.
    """

    def __init__(
        self, store: Stored, method: Method, prior: Prior, key: Key, cut: int, row_bytes: int
    ) -> None:
        """Divide the first `cut` draws, of this size, into windows.

        Raises:
            ValueError: If there is not one whole chunk.
        """
        whole = cut // store.chunk
        if not whole:
            raise ValueError(
                f"simulations: expected a store of at least one chunk ({store.chunk} draws) to "
                f"train on, got {cut}. Load it: fit(…, store.simulations())."
            )
        self._store, self._method, self._prior = store, method, prior
        self._seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        chunks = min(whole, max(1, UNIT_ROWS // store.chunk))
        self.unit, self.units = chunks * store.chunk, whole // chunks
        most = max(1, min(WINDOW_ROWS, WINDOW_BYTES // row_bytes) // self.unit)
        # Large windows that leave some draws to another pass, or smaller ones: what sees more.
        counts = (-(-self.units // most), max(1, self.units // most))
        self.in_a_pass = max(counts, key=lambda k: k * min(most, self.units // k))
        self.together = min(most, self.units // self.in_a_pass)
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: deque[tuple[int, Future[Simulations]]] = deque()

    @property
    def rows(self) -> int:
        """The number of rows of a window."""
        return self.unit * self.together

    @property
    def about(self) -> tuple[int, ...]:
        """What the windows depend on, besides the draws."""
        return (len(self._store), self.unit, self.units, self.together, *self._seed)

    def __enter__(self) -> Windows:
        """Start the thread."""
        self._pool = ThreadPoolExecutor(1, "windows")
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread, after the window that it is reading."""
        assert self._pool is not None
        self._pool.shutdown(cancel_futures=True)
        self._pool = None
        self._ahead.clear()

    def at(self, number: int, stop: int, mesh: Mesh | None) -> Simulations:
        """Return a window, as `loss` sees it, and have those before `stop` that follow read."""
        assert self._pool is not None
        while self._ahead and self._ahead[0][0] != number:
            self._ahead.popleft()[1].cancel()
        begin = number + len(self._ahead)
        for ahead in range(begin, max(number + 1, min(number + 1 + AHEAD, stop))):
            self._ahead.append((ahead, self._pool.submit(self.read, ahead)))
        return devices.placed(mesh, self._ahead.popleft()[1].result())

    def read(self, number: int) -> Simulations:
        """Return a window, as `loss` sees it."""
        return self.seen(self.drawn(number))

    def seen(self, rows: Simulations) -> Simulations:
        """Return draws as `loss` sees them."""
        return _ready(self._method, self._prior, rows)

    def drawn(self, number: int) -> Simulations:
        """Return a window, as it lies in the store."""
        turn, place = divmod(number, self.in_a_pass)
        order = np.random.default_rng([*self._seed, turn]).permutation(self.units)
        parts = [
            self._store.simulations(slice(i * self.unit, (i + 1) * self.unit))
            for i in order[place * self.together : (place + 1) * self.together].tolist()
        ]
        return jax.tree.map(lambda *a: np.concatenate(a), *parts)


_ready = jax.jit(ready)
