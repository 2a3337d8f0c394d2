"""The pictures: the learned posterior over the exact one, its calibration, and when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

import jaxsbi
from examples.gravitational_waves import data, problem
from jaxsbi.base import Theta
from jaxsbi.plots.canvas import COLORS, REFERENCE

LABELS = {
    "chirp_mass": "chirp mass\n(solar masses)",
    "mass_ratio": "mass ratio",
    "chi1": "spin 1",
    "chi2": "spin 2",
    "distance": "distance (Mpc)",
    "time": "time (ms)",
}


def draw(
    folder: Path,
    exact: Theta,
    arrays: dict[str, np.ndarray],
    found: dict[str, Any],
    failed: dict[str, dict[str, np.ndarray]],
) -> None:
    """Write all figures into a folder."""
    for name, figure in {
        "posterior": posterior(exact, arrays, found["event"]),
        "calibration": calibration(found["calibration"]),
        "failures": failures(found["failures"], failed),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)


def posterior(exact: Theta, arrays: dict[str, np.ndarray], event: dict[str, Any]) -> Any:
    """Draw the learned posterior of GW150914 in colour over the exact one in grey."""
    groups = {
        label: _shown({n: arrays[f"{kind}_{n}"] for n in exact})
        for kind, label in (("network", "network"), ("weighted", "network, weighted"))
    }
    figure = jaxsbi.plots.corner(groups, reference=_shown(exact))
    rows = "\n".join(
        f"{n.replace('_', ' '):>11} {event['jsd_network'][n]:8.4f} {event['jsd_weighted'][n]:8.4f}"
        for n in exact
    )
    others = np.median(event["efficiency_of_others"])
    text = (
        "GW150914, sky position fixed\n\n"
        f"JSD to the exact posterior (nat)\n{'':>11}  network weighted\n{rows}\n\n"
        f"efficiency {event['efficiency']:.1%} (median of other sets {others:.1%})\n"
        f"{event['draws']:,} draws in {event['cpu_seconds']:.1f} s of CPU\n"
        f"log-evidence ratio {event['log_evidence']:.3f} ± {event['log_evidence_error']:.3f}"
    )
    figure.text(0.98, 0.9, text, ha="right", va="top", family="monospace", fontsize=12)
    return figure


def whitened(theta: Theta) -> Any:
    """Draw what was measured, and below it what is left without the noise's colour.

    Args:
        theta: A binary whose signal is drawn over the data, up to its phase.
    """
    segment = data.segment()
    clear = (segment.frequency > 35.0) & (segment.frequency < 350.0)
    scale = (np.sqrt(4.0 * segment.resolution) / segment.asd)[:, clear]
    measured, signal = (
        scale * strain[:, clear]
        for strain in (segment.strain, problem.full_strain(segment.frequency, theta))
    )
    signal *= np.exp(1j * np.angle(np.vdot(signal, measured)))
    times = np.linspace(-120.0, 80.0, 1000)
    turns = segment.frequency[clear, None] * times / 1e3
    waves = np.exp(2j * np.pi * turns) / np.sqrt(np.sum(clear))
    figure, axes = plt.subplots(2, 2, figsize=(10, 5), sharex="row", sharey="row")
    for row, name in enumerate(data.DETECTORS):
        raw = data.strain(name)
        clock = data.START + np.arange(len(raw)) / data.RATE - data.EVENT
        some = np.abs(clock) < 1.0
        axes[0, row].plot(clock[some], 1e18 * raw[some], color=COLORS[row], lw=0.8)
        axes[0, row].set_title({"H1": "Hanford", "L1": "Livingston"}[name])
        axes[1, row].plot(times, (measured[row] @ waves).real, color=COLORS[row], lw=1.2)
        axes[1, row].plot(times, (signal[row] @ waves).real, color="black", lw=1.0, label="signal")
        axes[0, row].set_xlabel("s")
        axes[1, row].set_xlabel("ms after the event's published time")
    axes[0, 0].set_ylabel("strain (1e-18)")
    axes[1, 0].legend(frameon=False)
    axes[1, 0].set_ylabel("whitened, 35 to 350 Hz\n(standard deviations)")
    figure.tight_layout()
    return figure


def ratios(exact: Theta, draws: dict[str, dict[str, list[float]]]) -> Any:
    """Draw marginals by learned ratios in colour over the exact ones in grey."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 6))
    for each, (group, values) in zip(axes.ravel(), draws.items(), strict=True):
        names = group.split(" & ")
        right = [np.asarray(exact[name]) for name in names]
        found = [np.asarray(values[name]) for name in names]
        ends = [(a.min(), a.max()) for a in right]
        if len(names) == 1:
            bins = np.linspace(*ends[0], 40)
            each.hist(right[0], bins, density=True, color=REFERENCE, alpha=0.6, label="exact")
            each.hist(found[0], bins, density=True, histtype="step", color=COLORS[0], lw=1.8,
                      label="ratio")  # fmt: skip
            each.set_yticks([])
        else:
            edges = [np.linspace(*end, 30) for end in ends]
            each.hist2d(*right, bins=edges, cmap="Greys")
            density = gaussian_filter(np.histogram2d(*found, bins=edges)[0], 1.0)
            middle = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
            levels = density.max() * np.array([0.1, 0.3, 0.6])
            each.contour(*middle, density.T, levels=levels, colors=COLORS[0])
            each.set(xlim=ends[0], ylim=ends[1], ylabel=LABELS[names[1]])
        each.set_xlabel(LABELS[names[0]])
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    return figure


