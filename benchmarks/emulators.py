"""Emulators of a slow, exact simulator: how accurate from how few runs.

    python -m benchmarks.emulators --out benchmarks/results/emulators.json --figure F.png

The simulator is an analytic matter power spectrum of five parameters (the transfer function of
Bardeen et al. 1986, ApJ 304, 15, the shape of Sugiyama 1995, arXiv:astro-ph/9412025, and damped
wiggles) at 200 wavenumbers. Errors are relative, over 1,000 fresh runs.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxsbi
from benchmarks.clock import twice
from benchmarks.environment import environment, write

K = jnp.logspace(-3.0, 0.5, 200)
PRIOR = jaxsbi.Prior(
    matter=dist.Uniform(0.1, 0.5),
    baryons=dist.Uniform(0.03, 0.07),
    hubble=dist.Uniform(0.5, 0.9),
    tilt=dist.Uniform(0.8, 1.1),
    log_amplitude=dist.Uniform(2.0, 4.0),
)
BUDGETS = (300, 1_000)
MEMBERS = 5


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", type=lambda s: [int(n) for n in s.split(",")], default=BUDGETS)
    parser.add_argument("--out", type=Path, help="rows that are there are not made again")
    parser.add_argument("--figure", type=Path, help="percentiles of the errors, as PNG")
    options = parser.parse_args()
    table = Table(options.out, runs(spectrum, 1_000, 99))
    two_stages(table)
    members = accuracy(options.budgets, table)
    active(table)
    if options.figure:
        found = predictions(members(), table.test)
        figure = jaxsbi.plots.emulator_errors(found, table.test.x, at=K)
        (axes,) = figure.axes
        axes.set(xlabel="wavenumber k", xscale="log")
        figure.savefig(options.figure, dpi=120)


class Table:
    """The rows of the results, written down one after another."""

    def __init__(self, path: Path | None, test: jaxsbi.Simulations) -> None:
        self.path, self.test = path, test
        there = path and path.is_file() and path.read_text(encoding="utf-8")
        self.rows = json.loads(there)["rows"] if there else []

    def add(
        self,
        what: str,
        make: Callable[[], Any],
        measure: Callable[[Any, Any], dict[str, Any]] | None = None,
        **about: Any,
    ) -> None:
        """Train and score an emulator, unless its row is there."""
        row = {"what": what, **about}
        if any(all(old.get(name) == row[name] for name in row) for old in self.rows):
            return
        fitted = make()
        row |= scores(fitted, self.test)
        row |= {} if measure is None else measure(fitted, self.test)
        history = fitted.history
        row["fit_seconds"] = round(history.compile_seconds + history.run_seconds, 1)
        row["commit"] = environment()["commit"]
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        if self.path:
            write(self.path, {"rows": self.rows})


def spectrum(key: Any, theta: dict[str, Any]) -> Any:
    """Return the power spectrum at `K`; exact, the key is not used."""
    del key
    matter, baryons, hubble = theta["matter"], theta["baryons"], theta["hubble"]
    suppressed = jnp.exp(-baryons * (1 + jnp.sqrt(2 * hubble) / matter))
    return power(theta, matter * hubble * suppressed)


def cheap(key: Any, theta: dict[str, Any]) -> Any:
    """Return an approximation without the baryons' effect on the shape, wrong by half."""
    del key
    return power(theta, theta["matter"] * theta["hubble"])


def power(theta: dict[str, Any], shape: Any) -> Any:
    """Return a power spectrum of a given shape parameter."""
    matter, baryons, hubble = theta["matter"], theta["baryons"], theta["hubble"]
    q = K / shape
    polynomial = 1 + 3.89 * q + (16.1 * q) ** 2 + (5.46 * q) ** 3 + (6.71 * q) ** 4
    transfer = jnp.log(1 + 2.34 * q) / (2.34 * q) * polynomial**-0.25
    sound = 44.5 * jnp.log(9.83 / (matter * hubble**2)) * hubble
    phase = K * sound / jnp.sqrt(1 + 10 * (baryons * hubble**2) ** 0.75)
    wiggles = 0.3 * baryons / matter * jnp.sin(phase) / (1 + phase / 5)
    damped = 1 + wiggles * jnp.exp(-((K / 0.2) ** 1.4))
    return jnp.exp(theta["log_amplitude"]) * K ** theta["tilt"] * transfer**2 * damped


