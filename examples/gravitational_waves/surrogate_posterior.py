"""GW150914 with a surrogate in the simulator instead of the waveform: does the posterior change?"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from examples.gravitational_waves import data, families, problem, reference, surrogate
from jaxsbi.base import Array, Fitted, Key, Theta


@dataclasses.dataclass(frozen=True, eq=False)
class Event(problem.Event):
    """The event's simulator and likelihood with a surrogate's waveforms.

    Attributes:
        fitted: A surrogate of binaries that do not precess.
    """

    fitted: Fitted

    def source(self, theta: Theta) -> Array:
        """Return the face-on waveform at 1 Mpc, real and imaginary parts, shape `(2, b)`."""
        q = theta["mass_ratio"]
        mass = theta["chirp_mass"] * (q / (1.0 + q) ** 2) ** -0.6 * families.SUN
        few = {name: theta[name] for name in surrogate.ALIGNED.names}
        prediction = jaxsbi.emulate(self.fitted, few)
        mf = jnp.asarray(self.bands.nodes, mass.dtype) * mass
        h = surrogate.waveform(prediction, mf, few, timed=True)
        h = h * mass * (mass / families.MEGAPARSEC)
        return jnp.stack([h.real, h.imag])


def change(key: Key, fitted: Fitted, n: int = 4_000) -> dict[str, Any]:
    """Sample the event's posterior with the surrogate, and weigh the draws by the exact likelihood.

    Returns:
        "efficiency" of the weights (1 if nothing changes); for each parameter the "shift" of the
        mean by the weights and the "width", weighted over unweighted standard deviation, in units
        of the latter; the scatter of the log-likelihoods' difference; microseconds per simulation.
    """
    event, x = problem.observe(data.segment())
    learned = Event(event.bands, event.knots, event.sky, fitted)
    draws, _ = reference.posterior(key, learned, x, n)
    with jax.enable_x64(True):
        theta = jax.tree.map(jnp.asarray, draws)
        exact, found = (
            np.asarray(jax.jit(jax.vmap(e.log_likelihood, (0, None)))(theta, x))
            for e in (event, learned)
        )
    difference = exact - found
    weights = np.exp(difference - difference.max())
    weights /= weights.sum()
    report: dict[str, Any] = {
        "draws": n,
        "efficiency": round(float(1.0 / (n * np.sum(weights**2))), 5),
        "log_likelihood_scatter": float(f"{difference.std():.3g}"),
        "log_evidence_change": float(f"{np.log(np.mean(np.exp(difference))):.3g}"),
        "microseconds_per_simulation": {
            name: round(1e6 * _seconds(e), 2)
            for name, e in (("ripplegw", event), ("surrogate", learned))
        },
    }
    for name, values in draws.items():
        mean, deviation = values.mean(), values.std()
        moved = np.sum(weights * values)
        width = np.sqrt(np.sum(weights * (values - moved) ** 2)) / deviation
        report[name] = {
            "shift": float(f"{(moved - mean) / deviation:.3g}"),
            "width": round(float(width), 5),
        }
    return report


def _seconds(event: problem.Event, n: int = 2_000) -> float:
    """Return seconds per simulation in a batch, in single precision."""
    simulate = jax.jit(jax.vmap(event.simulate))
    keys = jax.random.split(jax.random.key(0), n)
    theta = jax.vmap(problem.prior().sample)(keys)
    jax.block_until_ready(simulate(keys, theta))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(simulate(keys, theta))
        times.append(time.perf_counter() - start)
    return min(times) / n