def calibration(report: dict[str, Any]) -> Any:
    """Draw realised against nominal coverage, and each parameter's ranks."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.8))
    level = np.linspace(0.0, 1.0, 200)
    titles = {"density": "coverage", "distance": "TARP", "parameters": "SBC"}
    band = report["density"]["band"]
    for each in axes:
        each.fill_between(level, level - band, level + band, color=REFERENCE, alpha=0.25, lw=0)
        each.plot(level, level, color=REFERENCE, lw=0.8)
        each.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal", ylabel="realised")
    for order, name in enumerate(("density", "distance")):
        ranks, p = np.asarray(report[name]["ranks"]), report[name]["p_values"][0]
        share = np.mean(ranks[:, :1] <= level[None], axis=0)
        axes[0].plot(level, share, color=COLORS[order], label=f"{titles[name]} (p = {p:.2g})")
    ranks = np.asarray(report["parameters"]["ranks"])
    for order, name in enumerate(LABELS):
        share = np.mean(ranks[:, order, None] <= level[None], axis=0)
        axes[1].plot(level, share, color=COLORS[order % 6], lw=1.2, label=name.replace("_", " "))
    axes[1].set_title(f"each parameter (SBC, p ≥ {min(report['parameters']['p_values']):.2g})")
    axes[0].set_title("credible regions of all six")
    for each in axes:
        each.legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    return figure


def failures(numbers: dict[str, Any], draws: dict[str, dict[str, Any]]) -> Any:
    """Draw the chirp mass with and without faults in the data, and what the diagnostics say."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, sharex=True)
    bins = np.linspace(26.0, 36.0, 80)
    for each, (name, found) in zip(axes, numbers.items(), strict=True):
        values, weight = (np.asarray(draws[name][key]) for key in ("network", "weight"))
        each.hist(
            values, bins, weights=weight, density=True, color=REFERENCE, alpha=0.6, label="weighted"
        )
        each.hist(
            values, bins, density=True, histtype="step", color=COLORS[0], lw=1.8, label="network"
        )
        tests = found["misspecification"]
        each.set_title(
            f"{name}\nefficiency {found['efficiency']:.2%}, Pareto k {found['pareto_k']:.2f}\n"
            f"residual p {_small(found['residual']['p_value'])}, "
            f"misspecification p = {min(tests.values()):.2g}",
            fontsize=9,
        )
        top = np.histogram(values, bins, density=True)[0].max()
        each.set(xlabel="chirp mass (solar masses)", ylim=(0.0, 1.5 * top))
        each.set_yticks([])
    axes[0].legend(frameon=False)
    figure.tight_layout()
    return figure


def _shown(theta: Theta) -> Theta:
    return {
        LABELS[name]: np.asarray(values) * (1e3 if name == "time" else 1.0)
        for name, values in theta.items()
    }


def _small(p_value: float) -> str:
    return f"= {p_value:.2g}" if p_value >= 1e-6 else "< 1e-6"
