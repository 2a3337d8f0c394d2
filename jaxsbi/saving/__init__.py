"""Saving and loading what `fit` returns: a folder of readable JSON and one file of arrays.

- `posterior.json`: the format's version, the versions of the packages, the configuration, the
  prior, the structure of the data, the history; small arrays stand in it, large ones by name.
- `arrays-….safetensors`: the large arrays.

`encode` writes values as JSON and `decode` rebuilds them, both from the types of `registry` only;
`folder` reads and writes the files. Loading never runs code that comes from a file.
"""

from jaxsbi.saving.fitted import load, save

__all__ = ["load", "save"]
