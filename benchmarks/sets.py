"""Sets of 5 to 500 members in one program: is the posterior the conjugate one at every size?

    python -m benchmarks.sets --out benchmarks/results/sets.json

A set has n draws of N(mean, 1 / precision), the precision is Gamma(4, 4) and the mean normal with
variance 4 / precision, so the posterior is a normal-gamma law. One `npe` with a masked `DeepSet`,
trained on sets whose n is log-uniform, all padded to 500, is asked at fixed n. Compared are draws
of (mean, log width) with the conjugate answer, by C2ST, for several sets of each size; once more
with the members at random places and other numbers as padding; and the compiled programs counted.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import jaxsbi
from benchmarks import plan
from benchmarks.environment import write
from jaxsbi import base
from jaxsbi.base import Array, Data, Key, Theta
from jaxsbi.densities import MaskedAutoregressive
from jaxsbi.diagnostics import c2st
from jaxsbi.networks import DeepSet, SetTransformer

SMALLEST, LARGEST = 5, 500
SHAPE, SPREAD = 4.0, 4.0
"""Shape and rate of the precision's prior; the mean's prior variance in units of 1 / precision."""
SIZES = (5, 10, 20, 50, 100, 200, 500)
NETWORKS = {
    "deepset": DeepSet(hidden=32, out=16),
    "transformer": SetTransformer(hidden=32, out=16, blocks=1, heads=2),
}


def model() -> None:
    """Say how the parameters depend on each other."""
    precision = numpyro.sample("precision", dist.Gamma(SHAPE, SHAPE))
    numpyro.sample("mean", dist.Normal(0.0, jnp.sqrt(SPREAD / precision)))


def members(key: Key, theta: Theta, n: Array) -> Data:
    """Return a set of `n` members, padded to 500 with zeros."""
    noise = jax.random.normal(key, (LARGEST, 1))
    mask = jnp.arange(LARGEST) < n
    values = theta["mean"] + noise / jnp.sqrt(theta["precision"])
    return {"values": jnp.where(mask[:, None], values, 0.0), "mask": mask}


def simulator(key: Key, theta: Theta) -> Data:
    """Return a set whose size is log-uniform from 5 to 500."""
    key_n, key_x = jax.random.split(key)
    n = jnp.exp(jax.random.uniform(key_n, (), minval=math.log(SMALLEST), maxval=math.log(501)))
    return members(key_x, theta, jnp.floor(n))


def conjugate(key: Key, x: Data, draws: int) -> np.ndarray:
    """Return draws of (mean, log width) of the exact posterior, `(draws, 2)`."""
    values = np.asarray(x["values"], float)[np.asarray(x["mask"]), 0]
    n, centre = len(values), values.mean()
    kappa = 1 / SPREAD + n
    shape = SHAPE + n / 2
    rate = SHAPE + 0.5 * np.sum((values - centre) ** 2) + 0.5 * n / SPREAD / kappa * centre**2
    key_precision, key_mean = jax.random.split(key)
    precision = np.asarray(jax.random.gamma(key_precision, shape, (draws,)), float) / rate
    noise = np.asarray(jax.random.normal(key_mean, (draws,)), float)
    return np.stack(
        [n * centre / kappa + noise / np.sqrt(kappa * precision), -0.5 * np.log(precision)], 1
    )


def elsewhere(key: Key, x: Data) -> Data:
    """Return the same set with its members at random places and noise as padding."""
    key_order, key_noise = jax.random.split(key)
    order = jax.random.permutation(key_order, LARGEST)
    padding = 10.0 * jax.random.normal(key_noise, (LARGEST, 1))
    values = jnp.where(x["mask"][:, None], x["values"], padding)
    return {"values": values[order], "mask": x["mask"][order]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=plan.words, default=("deepset",))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sets", type=int, default=5, help="sets of each size")
    parser.add_argument("--draws", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("network", options.networks, list(NETWORKS))
    key_fit, key_test = jax.random.split(jax.random.key(options.seed))
    rows = []
    for name in options.networks:
        method = jaxsbi.npe(density=MaskedAutoregressive(), summary=NETWORKS[name])
        start, processor = time.perf_counter(), time.process_time()
        fitted = jaxsbi.fit_online(
            key_fit, method, jaxsbi.Prior(model), simulator, num_steps=options.steps,
            batch_size=options.batch, progress=False,
        )  # fmt: skip
        row = {"network": name, "fit_wall_s": time.perf_counter() - start}
        row |= {"fit_cpu_s": time.process_time() - processor}
        rows.append(row | measure(key_test, fitted.posterior, options.sets, options.draws))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        sizes = {name: getattr(options, name) for name in ("steps", "batch", "sets", "draws")}
        write(options.out, {"rows": rows, "sizes": sizes})


def measure(key: Key, posterior: Any, sets: int, draws: int) -> dict[str, Any]:
    """Return the C2ST at each size, and what other padding changes."""
    program = base.draw_program(posterior.method)
    before, scores, change = program._cache_size(), {}, 0.0
    for n in SIZES:
        scores[n] = []
        for i in range(sets):
            keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, n), i), 6)
            x = members(keys[0], posterior.prior.sample(keys[1]), jnp.array(n))
            found = pairs(posterior.sample(keys[2], x, draws))
            again = posterior.sample(jax.random.clone(keys[2]), elsewhere(keys[3], x), draws)
            change = max(change, float(np.max(np.abs(found - pairs(again)) / np.std(found, 0))))
            scores[n].append(round(c2st(keys[4], found, conjugate(keys[5], x, draws)), 4))
    return {
        "c2st": scores,
        "worst_mean_c2st": max(float(np.mean(each)) for each in scores.values()),
        "largest_change_by_padding": change,
        "compiled_programs": program._cache_size() - before,
    }


def pairs(theta: Theta) -> np.ndarray:
    """Return (mean, log width) of draws, `(n, 2)`."""
    return np.stack([np.asarray(theta["mean"]), -0.5 * np.log(np.asarray(theta["precision"]))], 1)


if __name__ == "__main__":
    main()
