"""What one data set looks like, and whether an observation is one."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.missing import observed, refuse_masked_arrays
from jaxsbi.notice import is_concrete


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The structure, shapes and dtypes of one data set: what a posterior accepts as `x`."""

    treedef: Any
    leaves: tuple[tuple[str, tuple[int, ...], str], ...]

    @classmethod
    def of(cls, x: Any, *, batched: bool = False) -> DataSpec:
        """Describe `x`; with `batched`, the leading axis of every leaf is left out."""
        paths, treedef = jax.tree_util.tree_flatten_with_path(x)
        return cls(
            treedef,
            tuple(
                (
                    jax.tree_util.keystr(path),
                    tuple(jnp.shape(a)[1:] if batched else jnp.shape(a)),
                    str(jnp.result_type(a)),
                )
                for path, a in paths
            ),
        )

    def of_as_many(self, x: Any) -> DataSpec:
        """Return the structure of as many members, by every leading axis, as `x` has."""
        lengths = {jnp.shape(a)[:1] for a in jax.tree.leaves(x)}
        if len(lengths) != 1 or lengths <= {(), (0,)}:
            return self
        n = lengths.pop()
        return DataSpec(
            self.treedef, tuple((path, n + shape[1:], dtype) for path, shape, dtype in self.leaves)
        )

    def __str__(self) -> str:
        """Return a one-line description, for error messages."""
        if len(self.leaves) == 1 and not self.leaves[0][0]:
            return f"{self.leaves[0][2]}{list(self.leaves[0][1])}"
        return "{" + ", ".join(f"{p}: {d}{list(s)}" for p, s, d in self.leaves) + "}"

    def conform(self, x: Any) -> Any:
        """Return `x` as arrays of the expected dtypes, 0 where masked, or raise a clear error.

        Raises:
            TypeError: If the structure or the kind of dtype (float, int, bool) differs.
            ValueError: If a shape differs, or a concrete array holds NaN or infinity.
        """
        refuse_masked_arrays("observation", x)
        try:
            came = DataSpec.of(x)
        except TypeError as error:
            raise TypeError(
                f"observation: expected arrays {self}, got {type(x).__name__}. {error}"
            ) from None
        if came.treedef != self.treedef:
            raise TypeError(
                f"observation: expected the structure the simulator returned, {self}, got {came}. "
                "Pass one data set with the same nesting and names."
            )
        for (path, shape, dtype), (_, got_shape, got_dtype), a in zip(
            self.leaves, came.leaves, jax.tree.leaves(x), strict=True
        ):
            where = f"observation{path}"
            if got_shape != shape:
                hint = (
                    "It looks like a batch of observations: use jax.vmap over it."
                    if got_shape[1:] == shape
                    else "Pass one data set as the simulator returns it."
                )
                raise ValueError(f"{where}: expected shape {shape}, got {got_shape}. {hint}")
            if _kind(dtype) != _kind(got_dtype):
                raise TypeError(
                    f"{where}: expected dtype {dtype}, got {got_dtype}. "
                    f"Convert it explicitly with x.astype({dtype!r})."
                )
            check_range(where, a, dtype, "Simulate with a wider dtype.")
        pairs = zip(jax.tree.leaves(x), self.leaves, strict=True)
        arrays = [jnp.asarray(a, dtype) for a, (_, _, dtype) in pairs]
        x = observed(jax.tree.unflatten(self.treedef, arrays))
        for (path, _, _), a in zip(self.leaves, jax.tree.leaves(x), strict=True):
            bad = int(np.sum(~np.isfinite(a))) if is_concrete(a) else 0
            if bad:
                raise ValueError(
                    f"observation{path}: expected finite numbers, got {bad} NaN or infinite "
                    "entries. Mask or impute them, and simulate with the same mask."
                )
        return x


def _kind(dtype: str) -> str:
    """Return "float", "int", "bool" or "complex" (so float64 numpy data pass as float32)."""
    for kind in ("bool", "float", "complex", "int", "uint"):
        if dtype.startswith(kind) or dtype == "bfloat16":
            return "float" if dtype == "bfloat16" else kind.removeprefix("u")
    return dtype


def check_range(where: str, a: Any, dtype: str, advice: str) -> None:
    """Raise a ValueError for integers that a dtype does not hold: they would wrap."""
    if _kind(dtype) != "int" or not is_concrete(a) or not np.size(a):
        return
    a = np.asarray(a)  # under jit, the methods of a JAX array are traced
    low, high = int(a.min()), int(a.max())
    bounds = np.iinfo(dtype)
    if low < bounds.min or high > bounds.max:
        raise ValueError(
            f"{where}: expected integers from {bounds.min} to {bounds.max}, as {dtype} holds, got "
            f"{low if low < bounds.min else high}. {advice}"
        )
