"""What the network learned, beside the exact likelihood: numbers and figures.

Run `python -m examples.gravitational_waves.evaluate FOLDER` after (or instead of) `dingo`. Every
step writes its result into the folder, and is left out if it is there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from benchmarks.environment import environment
from examples.gravitational_waves import data, dingo, figures, problem, reference
from jaxsbi.base import Array, Key, Posterior, Theta
from jaxsbi.importance import Weighted

DRAWS = 50_000
RATIOS = (15.0, 25.0, 45.0)
"""Signal-to-noise ratios of the injections."""
Observation = dict[str, Array]


def weigh(
    key: Key, posterior: Posterior, event: problem.Event, x: Observation, n: int = DRAWS
) -> tuple[Weighted, float]:
    """Return draws weighed by the exact likelihood, in double precision, and seconds."""
    start = time.perf_counter()
    with jax.enable_x64(True):
        prior = problem.prior()
        found = jaxsbi.importance(key, posterior, event.log_likelihood, prior, x, n)
        jax.block_until_ready(found)
    return found, time.perf_counter() - start


def summary(weighted: Weighted) -> dict[str, float]:
    """Return what weighted draws say of themselves."""
    names = ("efficiency", "pareto_k", "log_evidence", "log_evidence_error")
    return {name: float(getattr(weighted, name)) for name in names}


def distances(key: Key, draws: Theta, exact: Theta) -> dict[str, float]:
    """Return the Jensen-Shannon divergence of each marginal, in nats."""
    names = problem.prior().names
    rows = [np.stack([np.asarray(d[name], np.float32) for name in names], 1) for d in (draws, exact)]
    found = jaxsbi.diagnostics.marginal_jsd(key, *(jnp.asarray(r[:10_000]) for r in rows))
    return dict(zip(names, np.round(found.jsd, 5).tolist(), strict=True))


def on_event(key: Key, posterior: Posterior, event: problem.Event, x: Observation, exact: Theta) -> dict[str, Any]:
    """Compare the network's and the weighted draws of the real event with the reference."""
    keys = jax.random.split(key, 6)
    weigh(keys[0], posterior, event, x)  # compiles
    weighted, seconds = weigh(keys[1], posterior, event, x)
    resampled = weighted.resample(keys[2], 20_000)
    return {
        **summary(weighted),
        "seconds": seconds,
        "draws": DRAWS,
        "jsd_network": distances(keys[3], weighted.draws, exact),
        "jsd_weighted": distances(keys[4], resampled, exact),
        "jsd_floor": distances(keys[5], *_halves(exact)),
    }


def _halves(draws: Theta) -> tuple[Theta, Theta]:
    return tuple({name: a[side::2] for name, a in draws.items()} for side in (0, 1))


def injections(key: Key, posterior: Posterior, event: problem.Event, count: int = 8) -> list[dict]:
    """Weigh the posteriors of simulated events of several strengths, each in several noises."""
    theta = {"chirp_mass": 30.0, "mass_ratio": 0.7, "chi1": 0.2, "chi2": -0.1, "time": 0.012}
    found = []
    for ratio in RATIOS:
        one = {name: jnp.float32(value) for name, value in (theta | {"distance": 1.0}).items()}
        source = event.source(one)
        unit = jnp.linalg.norm(event.signal(one, jnp.zeros(2 * problem.KNOTS), source))
        truth = one | {"distance": unit / ratio}
        key, key_noise, key_draws = jax.random.split(key, 3)
        for k_x, k in zip(jax.random.split(key_noise, count), jax.random.split(key_draws, count), strict=True):
            weighted, _ = weigh(k, posterior, event, event.noisy(k_x, truth, source), 20_000)
            weights = jax.nn.softmax(weighted.log_weights)
            ranks = {
                name: float(jnp.sum(jnp.where(draws < truth[name], weights, 0.0)))
                for name, draws in weighted.draws.items()
            }
            found.append({"snr": ratio, **summary(weighted), "ranks": ranks})
    return found


def glitch(amplitude: float = 2e-21) -> np.ndarray:
    """Return a burst of 60 Hz in Hanford 20 ms before the merger, for `data.segment`."""
    times = np.arange(8 * data.RATE) / data.RATE - 6.0 + 0.02
    burst = amplitude * np.exp(-((times / 0.015) ** 2)) * np.sin(2.0 * np.pi * 60.0 * times)
    return np.stack([burst, 0.0 * burst])


def failures(key: Key, posterior: Posterior, event: problem.Event) -> dict[str, Any]:
    """Ask the diagnostics about the event as it is, with a glitch, and with a wrong spectrum."""
    keys = jax.random.split(key, 3)
    prior = problem.prior()
    fresh = jaxsbi.simulate(keys[0], prior, event.simulate, 4000, progress=False)
    segment = data.segment()
    wrong = np.where(segment.frequency < 80.0, 0.5, 1.0)[None] * segment.asd
    cases = {
        "as measured": segment,
        "with a glitch": data.segment(extra=glitch()),
        "with a wrong spectrum": segment._replace(asd=wrong),
    }
    found, draws = {}, {}
    for name, case in cases.items():
        law, x = problem.observe(case)
        weighted, _ = weigh(keys[1], posterior, law, x)
        tests = {
            label: jaxsbi.diagnostics.misspecification(keys[2], fresh, x, summary=how).p_value
            for label, how in (("data", None), ("summary", posterior))
        }
        found[name] = summary(weighted) | {"misspecification": tests}
        draws[name] = {
            "network": np.asarray(weighted.draws["chirp_mass"]),
            "weight": np.asarray(jax.nn.softmax(weighted.log_weights)),
        }
    return {"numbers": found, "draws": draws}
