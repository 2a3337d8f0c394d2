"""The likelihood-based road: the exact likelihood, sampled without any network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from examples.gravitational_waves import problem, waveforms
from examples.gravitational_waves.data import EVENT, Segment, published_segment
from examples.gravitational_waves.detectors import SIDEREAL_DAY, project, sidereal
from examples.gravitational_waves.likelihood import detected, marginal_ratio, whiten
from jaxsbi.base import Array, Key, Theta
from jaxsbi.samplers import SMCInfo, nested, smc


def log_density(event: problem.Event, x: dict[str, Array]) -> Callable[[Array], Array]:
    """Return the posterior's log-density in the prior's latent space, up to the evidence."""
    prior = problem.prior()

    def at(z: Array) -> Array:
        return prior.latent_log_prob(z) + event.log_likelihood(prior.from_latent(z), x)

    return at


def posterior(
    key: Key, event: problem.Event, x: dict[str, Array], n: int, *, particles: int = 256
) -> tuple[Theta, SMCInfo]:
    """Return draws by sequential Monte Carlo, in double precision, and its report."""
    with jax.enable_x64(True):
        sampler = smc(particles=particles)
        run = jax.jit(lambda key: sampler(key, log_density(event, x), problem.prior().dim, n))
        z, info = run(key)
        info.warn()
        return jax.tree.map(np.asarray, jax.vmap(problem.prior().from_latent)(z)), info


def published_ratios(draws: dict[str, np.ndarray]) -> np.ndarray:
    """Return the log-likelihood ratio of each published draw, as its authors defined it."""
    segment = published_segment()
    with jax.enable_x64(True):
        frequency = jnp.asarray(segment.frequency)
        observed = whiten(segment, jnp.asarray(segment.strain))
        start = sidereal(EVENT)

        def one(theta: Theta) -> Array:
            time = theta["tc"] - EVENT
            turn = start + 2.0 * jnp.pi * time / SIDEREAL_DAY
            sky = project(theta["ra"], theta["dec"], theta["polarization"], turn)
            strain = detected(frequency, *waveforms.precessing(frequency, theta), sky, time)
            return marginal_ratio(observed, whiten(segment, strain))

        theta = {name: jnp.asarray(values) for name, values in draws.items()}
        return np.asarray(jax.jit(lambda theta: jax.lax.map(one, theta))(theta))


def whittle(segment: Segment, draws: Theta) -> np.ndarray:
    """Return the aligned-spin log-likelihood ratios at all frequencies, the slow and sure way."""
    with jax.enable_x64(True):
        observed = whiten(segment, jnp.asarray(segment.strain))
        signals = jnp.asarray(problem.full_strain(segment.frequency, draws))
        ratios = jax.lax.map(lambda one: marginal_ratio(observed, whiten(segment, one)), signals)
        return np.asarray(ratios)


def evidence(
    key: Key, event: problem.Event, x: dict[str, Array], *, live: int = 800, runs: int = 10
) -> dict[str, Any]:
    """Return the log-evidence by nested sampling: the mean of some runs, and its standard error."""
    with jax.enable_x64(True):
        dim = problem.prior().dim
        found = [
            nested(k, log_density(event, x), dim, 1000, live=live)[1]
            for k in jax.random.split(key, runs)
        ]
    values = np.array([info.log_evidence for info in found])
    return {
        "log_evidence": float(np.mean(values)),
        "log_evidence_error": float(np.std(values, ddof=1) / np.sqrt(runs)),
        "runs": values.tolist(),
        "reported_errors": [info.log_evidence_error for info in found],
        "live": live,
        "evaluations": sum(info.evaluations for info in found),
    }
