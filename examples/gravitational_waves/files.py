"""Results that are made once, and read where they are there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return what is in a file of JSON or arrays, after making it if there is none."""
    if not path.is_file():
        made = make()
        if path.suffix == ".json":
            path.write_text(json.dumps(made, indent=1) + "\n")
        else:
            np.savez(path, **made)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path) as arrays:
        return dict(arrays)
