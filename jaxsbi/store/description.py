"""What a store says of itself: its attributes, the names of its arrays, and the structure of x."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Key, warn
from jaxsbi.draws import STATUSES, Block
from jaxsbi.external.results import Template
from jaxsbi.priors import Prior
from jaxsbi.saving.decode import Decoder
from jaxsbi.saving.encode import Encoder
from jaxsbi.saving.registry import Supplied
from jaxsbi.store.arrays import GROUP, Arrays
from jaxsbi.store.chunks import Chunks

if TYPE_CHECKING:
    from jaxsbi.store.store import Store

FORMAT, VERSION = "jaxsbi store", (1, 0)
"""A newer minor version may be read by older ones; a newer major version may not."""
X = "x.json"
"""The file with the structure of x, which is known when there is the first result."""


def of(store: Store) -> dict[str, Any]:
    """Return what a store is: two stores of the same description hold the same draws."""
    same = of_prior(store.proposal) == of_prior(store.prior)
    return {
        "format": FORMAT,
        "version": list(VERSION),
        "key": of_key(store.key),
        "prior": of_prior(store.prior),
        "proposal": "prior" if same else of_prior(store.proposal),
        "description": str(store.prior),
        "chunk": store.chunk,
    }


def of_key(key: Key) -> Any:
    """Return a key as JSON."""
    return encode(key)


def of_prior(prior: Prior) -> Any:
    """Return a prior as JSON; one that was made from a model by its parameters only."""
    return encode(Supplied.of(prior) if prior.model is not None else prior)


def encode(value: Any) -> Any:
    """Return a value as JSON, arrays within it too."""
    encoder = Encoder(())
    content = encoder.encode(value, "store")
    arrays = {
        name: {"dtype": a.dtype.name, "shape": list(a.shape), "values": a.ravel().tolist()}
        for name, a in encoder.arrays.items()
    }
    # As it is read again, with lists for tuples.
    return json.loads(json.dumps({"value": content, "arrays": arrays}))


def decode(content: Any) -> Any:
    """Return the value that `encode` wrote.

    Raises:
        ValueError: If it is something else.
    """
    arrays = {
        name: np.array(a["values"], a["dtype"]).reshape(a["shape"])
        for name, a in content["arrays"].items()
    }
    decoder = Decoder((), arrays, newer=False)
    return decoder.decode(content["value"], "store")


def read(
    folder: Path, prior: Prior | None, proposal: Prior | None
) -> tuple[Key, Prior, Prior, int]:
    """Return key, prior, proposal and chunk size of the store in a folder.

    Raises:
        FileNotFoundError, FileExistsError: If there is none.
        ValueError: If it is damaged, is of a newer version, or needs a prior to be passed.
    """
    group = folder / GROUP
    if not (group / "zarr.json").is_file():
        if not folder.exists():
            raise FileNotFoundError(
                f"{folder}: expected a store, found nothing. Make one: jaxsbi.Store.create(...)."
            )
        raise FileExistsError(f"{folder}: expected a store, got something else.")
    try:
        found = Arrays(folder, 1).attributes()
        major, minor = found["version"]
    except ImportError:
        raise
    except Exception as error:  # whatever a file holds
        raise ValueError(f"{group}: expected a store's Zarr group, got: {error!r}.") from error
    if found.get("format") != FORMAT or major != VERSION[0]:
        newer = isinstance(major, int) and major > VERSION[0]
        raise ValueError(
            f"{group}: expected format {FORMAT!r} {VERSION[0]}, got {found.get('format')!r} "
            f"{major}.{minor}. "
            f"{'Upgrade jaxsbi' if newer else 'Read it with the version of jaxsbi that made it'}."
        )
    try:
        law = _prior(found["prior"], prior, "prior")
        same = found["proposal"] == "prior"
        other = law if same else _prior(found["proposal"], proposal, "proposal")
        return _typed(decode(found["key"])), law, other, int(found["chunk"])
    except Exception as error:
        raise ValueError(f"{group}: {error or type(error).__name__}") from error


def _typed(key: Any) -> Key:
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key: expected a key, got {type(key).__name__}")
    return key


def _prior(content: Any, given: Prior | None, name: str) -> Prior:
    saved = decode(content)
    if isinstance(saved, Supplied):
        return saved.accept(given, name, f"jaxsbi.Store.open(path, {name}=jaxsbi.Prior(model))")
    if not isinstance(saved, Prior):
        raise ValueError(f"{name}: expected a prior, got {type(saved).__name__}")
    return jax.tree.map(jnp.asarray, saved)


def theta(name: str) -> str:
    """Return the name of a parameter's array."""
    return "theta." + name.replace("/", "|")  # a slash would be a group's


def columns(prior: Prior) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Return the arrays of every store: what one draw looks like, and attributes."""
    law = jax.eval_shape(prior.sample, jax.random.key(0))
    flags = {"flag_values": list(range(len(STATUSES))), "flag_meanings": " ".join(STATUSES)}
    number = np.zeros((), np.float32)
    density = jax.eval_shape(prior.log_prob, law)
    return {
        **{theta(name): (np.zeros(law[name].shape, law[name].dtype), {}) for name in prior.names},
        "log_proposal": (np.zeros((), density.dtype), {}),
        "weight": (number, {}),
        "status": (np.zeros((), np.int8), flags),
        "attempts": (np.zeros((), np.int32), {}),
        "seconds": (number, {"units": "s"}),
    }


def x_columns(template: Template) -> dict[str, Any]:
    """Return the arrays of x, in the order of its leaves: name to shape and dtype."""
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(template)[0]:
        simple = jax.tree_util.keystr(path, simple=True, separator=".")
        name = "x." + simple.replace("/", "|") if path else "x"
        while name in found:  # {"a.b": …} beside {"a": {"b": …}}
            name += "'"
        found[name] = leaf
    return found


def values(block: Block) -> dict[str, np.ndarray]:
    """Return the arrays of a chunk by name."""
    record = block.record
    found = {theta(name): a for name, a in block.theta.items()}
    if block.x is not None:
        # Of an x that is missing altogether there are no files, which reads as missing.
        names = x_columns(block.x)
        found |= dict(zip(names, jax.tree.leaves(block.x), strict=True))
    status = np.array([STATUSES.index(s) for s in record.status.tolist()], np.int8)
    return found | {
        "log_proposal": block.log_proposal,
        "weight": block.weight,
        "status": status,
        "attempts": record.attempts,
        "seconds": record.seconds,
    }


def template(folder: Path) -> Template | None:
    """Return the structure of one x, `None` if there is no result yet."""
    try:
        return decode(json.loads((folder / X).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever the file holds
        raise ValueError(f"{folder / X}: expected the structure of x, got: {error!r}.") from error


def discard_damaged(chunks: Chunks, arrays: Arrays, last: int) -> None:
    """Let chunks whose files are missing or cut short be made again, and say so."""
    for number in sorted(n for n in chunks.done() if n < last):
        try:
            damage = arrays.damaged(chunks.read(number)["files"])
        except FileNotFoundError:  # another program has discarded it
            continue
        if damage:
            chunks.discard(number)
            warn(f"{damage}. The draws of this chunk are made again.")