def runs(simulator: Callable[..., Any], n: int, seed: int) -> jaxsbi.Simulations:
    """Return runs at draws of the prior."""
    return jaxsbi.simulate(jax.random.key(seed), PRIOR, simulator, n, progress=False)


def fit(
    rows: jaxsbi.Simulations,
    seed: int = 0,
    network: Any = None,
    approximation: Any = None,
    **options: Any,
) -> Any:
    """Train an emulator of logarithms, with the defaults otherwise."""
    about = {"network": network, "approximation": approximation}
    method = jaxsbi.emulator(components=16, transform="log", exact=True, **about)
    return jaxsbi.fit(jax.random.key(seed), method, PRIOR, rows, progress=False, **options)


def predictions(fitted: Any, test: jaxsbi.Simulations) -> np.ndarray:
    """Return the emulated spectra of the test runs."""
    return np.asarray(jax.vmap(lambda theta: jaxsbi.emulate(fitted, theta))(test.theta))


def scores(fitted: Any, test: jaxsbi.Simulations) -> dict[str, float]:
    """Return percentiles of the relative error, over all numbers of all test runs."""
    error = np.abs(predictions(fitted, test) / np.asarray(test.x) - 1)
    return {f"p{p}": float(f"{np.percentile(error, p):.3g}") for p in (50, 68, 95, 99)}


def accuracy(budgets: Any, table: Table) -> Callable[[], Any]:
    """Add the errors of one emulator and of an ensemble; return what makes the last ensemble."""
    plain = jaxsbi.networks.MLP(128, 128)
    for n in budgets:
        training = runs(spectrum, n, 1)
        members = functools.cache(functools.partial(fit, training, ensemble=MEMBERS))
        table.add("default", functools.partial(fit, training), runs=n)
        table.add("MLP(128, 128)", functools.partial(fit, training, network=plain), runs=n)
        table.add("ensemble", members, trust, runs=n, members=MEMBERS)
    return members


def trust(members: Any, test: jaxsbi.Simulations) -> dict[str, Any]:
    """Return how often the error is within one and two of the ensemble's, and the speed."""

    @jax.jit
    def predict(theta: Any) -> Any:
        return jax.vmap(lambda t: jaxsbi.emulate_with_error(members, t))(theta)

    (found, deviation), seconds = twice(lambda: jax.block_until_ready(predict(test.theta)))
    z = np.abs(np.asarray(found) - np.asarray(test.x)) / np.asarray(deviation)
    within = {f"within_{s}": round(float(np.mean(z < s)), 3) for s in (1, 2, 4)}
    return within | {"seconds_of_1000_predictions": seconds}


def two_stages(table: Table) -> None:
    """Add errors after 50 exact runs, alone and after 1,000 of a cheap approximation.

    After these the emulator is trained on, or its error is learned; or that of the cheap simulator
    itself, without an emulator of it.
    """
    few = runs(spectrum, 50, 4)
    first = functools.cache(lambda: fit(runs(cheap, 1_000, 3)))
    table.add("cheap approximation only", first, runs=0, cheap_runs=1_000)
    table.add("exact runs only", lambda: fit(few), runs=50)
    for what, cheap_runs, make in (
        ("cheap, then exact runs", 1_000, lambda: fit(few, initial=first().posterior)),
        ("error of the emulated cheap runs", 1_000, lambda: fit(few, approximation=first())),
        ("error of the cheap simulator", 0, lambda: fit(few, approximation=known)),
    ):
        table.add(what, make, runs=50, cheap_runs=cheap_runs)


def known(theta: dict[str, Any]) -> Any:
    """Return the cheap approximation as a function of the parameters."""
    return cheap(None, theta)


def active(table: Table) -> None:
    """Add errors of ensembles from 100 runs and 100 more: chosen, or drawn from the prior."""
    for seed in (5, 6):
        start = runs(spectrum, 100, seed)

        def more(seed: int = seed, start: Any = start) -> jaxsbi.Simulations:
            members = fit(start, ensemble=3, capacity=200)
            theta = jaxsbi.acquire(jax.random.key(seed), members, 100)
            return jaxsbi.from_arrays(theta, jax.vmap(lambda t: spectrum(None, t))(theta))

        def random(seed: int = seed) -> jaxsbi.Simulations:
            return runs(spectrum, 100, 10 + seed)

        for what, second in (("chosen", more), ("random", random)):

            def both(start: Any = start, second: Any = second) -> Any:
                return fit(start.join(second()), ensemble=3)

            table.add(f"{what} second hundred", both, runs=200, seed=seed)


if __name__ == "__main__":
    main()
