"""GW150914 with a known place in the sky: the prior, the simulator and the exact likelihood.

Six parameters are inferred: chirp mass, mass ratio, both aligned spins, distance and time of
coalescence. The sky position, the polarization angle and the inclination are those of a draw of
the published posterior with a high likelihood. The phase of coalescence is integrated out, so that
data count up to a phase: they are turned until their sum, divided by a reference waveform, is
real. The noise spectrum varies from simulation to simulation around the measured one, and is part
of the data.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import PowerTransform

import jaxsbi
from examples.gravitational_waves import bands, waveforms
from examples.gravitational_waves.data import EVENT, Segment
from examples.gravitational_waves.detectors import project, sidereal
from examples.gravitational_waves.likelihood import detected, marginal_ratio
from jaxsbi.base import Array, Key, Theta

RA, DEC, POLARIZATION, INCLINATION = 2.0559, -1.2563, 0.3862, 2.9183
CHIRP_MASSES = (26.0, 36.0)
TIMES = (0.008, 0.018)
"""Seconds after `EVENT`: a detection pipeline knows the time to some milliseconds."""
DISTANCES = (200.0, 1000.0)
KNOTS = 5
"""Of the noise spectra's variation, equally spaced in log-frequency."""
VARIATION = 0.2
"""Its standard deviation, in log-power, at each knot."""
FIDUCIAL = {"chirp_mass": 31.0, "mass_ratio": 0.8, "chi1": 0.0, "chi2": 0.0}
"""The reference waveform's parameters."""


