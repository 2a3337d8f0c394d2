"""Planck's six parameters two ways: MCMC on an emulator, and a posterior learned outright.

Run it: `python two_ways.py`, after `python boltzmann.py`. Both roads see the same runs of CAMB. It
draws `two_ways.png` and `emulators.png`; results go to the file of `--out`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from boltzmann import PRIOR, TRAIN, cached, campaign, spectra
from emulators import CMB, accuracy, both, derived, of_bins
from learned import Summaries, summaries
from numpyro.infer import MCMC, NUTS, init_to_uniform
from planck import CALIBRATION, Planck, calibrate, planck

import jaxsbi
from jaxsbi.base import Array, Data, Fitted, Key, Posterior, Simulations, Theta

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
SIGNALS = 20_000
CHECKS = 50
"""Draws of NUTS at which CAMB itself is run."""
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
LOWE = (0.0506, 0.0086)
"""Mean and standard deviation of tau by Planck's maps of E at low ℓ alone (ibid., lowE)."""
EE_BINS = 3
"""The last data: log-normal bins that stand for lowE, and say less of tau."""
_NAMED = dict(zip(PRIOR.names, PRIOR.distributions, strict=True))
PRIOR_LOWE = jaxsbi.Prior(**_NAMED | {"tau": dist.TruncatedNormal(*LOWE, low=0.02, high=0.09)})
"""The box, and lowE's constraint in place of these bins."""


