"""`Store`: draws on disk, made once each, by whichever program comes first."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulations,
    Simulator,
    Theta,
    check_key,
    positive,
)
from jaxsbi.draws import STATUSES, Block, Record, draw_key
from jaxsbi.external import results
from jaxsbi.external.results import Template
from jaxsbi.external.simulate import Run, blocks
from jaxsbi.priors import Prior
from jaxsbi.simulate import draw, simulator_shape
from jaxsbi.store import description
from jaxsbi.store.arrays import Arrays
from jaxsbi.store.chunks import Chunks, Writer, provenance, publish

POLL = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """An append-only store of draws: named θ, any pytree x, and what is known of each draw.

    Draw i follows from the key and i: its θ, from the proposal, and its seed. Draws are written in
    chunks; each is claimed by one writer, and is done when it is written whole. A program that is
    killed loses the chunks it was making, and no others; started again it makes the rest, so that
    no draw is made twice nor left out, and any number of programs may fill a store together.

    On disk it is a Zarr group in a folder, for `xarray.open_zarr(store.zarr, consolidated=False)`:
    arrays `theta.<name>`, `x` or `x.<path>`, `log_proposal`, `weight`, `status`, `attempts` and
    `seconds` along the dimension "draw"; key, prior, proposal and versions as attributes.

    Make one by `Store.create` or `Store.open`.

    Attributes:
        path: The folder.
        key: The key of all draws.
        prior: The prior.
        proposal: The law that θ is drawn from; its log-density is stored with every draw.
        chunk: The number of draws that are written at once.
    """

    path: Path
    key: Key
    prior: Prior
    proposal: Prior
    chunk: int

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        key: Key,
        prior: Prior,
        *,
        proposal: Prior | None = None,
        chunk: int = 256,
    ) -> Store:
        """Create a store, or open the one that is there if it has the same key, laws and chunks.

        So the same program makes the store, and goes on with it when it is started again.

        Args:
            path: The folder.
            key: A typed key.
            prior: The prior over named parameters.
            proposal: Another law of the same parameters to draw from.
            chunk: Draws that are written at once, and lost by a crash: a minute's work, say.

        Raises:
            ImportError: If Zarr is not installed.
            TypeError: If the key is not typed.
            FileExistsError: If there is something else.
            ValueError: If there is a store of another key, prior, proposal or chunk size, or the
                proposal has other parameters.
        """
        check_key(key)
        positive("chunk", chunk)
        law = prior if proposal is None else proposal
        if (law.names, law.shapes) != (prior.names, prior.shapes):
            raise ValueError(f"proposal: expected parameters {prior.shapes}, got {law.shapes}.")
        store = cls(Path(os.path.abspath(path)), key, prior, law, int(chunk))
        if not os.path.lexists(store.path) or (
            store.path.is_dir() and not any(store.path.iterdir())
        ):
            store._create()
        found = cls.open(path, prior=prior, proposal=proposal)
        found.check(key, prior)
        if description.of(found) != description.of(store):
            raise ValueError(
                f"{path}: expected the store described, got one of other proposal or chunks of "
                f"{found.chunk}. Choose another folder, or open it: jaxsbi.Store.open(path)."
            )
        return found

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        prior: Prior | None = None,
        proposal: Prior | None = None,
    ) -> Store:
        """Open a store. Reading needs no right to write.

        Args:
            path: The folder.
            prior: The prior, where it was made from a NumPyro model, which no file holds.
            proposal: The proposal, likewise.

        Raises:
            ImportError: If Zarr is not installed.
            FileNotFoundError: If there is no store.
            ValueError: If it was made by a newer version, or something is wrong with it.
        """
        folder = Path(os.path.abspath(path))
        return cls(folder, *description.read(folder, prior, proposal))

    def _create(self) -> None:
        new = self.path.with_name(f".{self.path.name}-{uuid.uuid4().hex}")
        (new / "chunks").mkdir(parents=True)
        try:
            arrays = Arrays(new, self.chunk)
            arrays.create(description.of(self) | {"provenance": provenance()})
            for name, (row, attributes) in description.columns(self.prior).items():
                arrays.add(name, row, attributes)
            try:
                new.rename(self.path)
            except OSError:  # another has created it meanwhile, or something else
                if not self.zarr.exists():
                    raise
        finally:
            shutil.rmtree(new, ignore_errors=True)

    @property
    def zarr(self) -> Path:
        """The Zarr group, for `xarray.open_zarr`."""
        return self._arrays.path

    @property
    def _arrays(self) -> Arrays:
        return Arrays(self.path, self.chunk)

    @property
    def _chunks(self) -> Chunks:
        return Chunks(self.path / "chunks")

    def __len__(self) -> int:
        """Return the number of draws that are done, up to the first that is not."""
        return self._arrays.length()

    def check(self, key: Key, prior: Prior) -> None:
        """Raise a ValueError unless the store is of this key and prior."""
        if description.of_key(key) != description.of_key(self.key):
            raise ValueError(f"key: expected that of the store, {self.key}, got {key}.")
        if description.of_prior(prior) != description.of_prior(self.prior):
            raise ValueError(
                f"prior: expected that of the store, {self.prior}, got {prior}, or one with other "
                "numbers. A store holds the draws of one key and prior: make another."
            )

    def fill(self, simulator: Simulator, n: int, *, progress: bool = True) -> None:
        """Simulate until there are `n` draws (rounded up to whole chunks), with others or alone.

        Args:
            simulator: `simulator(key, theta) -> x`, as for `jaxsbi.simulate`.
            n: The number of draws that the store shall have. Draws that it has are not made again.
            progress: Show a progress bar.

        Raises:
            TypeError: As `jaxsbi.simulate`, or x has another structure than in the store.
            ValueError: If `n` is no positive integer.
            PermissionError: If the folder can only be read.

        Warns:
            UserWarning: If files of the store were damaged; their draws are made again.
        """
        template = simulator_shape(self.prior, simulator)
        settled = self._settle(template)
        if not results.same(settled, template):
            raise TypeError(
                f"simulator: expected x as in the store, {results.describe(settled)}, got "
                f"{results.describe(template)}. Make another store."
            )
        run = functools.partial(_simulate_chunk, simulator, self.proposal, self.key)

        def make(numbers: Iterator[int], bar: tqdm) -> Iterator[tuple[int, Block]]:
            for number in numbers:
                began = time.perf_counter()
                index = np.arange(number * self.chunk, (number + 1) * self.chunk, dtype=np.uint32)
                theta, density, x, valid = jax.tree.map(np.asarray, run(index))
                seconds = (time.perf_counter() - began) / self.chunk
                yield (
                    number,
                    Block(theta, density, x, valid.astype(np.float32), _jax(valid, seconds)),
                )
                bar.update(self.chunk)

        self._fill(make, getattr(simulator, "__name__", repr(simulator)), n, progress)

    def fill_external(self, run: Run, name: str, n: int, progress: bool) -> None:
        """Fill by a function outside JAX: what `simulate_external(store=…)` calls."""

        def make(numbers: Iterator[int], bar: tqdm) -> Iterator[tuple[int, Block]]:
            last = -(-n // self.chunk) * self.chunk
            law, settle = self.proposal, self._settle
            yield from blocks(self.key, law, run, numbers, self.chunk, last, settle, bar)

        self._fill(make, name, n, progress)

    def _fill(
        self,
        make: Callable[[Iterator[int], tqdm], Iterator[tuple[int, Block]]],
        simulator: str,
        n: int,
        progress: bool,
    ) -> None:
        positive("n", n)
        last, chunks, arrays = -(-int(n) // self.chunk), self._chunks, self._arrays

        def length() -> int:
            return chunks.prefix() * self.chunk

        self._describe()
        description.discard_damaged(chunks, arrays, last)
        if len(self) >= last * self.chunk and length() >= last * self.chunk:
            return  # which needs no right to write
        with (
            Writer(chunks) as writer,
            tqdm(desc="simulate", unit="sim", total=last * self.chunk, disable=not progress) as bar,
        ):
            bar.update(len(chunks.done() & set(range(last))) * self.chunk)
            while missing := sorted(set(range(last)) - chunks.done()):
                claimed = filter(writer.claim, missing)
                if (first := next(claimed, None)) is None:
                    time.sleep(POLL)  # others are at work on the rest, or die and are replaced
                    continue
                for number, block in make(itertools.chain([first], claimed), bar):
                    if not writer.owns(number):
                        continue  # taken over while this program was stopped
                    files = arrays.write(number, description.values(block))
                    who = provenance() | {"simulator": simulator}
                    messages = {i: m for i, m in enumerate(block.record.message) if m}
                    content = who | {"files": files, "messages": messages}
                    publish(chunks.path(number, "done"), content)
                    writer.release(number)
                    arrays.extend(length)
        arrays.extend(length)

    def _settle(self, template: Template) -> Template:
        """Make x of this structure the store's, or return the structure that it has."""
        settled = description.template(self.path)
        if settled is None:
            publish(self.path / description.X, description.encode(template))
            settled = description.template(self.path)
        assert settled is not None
        self._describe()
        return settled

    def _describe(self) -> None:
        """Write the metadata of arrays without any: x is new, or a user deleted a damaged file."""
        columns = description.columns(self.prior)
        if (template := description.template(self.path)) is not None:
            for name, leaf in description.x_columns(template).items():
                columns[name] = (np.zeros(leaf.shape, leaf.dtype), {})
        for name, (row, attributes) in columns.items():
            self._arrays.add(name, row, attributes)

    def simulations(self, rows: slice = slice(None)) -> Simulations:
        """Return draws in memory, weight 0 where one failed.

        Args:
            rows: Which of the `len(store)` draws, a slice without a step.

        Raises:
            ValueError: If there are none, no draw is valid, or a file is damaged.
        """
        start, stop = self._range(rows)
        template = description.template(self.path)
        if template is None:
            raise ValueError(results.failure(self.record(rows)))
        read = functools.partial(self._arrays.read, start=start, stop=stop)
        theta = {name: jnp.asarray(read(description.theta(name))) for name in self.prior.names}
        leaves = [jnp.asarray(results.held(read(name))) for name in description.x_columns(template)]
        x = jax.tree.unflatten(jax.tree.structure(template), leaves)
        return Simulations(theta, x, jnp.asarray(read("weight")))

    def log_proposal(self, rows: slice = slice(None)) -> Array:
        """Return the log-density of each draw's θ under the law that it was drawn from."""
        return jnp.asarray(self._arrays.read("log_proposal", *self._range(rows)))

    def record(self, rows: slice = slice(None)) -> Record:
        """Return what became of each draw."""
        start, stop = self._range(rows)
        read = functools.partial(self._arrays.read, start=start, stop=stop)
        message = [""] * (stop - start)
        for number in range(start // self.chunk, -(-stop // self.chunk)):
            for i, text in self._chunks.read(number)["messages"].items():
                if start <= (index := number * self.chunk + int(i)) < stop:
                    message[index - start] = text
        status = np.array(STATUSES)[read("status")]
        return Record(status, read("attempts"), read("seconds"), tuple(message))

    @property
    def status(self) -> dict[str, int]:
        """The number of draws of each status that occurs."""
        n = len(self)
        found = np.bincount(self._arrays.read("status", 0, n)).tolist() if n else []
        return {name: number for name, number in zip(STATUSES, found, strict=False) if number}

    def _range(self, rows: slice) -> tuple[int, int]:
        start, stop, step = rows.indices(len(self))
        if step != 1 or stop <= start:
            raise ValueError(
                f"rows: expected a slice of some of the {len(self)} draws without a step, got "
                f"{rows}. Index what it returns."
            )
        for number in range(start // self.chunk, -(-stop // self.chunk)):
            path = self._chunks.path(number, "done")
            damage = (
                self._arrays.damaged(self._chunks.read(number)["files"])
                if path.exists()
                else f"{path}: expected this file, found none"
            )
            if damage:
                raise ValueError(f"{damage}. store.fill makes these draws again.")
        return start, stop


def _jax(valid: np.ndarray, seconds: float) -> Record:
    ones = np.ones(len(valid))
    return Record(
        np.where(valid, "ok", "invalid"),
        ones.astype(np.int32),
        (seconds * ones).astype(np.float32),
        tuple("" if v else "not finite" for v in valid),
    )


@functools.partial(jax.jit, static_argnums=0)
def _simulate_chunk(
    simulator: Simulator, law: Prior, key: Key, index: Array
) -> tuple[Theta, Array, Data, Array]:
    theta, x, valid = jax.vmap(lambda i: draw(simulator, law, draw_key(key, i)))(index)
    return theta, jax.vmap(law.log_prob)(theta), x, valid