def prior() -> jaxsbi.Prior:
    """Return the prior: uniform, and for the distance uniform in volume."""
    volume = dist.Uniform(DISTANCES[0] ** 3, DISTANCES[1] ** 3)
    return jaxsbi.Prior(
        chirp_mass=dist.Uniform(*CHIRP_MASSES),
        mass_ratio=dist.Uniform(0.25, 1.0),
        chi1=dist.Uniform(-0.8, 0.8),
        chi2=dist.Uniform(-0.8, 0.8),
        distance=dist.TransformedDistribution(volume, PowerTransform(1.0 / 3.0)),
        time=dist.Uniform(*TIMES),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Event:
    """The simulator and the likelihood of one segment of data.

    Attributes:
        bands: The grid, and what whitens on it.
        knots: Share of each knot of the noise spectrum at each node, shape `(b, k)`.
        sky: Antenna patterns and delays.
    """

    bands: bands.Bands
    knots: np.ndarray
    sky: tuple[np.ndarray, ...]

    def simulate(self, key: Key, theta: Theta) -> dict[str, Array]:
        """Return whitened strain, `(4 b,)`, and log-powers of the noise, `(2 k,)`: one data set."""
        return self.noisy(key, theta, self.source(theta))

    def source(self, theta: Theta) -> Array:
        """Return what is dear of a signal: the face-on waveform at 1 Mpc, real and imaginary parts.

        It depends on masses and spins only; shape `(2, b)`.
        """
        h = waveforms.aligned(jnp.asarray(self.bands.nodes, theta["chirp_mass"].dtype), theta)
        return jnp.stack([h.real, h.imag])

    def noisy(self, key: Key, theta: Theta, source: Array) -> dict[str, Array]:
        """Return the data set of a source at some distance and time, with new noise."""
        key_noise, key_spectrum = jax.random.split(key)
        spectrum = VARIATION * jax.random.normal(key_spectrum, (2 * self.knots.shape[1],))
        # Whatever the phase of coalescence is, `turned` undoes it.
        signal = self.signal(theta, spectrum, source)
        noise = jax.random.normal(key_noise, (2, *signal.shape))
        return {"strain": turned(signal + noise[0] + 1j * noise[1]), "spectrum": spectrum}

    def log_likelihood(self, theta: Theta, x: dict[str, Array]) -> Array:
        """Return the log-likelihood relative to noise alone, a scalar (see `marginal_ratio`).

        In double precision where JAX allows it, whatever the precision of the arguments.
        """
        theta, x = jax.tree.map(lambda a: jnp.asarray(a, float), (theta, x))
        parts = jnp.reshape(x["strain"], (2, 2, -1))
        signal = self.signal(theta, x["spectrum"], self.source(theta))
        return marginal_ratio(parts[0] + 1j * parts[1], signal)

    def left(self, theta: Theta, x: dict[str, Array]) -> Array:
        """Return the sum of squares that the signal leaves of the data, at its best phase."""
        parts = jnp.reshape(jnp.asarray(x["strain"], theta["time"].dtype), (2, 2, -1))
        data = parts[0] + 1j * parts[1]
        spectrum = jnp.asarray(x["spectrum"], theta["time"].dtype)
        signal = self.signal(theta, spectrum, self.source(theta))
        product = jnp.sum(jnp.conj(signal) * data)
        turn = product / jnp.maximum(jnp.abs(product), 1e-6)
        return jnp.sum(jnp.abs(data - turn * signal) ** 2)

    def signal(self, theta: Theta, spectrum: Array, source: Array) -> Array:
        """Return the whitened, noiseless signal for phase 0, shape `(2, b)`."""
        nodes = jnp.asarray(self.bands.nodes, source.dtype)
        h = (source[0] + 1j * source[1]) / theta["distance"]
        plus, cross = waveforms.inclined(h, jnp.asarray(INCLINATION, source.dtype))
        sky = tuple(jnp.asarray(a, source.dtype) for a in self.sky)
        strain = detected(nodes, plus, cross, sky, theta["time"])
        return self.bands.whiten(strain * jnp.exp(-0.5 * self._log_power(spectrum)))

    def _log_power(self, spectrum: Array) -> Array:
        return jnp.reshape(spectrum, (2, -1)) @ jnp.asarray(self.knots, spectrum.dtype).T


def observe(segment: Segment, *, count: int = 144) -> tuple[Event, dict[str, np.ndarray]]:
    """Return the simulator for a segment of strain, and its data.

    Args:
        segment: From `data.segment`.
        count: Nodes of the grid.
    """
    examples = full_strain(segment.frequency, _examples())
    nodes = bands.spread(count, segment, examples, _reference)
    grid, data = bands.compress(segment, nodes, _reference)
    share = np.log(nodes / nodes[0]) / np.log(nodes[-1] / nodes[0]) * (KNOTS - 1)
    knots = np.maximum(0.0, 1.0 - np.abs(share[:, None] - np.arange(KNOTS)[None]))
    return Event(grid, knots, _sky()), {"strain": turned(data), "spectrum": np.zeros(2 * KNOTS)}


def turned(data: Array) -> Array:
    """Return whitened data without their phase, as real numbers: `(2, b)` to `(4 b,)`.

    On the heterodyned grid the reference waveform's own whitened data are real and positive, but
    for the grid's weights: the sum of all data has the phase by which the data differ from it.
    """
    total = jnp.sum(data)
    data = data * jnp.conj(total) / jnp.maximum(jnp.abs(total), 1e-6)
    return jnp.concatenate([data.real, data.imag]).reshape(-1)


def full_strain(frequency: np.ndarray, theta: Theta) -> np.ndarray:
    """Return both detectors' strain at any frequencies, in double precision, shape `(2, n)`.

    Parameter sets, each leaf of shape `(m,)`, give `(m, 2, n)`.
    """
    with jax.enable_x64(True):
        theta = {name: jnp.asarray(value, jnp.float64) for name, value in theta.items()}
        return np.asarray(_strain(jnp.asarray(frequency), theta, _sky()))


def mismatch(event: Event, segment: Segment, draws: Theta) -> np.ndarray:
    """Return what the grid loses of signals: 1 - overlap with those at all frequencies, `(n,)`.

    Args:
        event: With the grid.
        segment: The one it was made for; only its spectrum counts.
        draws: Parameter sets, each leaf of shape `(n,)`.
    """
    with jax.enable_x64(True):
        nodes = np.asarray(event.bands.nodes)
        whitener = np.sqrt(4.0 * segment.resolution) / segment.asd
        quiet = jnp.zeros(2 * KNOTS)
        model = jax.jit(lambda theta: event.signal(theta, quiet, event.source(theta)))
        found = []
        for row, strain in enumerate(full_strain(segment.frequency, draws)):
            theta = {name: jnp.asarray(values[row], float) for name, values in draws.items()}
            _, seen = bands.compress(segment._replace(strain=strain), nodes, _reference)
            signal = np.asarray(model(theta))
            overlap = abs(np.vdot(signal, seen)) / np.linalg.norm(signal)
            found.append(1.0 - overlap / np.linalg.norm(whitener * strain))
    return np.asarray(found)


@jax.jit
def _strain(frequency: Array, theta: Theta, sky: tuple[Array, ...]) -> Array:
    if jnp.ndim(theta["time"]):
        return jax.lax.map(lambda one: _strain(frequency, one, sky), theta)
    h = waveforms.aligned(frequency, theta) / theta["distance"]
    polarizations = waveforms.inclined(h, jnp.asarray(INCLINATION))
    return detected(frequency, *polarizations, sky, theta["time"])


def _sky() -> tuple[np.ndarray, ...]:
    with jax.enable_x64(True):
        angles = jnp.asarray([RA, DEC, POLARIZATION, sidereal(EVENT)])
        return tuple(np.asarray(a) for a in project(*angles))


def _examples(count: int = 64) -> Theta:
    """Return parameter sets all over the prior, the same ones in either precision."""
    with jax.enable_x64(True):
        return jax.vmap(prior().sample)(jax.random.split(jax.random.key(0), count))


def _reference(frequency: np.ndarray) -> np.ndarray:
    strain = full_strain(frequency, FIDUCIAL | {"distance": 1.0, "time": 0.5 * sum(TIMES)})
    return np.exp(1j * np.angle(strain))
