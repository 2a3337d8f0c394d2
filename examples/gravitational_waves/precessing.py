"""The published posterior once more: 14 parameters, precessing spins, an unknown place in the sky.

Run `python -m examples.gravitational_waves.precessing FILE`: minutes on two cores. The prior and
the likelihood are those of Biwer et al. 2019, arXiv:1807.10312, but for the noise spectrum (see
`data`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import PowerTransform

import jaxsbi
from benchmarks.environment import write
from examples.gravitational_waves import bands, waveforms
from examples.gravitational_waves.data import EVENT, published, published_segment
from examples.gravitational_waves.detectors import LIGHT, SIDEREAL_DAY, VERTEX, project, sidereal
from examples.gravitational_waves.files import kept
from examples.gravitational_waves.likelihood import detected, marginal_ratio
from examples.gravitational_waves.problem import FIDUCIAL
from jaxsbi.base import Array, Key, Theta
from jaxsbi.samplers import Evolution, SMCInfo, smc

CHIRP_MASSES, MASS_RATIOS = (26.0, 37.0), (0.25, 1.0)
"""The published prior is wider; there is no posterior outside."""
PARTICLES, MOVES, DRAWS = 1024, 60, 8400
REPORTED = ("r_hat", "log_evidence_error", "acceptance", "temperatures")
MIDDLE = 0.0154
"""Seconds after `EVENT` at which the heterodyned grid is centred."""


def prior() -> jaxsbi.Prior:
    """Return the prior of coordinates in which the posterior is simple; see `published_from`.

    What two detectors tell of the sky is a ring, and when the wave came to them, not to the Earth's
    centre. `volume` makes this the published prior. Two of its symmetries are left out: which body
    is the first, and that the polarization angle's period is a quarter turn where the phase is
    integrated out.
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
        chirp_mass=dist.Uniform(*CHIRP_MASSES),
        mass_ratio=dist.Uniform(*MASS_RATIOS),
        **spins,
        distance=dist.TransformedDistribution(
            dist.Uniform(10.0**3, 1000.0**3), PowerTransform(1.0 / 3.0)
        ),
        cos_inclination=dist.Uniform(-1.0, 1.0),
        polarization=dist.Uniform(0.0, 0.5 * np.pi),
        cos_baseline=dist.Uniform(-1.0, 1.0),
        around=dist.Uniform(-np.pi, np.pi),
        time_hanford=dist.Uniform(-0.08, 0.12),
    )


def published_from(theta: Theta) -> Theta:
    """Return the published coordinates: component masses, the place in the sky, the Earth's time.

    The source has an angle to the line from Hanford to Livingston, and lies around that line:
    0 is on the side of the celestial south pole.
    """
    theta = dict(theta)
    chirp, ratio = theta.pop("chirp_mass"), theta["mass_ratio"]
    theta["mass1"] = chirp * (1.0 + ratio) ** 0.2 * ratio**-0.6
    theta["mass2"] = theta["mass1"] * theta.pop("mass_ratio")
    cosine, around = theta.pop("cos_baseline"), theta.pop("around")
    line, south, third = (jnp.asarray(axis, cosine.dtype) for axis in _ring())
    across = jnp.cos(around) * south + jnp.sin(around) * third
    source = cosine * line + jnp.sqrt(1.0 - cosine**2) * across
    theta["ra"] = jnp.mod(jnp.arctan2(source[1], source[0]) + sidereal(EVENT), 2.0 * jnp.pi)
    theta["sin_dec"] = source[2]
    delay = -jnp.asarray(VERTEX[0], cosine.dtype) @ source / LIGHT
    return theta | {"time": theta.pop("time_hanford") - delay}


def volume(theta: Theta) -> Array:
    """Return the log-density of the published prior over that of `prior`, up to a constant.

    Component masses are uniform; the other coordinates' volumes are constant.
    """
    ratio = theta["mass_ratio"]
    return jnp.log(theta["chirp_mass"]) + 0.4 * jnp.log1p(ratio) - 1.2 * jnp.log(ratio)


def strain(frequency: Array, theta: Theta) -> Array:
    """Return both detectors' noiseless strain for one set of published coordinates, `(2, n)`."""
    turn = sidereal(EVENT) + 2.0 * jnp.pi * theta["time"] / SIDEREAL_DAY
    sky = project(theta["ra"], jnp.arcsin(theta["sin_dec"]), theta["polarization"], turn)
    polarizations = waveforms.precessing(frequency, _angles(theta))
    return detected(frequency, *polarizations, sky, theta["time"])


