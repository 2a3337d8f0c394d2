"""Results that are made once, and read where they are there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import jaxsbi


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return what is in a file of JSON or arrays, after making it if there is none.

    A path without a suffix is the folder of what `jaxsbi.fit` returned.
    """
    if not path.exists():
        made = make()
        if not path.suffix:
            jaxsbi.save(path, made)
        elif path.suffix == ".json":
            path.write_text(json.dumps(made, indent=1) + "\n")
        else:
            np.savez(path, **made)
    if not path.suffix:
        return jaxsbi.load(path)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path) as arrays:
        return dict(arrays)
