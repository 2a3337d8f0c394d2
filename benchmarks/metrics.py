"""The score of a record: the classifier two-sample test, by one or both of its programs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

SEED = 1
"""The published benchmark's seed, for folds and initial weights: both programs take the same."""


def score(draws: np.ndarray, reference: np.ndarray, metric: str, scored: int) -> dict[str, Any]:
    """Return the C2ST of draws `(n, d)` against a reference `(m, d)`, for a record.

    Args:
        draws: What a method drew.
        reference: Reference draws; both sets are scaled by their mean and deviation.
        metric: "jax", "standard" or "both"; with both, `c2st` is the standard one.
        scored: How many draws of each set are compared, evenly spread over the set.
    """
    from jaxsbi.diagnostics.c2st import c2st_standard, c2st_twin

    draws, reference = (
        rows[:: max(1, len(rows) // scored)][:scored] for rows in (draws, reference)
    )
    values: dict[str, float] = {}
    begin = time.perf_counter()
    if metric in ("jax", "both"):
        values["jax"] = c2st_twin(draws, reference, SEED)
    if metric in ("standard", "both"):
        values["standard"] = c2st_standard(draws, reference, SEED)
    used = "jax" if metric == "jax" else "standard"
    return {
        "c2st": values[used],
        "c2st_metric": used,
        "c2st_all": values,
        "c2st_draws": len(draws),
        "c2st_seconds": time.perf_counter() - begin,
    }
