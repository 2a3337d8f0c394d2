"""The figure of `measure_surrogates`."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np


def draw(errors: dict[str, np.ndarray], stages: list[dict], costs: list[dict]) -> Any:
    """Return a figure: mismatches, training in two stages, and cost."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
    bins = np.logspace(-8, -1, 43)
    for family, values in errors.items():
        left.hist(np.maximum(values, 1e-8), bins, histtype="step", lw=1.6, label=family)
    left.axvline(1e-3, color="0.5", lw=1, ls=":")
    left.set(xscale="log", xlabel="mismatch", ylabel="test waveforms")
    labels = {
        "alone": ("alone", "o--"),
        "initial": ("from IMRPhenomD on", "^:"),
        "approximation": ("error of IMRPhenomD", "s-"),
    }
    for what, (label, line) in labels.items():
        some = [row for row in stages if row["what"] == what]
        middle.plot([r["waveforms"] for r in some], [r["p50"] for r in some], line, label=label)
    middle.set(
        xscale="log", yscale="log", xlabel="IMRPhenomXAS waveforms", ylabel="median mismatch"
    )
    counts = sorted({row["waveforms"] for row in stages if row["what"] == "alone"})
    middle.set_xticks(counts, [str(n) for n in counts])
    middle.set_xticks([], minor=True)
    for name, line in (("ripplegw", "o--"), ("surrogate", "s-")):
        right.plot([r["batch"] for r in costs], [1e6 * r[name] for r in costs], line, label=name)
    right.set(xscale="log", yscale="log", xlabel="batch", ylabel="µs per waveform")
    right.set_ylim(5.0, 500.0)
    for axes in (left, middle, right):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
