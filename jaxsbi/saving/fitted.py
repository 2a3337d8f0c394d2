"""`save` and `load`: what `fit` returns, on disk and back."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import DataSpec, Fitted, History, Method, Posterior, warn
from jaxsbi.boxed import Boxed
from jaxsbi.disk import versions
from jaxsbi.priors import Prior
from jaxsbi.reach import Reach
from jaxsbi.recentred import Recentred
from jaxsbi.saving import folder as files
from jaxsbi.saving.decode import Decoder
from jaxsbi.saving.encode import Encoder
from jaxsbi.saving.registry import Supplied

PARTS = ("method", "prior", "data", "variables", "history")
ADDED = ("reach",)
"""Parts that files of older versions do not have."""
ARRAYS = ("variables", "reach")
"""Parts whose numbers are in the file of arrays."""
FRAME = ("format", "version", "sha256", "versions", "arrays")


def save(path: str | os.PathLike[str], fitted: Fitted, *, types: Iterable[type] = ()) -> None:
    """Save what `fit` returned into a folder: readable JSON, and a safetensors file of arrays.

    The folder appears whole or not at all; a run saved there before is replaced in one step.
    Another posterior is saved with the history of its training: `Fitted(posterior, history)`.

    Args:
        path: The folder.
        fitted: What `fit` returned.
        types: Classes of your own that the method, its networks or the data are made of
            (configurations, Flax modules, dataclasses, NamedTuples; `flax.nnx.bridge.ToLinen` and
            the NNX modules in it).

    Raises:
        TypeError: If `fitted` is something else, or holds what a file cannot: a Python function,
            or a class that is not in `types`. (A prior made from a NumPyro model is left out, and
            passed to `load` again.)
        FileExistsError: If `path` is there and is not a saved run.
    """
    if not isinstance(fitted, Fitted):
        raise TypeError(
            f"save: expected what jaxsbi.fit returned, got {type(fitted).__name__}. For a "
            "posterior, pass jaxsbi.Fitted(posterior, history)."
        )
    posterior, encoder = fitted.posterior, Encoder(types)
    values = {
        "method": posterior.method,
        "prior": _without_model(posterior.prior),
        "data": _structs(posterior.data),
        "variables": posterior.variables,
        "history": fitted.history,
        "reach": posterior.reach,
    }
    content: dict[str, Any] = {"versions": versions()}
    for name in (*PARTS, *ADDED):
        encoder.inline = name not in ARRAYS
        content[name] = encoder.encode(values[name], name)
    files.write(Path(os.path.abspath(path)), content, encoder.arrays)


def load(
    path: str | os.PathLike[str], *, prior: Prior | None = None, types: Iterable[type] = ()
) -> Fitted:
    """Load what `save` saved, on the device that JAX uses by default.

    The same key gives the same draws as before saving, bit for bit on the same machine. Nothing in
    the file is run: it is rebuilt from the types that jaxsbi knows, and yours.

    Args:
        path: The folder.
        prior: The prior, where it was made from a NumPyro model, which no file holds.
        types: The classes of your own that `save` was given.

    Raises:
        FileNotFoundError: If there is no saved run.
        ValueError: If it was damaged or changed, was saved by a newer version in a format that
            this one cannot read, has a type that is not known, or another prior than `prior`.
        TypeError: If `prior` is no prior, or `types` are not classes.

    Warns:
        UserWarning: If a newer version saved fields that this one does not know.
    """
    if prior is not None and not isinstance(prior, Prior):
        raise TypeError(f"load: prior: expected a jaxsbi.Prior, got {type(prior).__name__}.")
    folder = Path(path)
    document = files.read_json(folder)
    arrays = files.read_arrays(folder, document.get("arrays"))
    decoder = Decoder(types, arrays, newer=document["version"][1] > files.VERSION[1])
    try:
        fitted = _rebuild(document, decoder, prior)
    except Exception as error:  # whatever a file holds, it is the file that is wrong
        saved = document.get("versions")
        raise ValueError(
            f"{folder / files.JSON}: {error or type(error).__name__}. (It was saved with {saved}; "
            f"this is {versions()}.)"
        ) from error
    if decoder.ignored:
        warn(
            f"{folder / files.JSON} was saved by a newer version of jaxsbi; ignored what this one "
            f"does not know: {', '.join(decoder.ignored)}. Upgrade jaxsbi to be sure."
        )
    return fitted


def _rebuild(document: dict[str, Any], decoder: Decoder, prior: Prior | None) -> Fitted:
    found = decoder.known(document, (*FRAME, *PARTS, *ADDED), "the file")
    if missing := [name for name in PARTS if name not in found]:
        raise ValueError(f"expected the parts {list(PARTS)}, got none named {missing}")
    method, saved, data, variables, history = (decoder.decode(found[n], n) for n in PARTS)
    reach = decoder.decode(found["reach"], "reach") if "reach" in found else None
    for name, value, cls in (
        ("method", method, Method),
        ("variables", variables, dict),
        ("history", history, History),
        *([("reach", reach, Reach)] if reach is not None else []),
    ):
        if not isinstance(value, cls):
            raise ValueError(f"{name}: expected a {cls.__name__}, got {type(value).__name__}")
    decoder.finish()
    posterior = Posterior(variables, _with_model(saved, prior), method, _spec(data), reach)
    return Fitted(jax.tree.map(_on_device, posterior), history)


def _without_model(prior: Any) -> Any:
    """Put a description in the place of a prior that was made from a function."""
    if isinstance(prior, Recentred | Boxed):
        return dataclasses.replace(prior, prior=_without_model(prior.prior))
    return Supplied.of(prior) if isinstance(prior, Prior) and prior.model is not None else prior


def _with_model(saved: Any, prior: Prior | None) -> Any:
    """Put the user's prior in the place of its description."""
    if isinstance(saved, Recentred | Boxed):
        return dataclasses.replace(saved, prior=_with_model(saved.prior, prior))
    if isinstance(saved, Prior):
        if prior is not None:
            raise ValueError("prior: expected none, for the file holds it. Leave it out")
        return saved
    if not isinstance(saved, Supplied):
        raise ValueError(f"prior: expected a Prior, got {type(saved).__name__}")
    return saved.accept(prior, "prior", "jaxsbi.load(path, prior=jaxsbi.Prior(model))")


def _structs(data: DataSpec) -> Any:
    """Describe one data set as itself, with a shape and a dtype in the place of each array."""
    structs = [jax.ShapeDtypeStruct(shape, np.dtype(dtype)) for _, shape, dtype in data.leaves]
    return jax.tree.unflatten(data.treedef, structs)


def _spec(data: Any) -> DataSpec:
    paths, treedef = jax.tree_util.tree_flatten_with_path(data)
    if wrong := [a for _, a in paths if not isinstance(a, jax.ShapeDtypeStruct)]:
        raise ValueError(f"data: expected shapes and dtypes, got {wrong[0]!r}")
    leaves = tuple((jax.tree_util.keystr(p), tuple(a.shape), str(a.dtype)) for p, a in paths)
    return DataSpec(treedef, leaves)


def _on_device(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray):
        return leaf
    if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        raise ValueError(
            f"arrays: expected to keep {leaf.dtype}, which JAX does not while it works in single "
            "precision. Set jax.config.update('jax_enable_x64', True) before loading"
        )
    return jnp.array(leaf)
