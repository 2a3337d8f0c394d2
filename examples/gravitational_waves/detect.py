"""Measure detection: areas under curves, of the exact detectors and of a network.

python -m examples.gravitational_waves.detect --out benchmarks/results/detection.json \
        --figure examples/gravitational_waves/detection.png
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxsbi
from benchmarks.environment import write
from examples.gravitational_waves import data, detection

ALARM = 0.01
"""The false-alarm probability at which detection probabilities are reported."""


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=20_000, help="simulations of each model")
    parser.add_argument("--test", type=int, default=10_000, help="data sets at each loudness")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    frequency = np.arange(data.LOWEST, detection.RATE / 2 + 1, 0.125)
    templates = detection.bank(frequency, data.spectrum("H1", frequency))
    start = time.perf_counter()
    comparison = detection.train(jax.random.key(0), templates, options.train)
    seconds = time.perf_counter() - start
    found = scores(jax.random.key(1), comparison, templates, options.test)
    rows = [row for level in detection.LEVELS for row in summary(level, found[level])]
    for row in rows:
        print(json.dumps(row), flush=True)
    check = comparison.check(jax.random.key(2), detection.models(templates), 4_000)
    print(check.verdict, f"{seconds:.0f} s of training", flush=True)
    if options.out:
        report = {
            "rows": rows,
            "training": {"simulations_of_each_model": options.train, "seconds": round(seconds, 1)},
            "test": options.test,
            "calibration": check.verdict,
        }
        write(options.out, report)
    if options.figure:
        draw(found).savefig(options.figure, dpi=110)


def scores(
    key: Any, comparison: jaxsbi.Comparison, templates: np.ndarray, n: int
) -> dict[float, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return what each detector says of noise and of signals, by loudness and its name."""
    found = {}
    prior, simulator = detection.models(templates)["signal"]
    for level, key_level in zip(detection.LEVELS, jax.random.split(key, 4), strict=True):
        key_noise, key_theta, key_signal = jax.random.split(key_level, 3)
        theta = jax.vmap(prior.sample)(jax.random.split(key_theta, n))
        theta |= {"loudness": jnp.full(n, level)}
        noise = jax.vmap(detection.simulate_noise, (0, None))(jax.random.split(key_noise, n), {})
        signals = jax.vmap(simulator)(jax.random.split(key_signal, n), theta)
        exact = [detection.statistics(templates, level, x) for x in (noise, signals)]
        network = [detection.score(comparison, x) for x in (noise, signals)]
        both = {name: tuple(np.asarray(e[name]) for e in exact) for name in exact[0]}
        found[level] = both | {"network": tuple(np.asarray(a) for a in network)}
    return found


def summary(level: float, found: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """Return areas and detection probabilities at one loudness."""
    rows = []
    for name, (noise, signal) in found.items():
        alarms, detected = detection.curve(noise, signal)
        rows.append(
            {
                "loudness": level,
                "detector": name,
                "area": round(detection.area(noise, signal), 6),
                f"detected_at_{ALARM}": round(float(np.interp(ALARM, alarms, detected)), 4),
            }
        )
    return rows


def draw(found: dict[float, dict[str, tuple[np.ndarray, np.ndarray]]]) -> Any:
    """Return a figure of the curves."""
    figure, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    styles = {"likelihood ratio": "-", "matched filter": "--", "network": ":"}
    levels = [level for level in found if level < 10.0]
    for level, color in zip(levels, ("C0", "C1", "C2"), strict=True):
        for name, line in styles.items():
            alarms, detected = detection.curve(*found[level][name])
            axes.plot(alarms[1:], detected[1:], line, color=color, lw=1.6)
        axes.plot([], [], color=color, label=f"SNR {level:.0f}")
    for name, line in styles.items():
        axes.plot([], [], line, color="0.3", label=name)
    axes.set(xscale="log", xlabel="false alarms", ylabel="signals detected", ylim=(0.0, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


if __name__ == "__main__":
    main()
