"""Planck's six parameters two ways: MCMC on an emulator, and a posterior learned outright.

Run it: `python two_ways.py`, after `python boltzmann.py`. Both roads see the same runs of CAMB. It
draws `two_ways.png` and `emulators.png`; results go to the file of `--out`.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from boltzmann import PRIOR, TRAIN, campaign
from emulated import binned, by_mcmc, check, marginal
from emulators import accuracy, both, derived, of_bins
from learned import by_npe, summaries
from lowe import lowe
from planck import planck

import jaxsbi
from jaxsbi.base import Array, Data, Fitted, Key, Posterior, Simulations, Theta

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
SIGNALS = 20_000
DRAWS = 10_000
# Means and standard deviations (of two sides, their mean): Planck Collaboration VI 2020,
# arXiv:1807.06209, table 2, TT,TE,EE+lowE.
PUBLISHED = {
    "ombh2": (0.02236, 0.00015),
    "omch2": (0.1202, 0.0014),
    "theta_mc": (1.04090, 0.00031),
    "tau": (0.0544, 0.00755),
    "log_as": (3.045, 0.016),
    "ns": (0.9649, 0.0044),
    "H0": (67.27, 0.60),
    "omegam": (0.3166, 0.0084),
    "sigma8": (0.8120, 0.0073),
    "S8": (0.834, 0.016),
}


def table(draws: Theta, matter: Fitted, weights: Array | None = None) -> dict[str, list[float]]:
    """Return mean and standard deviation of the parameters and of what follows from them."""
    theta = {name: draws[name] for name in PRIOR.names}
    everything = theta | derived(matter, theta)
    weights = jnp.ones(len(draws["tau"])) if weights is None else weights
    found = {}
    for name, a in everything.items():
        a = np.asarray(a, float)
        mean = np.average(a, weights=weights)
        found[name] = [mean, float(np.sqrt(np.average((a - mean) ** 2, weights=weights)))]
    return found


def picture(roads: dict[str, Theta]) -> Figure:
    """Return the posteriors of both roads in one corner plot."""
    labels = {
        "ombh2": "Ω_b h²",
        "omch2": "Ω_c h²",
        "theta_mc": "100 θ_MC",
        "tau": "τ",
        "log_as": "ln 10¹⁰A_s",
        "ns": "n_s",
    }
    named = {
        road: {label: draws[name] for name, label in labels.items()}
        for road, draws in roads.items()
    }
    return jaxsbi.plots.corner(named)


def weigh(
    key: Key, posterior: Posterior, target: Callable[[Theta, Data], Array], x: Array, matter: Fitted
) -> tuple[dict[str, Any], dict[str, list[float]], Theta]:
    """Return what weighing draws by a likelihood gave, their table, and draws of equal weight."""
    k_weigh, k_again = jax.random.split(key)
    weighted = jaxsbi.importance(k_weigh, posterior, target, PRIOR, x, DRAWS)
    report = {
        "efficiency": float(weighted.efficiency),
        "pareto_k": float(weighted.pareto_k),
        "log_evidence": [float(weighted.log_evidence), float(weighted.log_evidence_error)],
    }
    found = table(weighted.draws, matter, jax.nn.softmax(weighted.log_weights))
    return report, found, weighted.resample(k_again, DRAWS // 2)


def go(key: Key) -> tuple[dict[str, Any], Figure, Figure]:
    """Return what came of both roads, the emulators' errors and the posteriors."""
    k0, k1, k2, k3, k4, k5 = jax.random.split(key, 6)
    likelihood, low = planck(), lowe()
    simulations = campaign()
    spectral, matter, seconds = both(simulations[:TRAIN])
    report: dict[str, Any] = {"runs": TRAIN, "emulators_of_spectra": seconds}
    report["accuracy"], errors = accuracy(spectral, matter, simulations[TRAIN:])
    training = binned(likelihood, low, simulations[:TRAIN])
    emulator = of_bins(k0, PRIOR, training)
    report["emulator_of_bins"] = {"run_seconds": emulator.history.run_seconds}
    length: dict[str, int] = {"chains": 4, "warmup": 500, "steps": 2000}
    chains, report["nuts"] = by_mcmc(k1, emulator, likelihood.data, **length)
    maps, report["nuts, lowE"] = by_mcmc(k5, emulator, likelihood.data, low, **length)
    roads = {"nuts": table(chains, matter), "nuts, lowE": table(maps, matter)}
    pictures = {"NUTS on the emulator": chains}

    signals = Simulations(training.theta, training.x["data"], training.weight)
    compressed = summaries(signals.theta, signals.x)
    x = compressed.matrix @ likelihood.data
    # 512 parameter sets are learned by heart before the posterior is: its width is three times
    # less than their distance. The emulator makes as many of them as it takes.
    theta = jax.vmap(PRIOR.sample)(jax.random.split(k2, SIGNALS))
    mean = jax.vmap(lambda t: jaxsbi.emulate(emulator, t)["data"])(theta)
    emulated = Simulations(theta, mean, jnp.ones(SIGNALS))
    # By name, the likelihood that weighs NPE's draws.
    targets = {
        name: functools.partial(marginal, emulator, likelihood, of_ee)
        for name, of_ee in (("weighed", None), ("weighed, lowE", low))
    }
    for name, runs, steps, k in (
        ("npe, runs alone", signals, 3_000, k3),
        ("npe", emulated, 10_000, k4),
    ):
        k_fit, k_draw, *k_weigh = jax.random.split(k, 2 + len(targets))
        fitted = by_npe(k_fit, PRIOR, runs, compressed, num_steps=steps, progress=False)
        direct = fitted.posterior.sample(k_draw, x, DRAWS)
        roads[name] = table(direct, matter)
        history = fitted.history
        report[name] = {
            "run_seconds": history.run_seconds,
            "compile_seconds": history.compile_seconds,
        }
        again = {}
        for (which, target), k_target in zip(targets.items(), k_weigh, strict=True):
            report[name][which], roads[f"{name}, {which}"], again[which] = weigh(
                k_target, fitted.posterior, target, x, matter
            )
    # Those of the runs alone are worse than the others: see the README.
    pictures |= {"NPE on emulated runs": direct, "the same, weighed": again["weighed"]}
    report["parameters"] = {"published": PUBLISHED} | roads
    report["check"] = check(maps, emulator, likelihood, low)
    return report, errors, picture(pictures)


def main() -> None:
    """Go both roads and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    out = parser.parse_args().out
    report, errors, posteriors = go(jax.random.key(2))
    roads = report["parameters"]
    for name in PUBLISHED:
        columns = (
            f"{road}: {m:.5g} ± {s:.2g}"
            for road, values in roads.items()
            for m, s in [values[name]]
        )
        print(f"{name:9s}", *columns, sep="   ")
    runs = ("nuts", "nuts, lowE", "npe, runs alone", "npe")
    print(json.dumps({name: report[name] for name in runs}, indent=1))
    if out:
        from benchmarks.environment import write

        write(out, report)
    errors.savefig(HERE / "emulators.png", dpi=80)
    posteriors.savefig(HERE / "two_ways.png", dpi=48)


if __name__ == "__main__":  # the worker processes of `campaign` import this file
    main()
