"""Measure surrogates of waveforms: accuracy, cost, two-stage training, and what a posterior feels.

    python -m examples.gravitational_waves.measure_surrogates FOLDER \
        --out benchmarks/results/surrogates.json \
        --figure examples/gravitational_waves/surrogates.png

Waveforms, surrogates and each step's results are kept in the folder, and not made again if they
are there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from benchmarks.environment import environment, write
from examples.gravitational_waves import (
    data,
    families,
    mismatch,
    surrogate,
    surrogate_posterior,
)
from examples.gravitational_waves.files import kept
from examples.gravitational_waves.surrogate_figure import draw
from jaxsbi.base import Array, Fitted, Simulations, Theta

MASSES = (40.0, 100.0)
"""Total masses of the test binaries, in solar masses."""
TEST = 300
FEW = (15, 30, 100, 300)
"""Waveforms of the second family."""
BATCHES = (1, 10, 100, 1_000, 10_000)
SEEDS = {"IMRPhenomD": 1, "IMRPhenomPv2": 2, "IMRPhenomXAS": 3}
"""Of the parameters."""
PERCENTILES = (50, 68, 95, 100)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = ("IMRPhenomD", "IMRPhenomPv2")
    learned = {name: one_family(options.folder, name, options.runs) for name in names}
    first = learned["IMRPhenomD"][0]
    steps = {
        "stages": lambda: two_stages(options.folder, first),
        "costs": lambda: cost(first),
        "posterior": lambda: surrogate_posterior.change(jax.random.key(7), first),
    }
    found: dict[str, Any] = {"rows": [row for _, row, _ in learned.values()], "commits": {}}
    for name, make in steps.items():
        part = kept(
            options.folder / f"{name}.json",
            lambda make=make: {"found": make(), "commit": environment()["commit"]},
        )
        found[name], found["commits"][name] = part["found"], part["commit"]
    if options.out:
        write(options.out, found)
    if options.figure:
        errors = {name: each for name, (*_, each) in learned.items()}
        figure = draw(errors, found["stages"], found["costs"])
        figure.savefig(options.figure, dpi=110)


def one_family(folder: Path, family: str, n: int) -> tuple[Fitted, dict[str, Any], np.ndarray]:
    """Train a surrogate of `n` waveforms, and return it, its record, and its mismatches."""
    prior = surrogate.PRECESSING if family == "IMRPhenomPv2" else surrogate.ALIGNED
    rows = runs(folder, family, prior, n + TEST)
    fitted = kept(
        folder / f"{family}-{n}", lambda: surrogate.train(jax.random.key(1), prior, rows[:n])
    )
    errors = mismatches(fitted, rows[n:])
    return fitted, record(family, n, fitted, errors), errors


def two_stages(folder: Path, first: Fitted) -> list[dict[str, Any]]:
    """Return records of surrogates of few waveforms of a second family.

    They learn alone, go on from a first surrogate, of the other family, or learn its error. The
    first surrogate is also measured as it is.
    """
    family, prior = "IMRPhenomXAS", surrogate.ALIGNED
    many = runs(folder, family, prior, max(FEW) + TEST)
    test = many[max(FEW) :]
    rows = [record("first", 0, first, mismatches(first, test))]
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "alone": ({}, {}),
        "initial": ({}, {"initial": first.posterior}),
        "approximation": ({"approximation": first}, {}),
    }
    for n in FEW:
        for way, (about, options) in ways.items():

            def make(n=n, about=about, options=options) -> Fitted:
                key, few = jax.random.key(2), many[:n]
                return surrogate.train(key, prior, few, about, refit=True, **options)

            fitted = kept(folder / f"{way}-{n}", make)
            rows.append(record(way, n, fitted, mismatches(fitted, test)))
    return rows


def cost(fitted: Fitted) -> list[dict[str, float]]:
    """Return seconds per waveform on 128 frequencies in batches, of the surrogate and of ripplegw.

    Both compiled by JAX in single precision, on the same cores.
    """
    frequency = jnp.asarray(np.linspace(20.0, 512.0, 128), jnp.float32)

    def learned(theta: Theta) -> Array:
        mf = frequency * 60.0 * families.SUN
        prediction = jaxsbi.emulate(fitted, theta)
        return surrogate.waveform(prediction, mf, theta, timed=True)

    def exact(theta: Theta) -> Array:
        return families.direct(frequency, 60.0, theta)

    rows = []
    for n in BATCHES:
        theta = surrogate.draw(jax.random.key(n), surrogate.ALIGNED, n)
        row: dict[str, float] = {"batch": n}
        for name, function in (("surrogate", learned), ("ripplegw", exact)):
            row[name] = _seconds(jax.jit(jax.vmap(function)), theta) / n
        rows.append(row)
    return rows


def _seconds(function: Callable[[Theta], Array], theta: Theta) -> float:
    """Return the fastest of several calls: others may use the machine."""
    jax.block_until_ready(function(theta))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(function(theta))
        times.append(time.perf_counter() - start)
    return float(f"{min(times):.3g}")


def runs(folder: Path, family: str, prior: jaxsbi.Prior, n: int) -> Simulations:
    """Return waveforms of a family at draws of the prior, as they are learned."""

    def make() -> dict[str, Any]:
        theta = surrogate.draw(jax.random.key(SEEDS[family]), prior, n)
        made = (
            surrogate.precessing(theta)
            if family == "IMRPhenomPv2"
            else surrogate.aligned(family, theta)
        )
        return {**made.x, **{f"theta_{name}": a for name, a in made.theta.items()}}

    x = kept(folder / f"{family}-{n}.npz", make)
    theta = {name: x.pop(f"theta_{name}") for name in prior.names}
    return jaxsbi.from_arrays(theta, x)


def record(what: str, n: int, fitted: Fitted, errors: np.ndarray) -> dict[str, Any]:
    """Return and print one row: percentiles of the mismatch, and seconds of training."""
    found = {f"p{p}": float(f"{np.percentile(errors, p):.3g}") for p in PERCENTILES}
    history = fitted.history
    seconds = {
        "compile_seconds": round(history.compile_seconds, 1),
        "fit_seconds": round(history.run_seconds, 1),
    }
    row = {"what": what, "waveforms": n, **found, **seconds, "epochs": len(history.train_loss)}
    print(json.dumps(row), flush=True)
    return row


def mismatches(fitted: Fitted, test: Simulations) -> np.ndarray:
    """Return the mismatch of each test waveform, in the noise of Hanford at the time of GW150914.

    Of a precessing binary, of one polarization seen from a random direction.
    """
    rng = np.random.default_rng(0)
    count, mf = len(test), surrogate.grid(surrogate.FINER)
    frequency = np.arange(data.LOWEST, 1024.0, 0.125)
    mass = rng.uniform(*MASSES, count) * families.SUN
    noise = mismatch.power(mf, mass, frequency, data.spectrum("H1", frequency))
    predicted = jax.jit(jax.vmap(lambda theta: jaxsbi.emulate(fitted, theta)))(test.theta)
    views = rng.uniform(0.0, 2 * np.pi, (count, 3))
    views[:, 0] = np.arccos(rng.uniform(-1.0, 1.0, count))
    with jax.enable_x64(True):
        return np.asarray(_mismatches(*_double((predicted, test.x, test.theta, noise, views, mf))))


@jax.jit
def _mismatches(
    predicted: Any, exact: Any, theta: Theta, noise: Array, views: Array, mf: Array
) -> Array:
    def one(each: tuple[Any, ...]) -> Array:
        *both, theta, noise, view = each
        found = [surrogate.waveform(x, mf, theta, timed=False) for x in both]
        if "tilt" in both[0]:
            found = [
                surrogate.seen(h, surrogate.between(x["tilt"], mf), theta["chip"], view)
                for h, x in zip(found, both, strict=True)
            ]
        return mismatch.mismatch(*found, mf, noise)

    return jax.lax.map(one, (predicted, exact, theta, noise, views))


def _double(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a, complex if jnp.iscomplexobj(a) else float), tree)


if __name__ == "__main__":
    main()