def likelihood(nodes: int = 160) -> Callable[[Theta], Array]:
    """Return the log-likelihood ratio on a heterodyned grid, a function of one parameter set."""
    segment = published_segment()
    draws = jax.vmap(lambda key: published_from(prior().sample(key)))
    examples = draws(jax.random.split(jax.random.key(0), 64))
    frequency = jnp.asarray(segment.frequency)
    signals = jax.jit(lambda theta: jax.lax.map(lambda one: strain(frequency, one), theta))
    places = bands.spread(nodes, segment, np.asarray(signals(examples)), _reference)
    grid, data = bands.compress(segment, places, _reference)

    def at(theta: Theta) -> Array:
        signal = strain(jnp.asarray(grid.nodes, theta["mass1"].dtype), theta)
        return marginal_ratio(jnp.asarray(data), grid.whiten(signal))

    return at


def posterior(
    key: Key, n: int, *, particles: int = PARTICLES, moves: int = MOVES
) -> tuple[Theta, SMCInfo]:
    """Return draws by sequential Monte Carlo, in double precision, and its report."""
    with jax.enable_x64(True):
        law, score = prior(), likelihood()
        sampler = smc(particles=particles, populations=4, moves=moves, kernel=Evolution())

        def log_density(z: Array) -> Array:
            theta = law.from_latent(z)
            return law.latent_log_prob(z) + volume(theta) + score(published_from(theta))

        z, info = jax.jit(lambda key: sampler(key, log_density, law.dim, n))(key)
        info.warn()
        draws = jax.vmap(lambda z: published_from(law.from_latent(z)))(z)
        return jax.tree.map(np.asarray, draws), info


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


def _ring() -> tuple[np.ndarray, ...]:
    """Return axes in the Earth's frame: the line between the detectors, and two across it."""
    line = VERTEX[1] - VERTEX[0]
    line = line / np.linalg.norm(line)
    south = -np.array([0.0, 0.0, 1.0]) + line[2] * line
    south = south / np.linalg.norm(south)
    return line, south, np.cross(line, south)


def _angles(theta: Theta) -> Theta:
    polar = {f"spin{one}_polar": jnp.arccos(theta[f"spin{one}_cos"]) for one in (1, 2)}
    return theta | polar | {"inclination": jnp.arccos(theta["cos_inclination"])}


def _reference(frequency: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        theta = {name: jnp.asarray(value, jnp.float64) for name, value in FIDUCIAL.items()}
        h = np.asarray(jax.jit(waveforms.aligned)(jnp.asarray(frequency), theta))
    arrival = np.exp(-2j * np.pi * frequency * MIDDLE)
    return np.stack([np.exp(1j * np.angle(h)) * arrival] * 2)


def against_published(key: Key, draws: Theta) -> dict[str, float]:
    """Return the Jensen-Shannon divergence of each marginal from the published one, in nats."""
    rows, published_rows = comparable(draws), comparable(published_draws())
    pair = [
        jnp.stack([jnp.float32(each[name]) for name in rows], 1) for each in (rows, published_rows)
    ]
    jsd = jaxsbi.diagnostics.marginal_jsd(key, *pair).jsd
    return dict(zip(rows, np.round(jsd, 5).tolist(), strict=True))


def main(path: Path) -> None:
    """Draw what was not drawn, compare it with the published draws, and write the numbers down."""

    def made() -> dict[str, np.ndarray]:
        start, cpu = time.perf_counter(), time.process_time()
        draws, info = posterior(jax.random.key(0), DRAWS)
        report = {name: getattr(info, name) for name in REPORTED}
        report |= {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
        }
        return dict(draws) | {f"info_{name}": np.asarray(value) for name, value in report.items()}

    found = kept(path.with_suffix(".npz"), made)
    report = {name: found.pop(name) for name in list(found) if name.startswith("info_")}
    jsd = against_published(jax.random.key(1), found)
    numbers = {
        "particles": PARTICLES,
        "moves": MOVES,
        "draws": DRAWS,
        **{name.removeprefix("info_"): value.tolist() for name, value in report.items()},
        "largest_jsd": max(jsd.values()),
        "jsd": jsd,
    }
    write(Path("benchmarks/results/gw_precessing.json"), numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gw150914_precessing.npz"))
