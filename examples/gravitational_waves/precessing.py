"""The published posterior once more: 14 parameters, precessing spins, an unknown place in the sky.

Run `python -m examples.gravitational_waves.precessing FILE`: hours on two cores. The prior and the
likelihood are those of Biwer et al. 2019, arXiv:1807.10312, but for the noise spectrum (see
`data`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import PowerTransform

import jaxsbi
from examples.gravitational_waves import bands, waveforms
from examples.gravitational_waves.data import EVENT, published, published_segment
from examples.gravitational_waves.detectors import SIDEREAL_DAY, project, sidereal
from examples.gravitational_waves.likelihood import detected, marginal_ratio
from examples.gravitational_waves.problem import FIDUCIAL
from jaxsbi.base import Array, Key, Theta
from jaxsbi.samplers import Evolution, SMCInfo, smc

MASSES = (15.0, 65.0)
"""The published prior is wider; there is no posterior outside."""
MIDDLE = 0.0154
"""Seconds after `EVENT` at which the heterodyned grid is centred."""


def prior() -> jaxsbi.Prior:
    """Return the published prior, in coordinates in which it is uniform.

    Two of its symmetries are left out: the polarization angle's period is a quarter turn where the
    phase is integrated out.
    """
    spins = {
        f"spin{one}_{name}": dist.Uniform(*ends)
        for one in (1, 2)
        for name, ends in (
            ("a", (0.0, 0.99)),
            ("cos", (-1.0, 1.0)),
            ("azimuthal", (0.0, 2 * np.pi)),
        )
    }
    return jaxsbi.Prior(
        mass1=dist.Uniform(*MASSES),
        mass2=dist.Uniform(*MASSES),
        **spins,
        distance=dist.TransformedDistribution(
            dist.Uniform(10.0**3, 1000.0**3), PowerTransform(1.0 / 3.0)
        ),
        cos_inclination=dist.Uniform(-1.0, 1.0),
        polarization=dist.Uniform(0.0, 0.5 * np.pi),
        ra=dist.Uniform(0.0, 2.0 * np.pi),
        sin_dec=dist.Uniform(-1.0, 1.0),
        time=dist.Uniform(-0.08, 0.12),
    )


def likelihood(nodes: int = 160) -> Callable[[Theta], Array]:
    """Return the log-likelihood ratio on a heterodyned grid, a function of one parameter set."""
    segment = published_segment()
    grid, data = bands.compress(
        segment, bands.spread(nodes, segment.frequency[-1], (27.0, 35.0), 0.02), _reference
    )
    start = sidereal(EVENT)

    def at(theta: Theta) -> Array:
        frequency = jnp.asarray(grid.nodes, theta["mass1"].dtype)
        sky = project(
            theta["ra"],
            jnp.arcsin(theta["sin_dec"]),
            theta["polarization"],
            start + 2.0 * jnp.pi * theta["time"] / SIDEREAL_DAY,
        )
        polarizations = waveforms.precessing(frequency, _angles(theta))
        strain = detected(frequency, *polarizations, sky, theta["time"])
        return marginal_ratio(jnp.asarray(data), grid.whiten(strain))

    return at


def posterior(key: Key, n: int, *, particles: int = 384) -> tuple[Theta, SMCInfo]:
    """Return draws by sequential Monte Carlo, in double precision, and its report."""
    with jax.enable_x64(True):
        law, score = prior(), likelihood()
        sampler = smc(particles=particles, populations=4, kernel=Evolution())

        def log_density(z: Array) -> Array:
            return law.latent_log_prob(z) + score(law.from_latent(z))

        z, info = jax.jit(lambda key: sampler(key, log_density, law.dim, n))(key)
        info.warn()
        return jax.tree.map(np.asarray, jax.vmap(law.from_latent)(z)), info


def comparable(draws: Theta) -> dict[str, np.ndarray]:
    """Return what both posteriors can be compared in: the heavier body is the first."""
    swap = draws["mass1"] < draws["mass2"]

    def ordered(name: str, one: int) -> np.ndarray:
        return np.where(swap, draws[f"{name}{3 - one}"], draws[f"{name}{one}"])

    heavy, light = ordered("mass", 1), ordered("mass", 2)
    both = {
        "chirp_mass": (heavy * light) ** 0.6 / (heavy + light) ** 0.2,
        "mass_ratio": light / heavy,
    }
    for part in ("a", "cos", "azimuthal"):
        renamed = {f"spin_{part}{one}": draws[f"spin{one}_{part}"] for one in (1, 2)}
        for one in (1, 2):
            values = np.where(swap, renamed[f"spin_{part}{3 - one}"], renamed[f"spin_{part}{one}"])
            both[f"spin{one}_{part}"] = values
    names = ("distance", "cos_inclination", "ra", "sin_dec", "time")
    return (
        both
        | {name: draws[name] for name in names}
        | {"polarization": np.mod(draws["polarization"], 0.5 * np.pi)}
    )


def published_draws() -> Theta:
    """Return the published draws in the coordinates of `prior`."""
    found = published()
    for one in (1, 2):
        found[f"spin{one}_cos"] = np.cos(found.pop(f"spin{one}_polar"))
    found["cos_inclination"] = np.cos(found.pop("inclination"))
    found["sin_dec"], found["time"] = np.sin(found.pop("dec")), found.pop("tc") - EVENT
    return found


def _angles(theta: Theta) -> Theta:
    polar = {f"spin{one}_polar": jnp.arccos(theta[f"spin{one}_cos"]) for one in (1, 2)}
    return theta | polar | {"inclination": jnp.arccos(theta["cos_inclination"])}


def _reference(frequency: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        theta = {name: jnp.asarray(value, jnp.float64) for name, value in FIDUCIAL.items()}
        h = np.asarray(jax.jit(waveforms.aligned)(jnp.asarray(frequency), theta))
    arrival = np.exp(-2j * np.pi * frequency * MIDDLE)
    return np.stack([np.exp(1j * np.angle(h)) * arrival] * 2)


if __name__ == "__main__":
    drawn, report = posterior(jax.random.key(0), 8400)
    rows = {name: np.asarray(values) for name, values in drawn.items()}
    np.savez(sys.argv[1], **rows, log_evidence=report.log_evidence, r_hat=report.r_hat)