def by_mcmc(
    key: Key, emulator: Fitted | Posterior, data: Array, *, chains: int, warmup: int, steps: int
) -> tuple[Theta, dict[str, Any]]:
    """Return draws by NUTS on the emulated likelihood, calibration included, and a report.

    `data` may be the first of the likelihood's data only.
    """

    def observe(mean: Array) -> Array:
        # Chains start near 0.
        calibration = 1.0 + CALIBRATION * numpyro.sample("calibration", dist.Normal())
        return calibrate(mean, calibration)[: data.size]

    unit = jaxsbi.noise.gaussian(jnp.ones(data.size))
    model = jaxsbi.emulator_model(emulator, observe=observe, noise=unit)
    # The box is centred near the truth; at its corners χ² is a million.
    start = init_to_uniform(radius=0.3)
    mcmc = MCMC(
        NUTS(model, dense_mass=True, init_strategy=start),
        num_warmup=warmup,
        num_samples=steps,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    mcmc.run(key, data, extra_fields=("num_steps", "diverging"))
    draws = jax.block_until_ready(mcmc.get_samples())
    report: dict[str, Any] = {
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "load": os.getloadavg()[0],
    }
    summary = numpyro.diagnostics.summary(mcmc.get_samples(group_by_chain=True))
    fields = mcmc.get_extra_fields()
    report |= {"chains": chains, "warmup": warmup, "steps": steps}
    report["r_hat"] = max(float(site["r_hat"]) for site in summary.values())
    report["ess"] = min(float(site["n_eff"]) for site in summary.values())
    report["divergences"] = int(fields["diverging"].sum())
    report["gradients_per_step"] = float(fields["num_steps"].mean())
    return draws, report


def by_npe(
    key: Key,
    prior: jaxsbi.Prior,
    simulations: Simulations,
    compressed: Summaries,
    **options: Any,
) -> Fitted:
    """Return the posterior of compressed data, learned from stored runs and new noise."""
    signal = jax.vmap(compressed.signal)(simulations.x)
    signals = Simulations(simulations.theta, signal, simulations.weight)
    stored = jaxsbi.Signals(signals, compressed.noise)
    return jaxsbi.fit_online(key, jaxsbi.npe(), prior, stored, **options)


def marginal(emulator: Fitted, likelihood: Planck, theta: Theta, x: Data) -> Array:
    """Return log p(x | theta) but for a constant, the calibration integrated out.

    The expectation is linear in the calibration over its width, so the integral is a Gaussian's.
    """
    del x  # compressed; the likelihood holds the data it was made from
    expected = jaxsbi.emulate(emulator, theta)
    mean, slope = jax.jvp(lambda c: calibrate(expected, c), (1.0,), (1.0,))
    residual, d = likelihood.data - mean, CALIBRATION * slope
    seen = 1 + d @ d
    return -0.5 * (residual @ residual - (d @ residual) ** 2 / seen + jnp.log(seen))


def binned(likelihood: Planck, runs: Simulations) -> Simulations:
    """Return what the runs expect of the data instead of their spectra."""
    mean = jax.jit(jax.vmap(likelihood.mean))({name: runs.x[name] for name in CMB})
    return Simulations(runs.theta, mean, runs.weight)


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


def check(draws: Theta, emulator: Fitted, likelihood: Planck) -> dict[str, Any]:
    """Compare log-likelihoods by the emulator with those by CAMB itself, and what each costs."""
    points = [{name: np.asarray(draws[name][i]) for name in PRIOR.names} for i in range(CHECKS)]
    emulated = jax.jit(lambda theta: likelihood.log_likelihood(jaxsbi.emulate(emulator, theta)))
    exact = jax.jit(lambda spectra: likelihood.log_likelihood(likelihood.mean(spectra)))
    rows = []
    for theta in points:
        found = cached(theta)
        value = exact({name: found[name] for name in CMB})
        rows.append((float(value), float(emulated(theta))))
    difference = np.abs(np.subtract(*np.array(rows).T))
    theta = points[0]
    # In turn, so that both see the same load; CAMB in this process, as MCMC would call it.
    costs = [
        (
            _seconds(lambda: spectra(0, theta)),
            _seconds(lambda: emulated(theta).block_until_ready(), 100),
        )
        for _ in range(5)
    ]
    camb, one = (tuple(np.median(each, axis=0)) for each in zip(*costs, strict=True))
    return {
        "log_likelihoods": rows,
        "largest_difference": float(difference.max()),
        "median_difference": float(np.median(difference)),
        "camb_seconds": {"wall": camb[0], "cpu": camb[1]},
        "emulator_seconds": {"wall": one[0], "cpu": one[1]},
        "ratio": {"wall": camb[0] / one[0], "cpu": camb[1] / one[1]},
        "load": os.getloadavg()[0],
    }


def _seconds(function: Callable[[], Any], times: int = 1) -> tuple[float, float]:
    """Return wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        function()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


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


def go(key: Key) -> tuple[dict[str, Any], Figure, Figure]:
    """Return what came of both roads, the emulators' errors and the posteriors."""
    k0, k1, k2, k3, k4 = jax.random.split(key, 5)
    likelihood = planck()
    simulations = campaign()
    spectral, matter, seconds = both(simulations[:TRAIN])
    report: dict[str, Any] = {"runs": TRAIN, "emulators_of_spectra": seconds}
    report["accuracy"], errors = accuracy(spectral, matter, simulations[TRAIN:])
    training = binned(likelihood, simulations[:TRAIN])
    emulator = of_bins(k0, PRIOR, training)
    report["emulator_of_bins"] = {"run_seconds": emulator.history.run_seconds}
    length: dict[str, int] = {"chains": 4, "warmup": 500, "steps": 2000}
    chains, report["nuts"] = by_mcmc(k1, emulator, likelihood.data, **length)
    maps, report["nuts, lowE"] = by_mcmc(
        jax.random.fold_in(key, 5),
        emulator.posterior.with_prior(PRIOR_LOWE),
        likelihood.data[:-EE_BINS],
        **length,
    )

    compressed = summaries(training.theta, training.x)
    x = compressed.matrix @ likelihood.data
    roads = {"nuts": table(chains, matter), "nuts, lowE": table(maps, matter)}
    pictures = {"NUTS on the emulator": chains}
    # 512 parameter sets are learned by heart before the posterior is: its width is three times
    # less than their distance. The emulator makes as many of them as it takes.
    theta = jax.vmap(PRIOR.sample)(jax.random.split(k2, SIGNALS))
    mean = jax.vmap(lambda t: jaxsbi.emulate(emulator, t))(theta)
    emulated = Simulations(theta, mean, jnp.ones(SIGNALS))
    for name, label, signals, steps, key in (
        ("npe, runs alone", "NPE on the runs alone", training, 3_000, k3),
        ("npe", "NPE on emulated runs", emulated, 10_000, k4),
    ):
        k_fit, k_draw, k_weigh, k_again = jax.random.split(key, 4)
        learned = by_npe(k_fit, PRIOR, signals, compressed, num_steps=steps, progress=False)
        direct = learned.posterior.sample(k_draw, x, 10_000)
        target = functools.partial(marginal, emulator, likelihood)
        weighted = jaxsbi.importance(k_weigh, learned.posterior, target, PRIOR, x, 10_000)
        report[name] = {
            "run_seconds": learned.history.run_seconds,
            "compile_seconds": learned.history.compile_seconds,
            "efficiency": float(weighted.efficiency),
            "pareto_k": float(weighted.pareto_k),
            "log_evidence": [float(weighted.log_evidence), float(weighted.log_evidence_error)],
        }
        weights = jax.nn.softmax(weighted.log_weights)
        roads[name] = table(direct, matter)
        roads[f"{name}, weighted"] = table(weighted.draws, matter, weights)
        pictures[label] = direct
    pictures.pop("NPE on the runs alone")  # worse than the others: see the README
    pictures["the same, weighed"] = weighted.resample(k_again, 5_000)
    report["parameters"] = {"published": PUBLISHED} | roads
    report["check"] = check(chains, emulator, likelihood)
    return report, errors, picture(pictures)


def main() -> None:
    """Go both roads and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    out = parser.parse_args().out
    report, errors, posteriors = go(jax.random.key(2))
    errors.savefig(HERE / "emulators.png", dpi=80)
    posteriors.savefig(HERE / "two_ways.png", dpi=48)
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


if __name__ == "__main__":  # the worker processes of `campaign` import this file
    main()
