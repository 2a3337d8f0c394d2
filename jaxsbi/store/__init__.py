"""An append-only store of draws on disk, which several programs may fill at once.

- `store`: `Store`, what a user holds.
- `chunks`: which chunks are done, and who is at work on which: small files, made in one step.
- `arrays`: the arrays of the draws, a Zarr group that xarray opens.
"""

from jaxsbi.store.store import Store

__all__ = ["Store"]
