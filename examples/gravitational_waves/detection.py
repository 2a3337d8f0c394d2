"""Is there a signal? Likelihood ratio, matched filter and a network on the same noise.

After Gabbard et al. 2018, arXiv:1712.06041: half a second of whitened data of one detector, with or
without a binary black hole. Times and masses are drawn from a finite bank, so that the likelihood
ratio, the best statistic there is (Neyman and Pearson), is a finite sum. The network compares two
models, "noise" and "signal", by convolutions.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import i0e, logsumexp

import jaxsbi
from examples.gravitational_waves import waveforms
from examples.gravitational_waves.data import LOWEST
from jaxsbi.base import Array, Key, Theta

RATE, SAMPLES = 512, 256
"""Samples per second, and samples of one data set."""
MASSES = (30.0, 60.0)
"""Of each of the two black holes, in solar masses."""
TIMES = (0.25, 0.40)
"""Seconds from the begin of the data to the merger."""
LOUDNESS = (3.0, 12.0)
"""Optimal signal-to-noise ratios of the training signals."""
LEVELS = (4.0, 6.0, 8.0, 10.0)
"""Optimal signal-to-noise ratios at which detection is measured."""


def bank(
    frequency: np.ndarray, asd: np.ndarray, *, masses: int = 32, times: int = 76, seed: int = 0
) -> np.ndarray:
    """Return whitened signals of unit norm: both quadratures, for each pair of masses and time.

    Args:
        frequency: Hz, shape `(n,)`.
        asd: Amplitude spectral density of the noise there.
        masses: Pairs of masses.
        times: Equally spaced times of the merger.
        seed: Of the pairs of masses.

    Returns:
        Orthonormal pairs, shape `(masses * times, 2, SAMPLES)`.
    """
    count = 8 * SAMPLES
    grid = np.fft.rfftfreq(count, 1.0 / RATE)
    use = (grid >= LOWEST) & (grid < RATE / 2)
    pairs = np.sort(np.random.default_rng(seed).uniform(*MASSES, (masses, 2)), 1)
    ratio = pairs[:, 0] / pairs[:, 1]
    chirp = (pairs[:, 0] * pairs[:, 1]) ** 0.6 / pairs.sum(1) ** 0.2
    theta = {"chirp_mass": chirp, "mass_ratio": ratio, "chi1": 0 * ratio, "chi2": 0 * ratio}
    with jax.enable_x64(True):
        h = np.asarray(jax.jit(jax.vmap(waveforms.aligned, (None, 0)))(grid[use], theta))
    whitened = np.zeros((masses, 1, grid.size), complex)
    whitened[:, 0, use] = h / np.interp(grid[use], frequency, asd)
    shift = np.exp(-2j * np.pi * grid * np.linspace(*TIMES, times)[:, None])
    both = (whitened * shift[None])[:, :, None] * np.array([1.0, 1j])[:, None]
    rows = np.fft.irfft(both, count)[..., :SAMPLES].reshape(-1, 2, SAMPLES)
    # At the edges of the data the quadratures are not quite orthogonal.
    first = rows[:, :1] / np.linalg.norm(rows[:, :1], axis=-1, keepdims=True)
    second = rows[:, 1:] - np.sum(rows[:, 1:] * first, -1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    return np.concatenate([first, second], 1).astype(np.float32)


def simulate_noise(key: Key, theta: Theta) -> Array:
    """Return whitened noise, shape `(SAMPLES, 1)`."""
    del theta
    return jax.random.normal(key, (SAMPLES, 1))


def simulate_signal(templates: Array, key: Key, theta: Theta) -> Array:
    """Return a signal in whitened noise; `theta` has its `loudness`, and `row`, its template."""
    key_phase, key_noise = jax.random.split(key)
    phase = jax.random.uniform(key_phase, maxval=2.0 * jnp.pi)
    pair = templates[jnp.clip(jnp.floor(theta["row"]).astype(int), 0, len(templates) - 1)]
    signal = jnp.cos(phase) * pair[0] + jnp.sin(phase) * pair[1]
    return theta["loudness"] * signal[:, None] + simulate_noise(key_noise, {})


def models(templates: np.ndarray) -> dict:
    """Return the two models to compare: name to prior and simulator."""
    row = dist.Uniform(0.0, float(len(templates)))
    signals = jaxsbi.Prior(loudness=dist.Uniform(*LOUDNESS), row=row)
    simulator = functools.partial(simulate_signal, jnp.asarray(templates))
    silence = jaxsbi.Prior(nothing=dist.Normal(0.0, 1.0))
    return {"noise": (silence, simulate_noise), "signal": (signals, simulator)}


def train(key: Key, templates: np.ndarray, n: int = 20_000) -> jaxsbi.Comparison:
    """Learn the probability of a signal from `n` simulations of each model."""
    network = jaxsbi.networks.Conv(features=(16, 16, 16), kernel=8, out=16, dims=1, hidden=32)
    return jaxsbi.compare(key, models(templates), n, summary=network, progress=False)


@jax.jit
def statistics(templates: Array, loudness: Array, x: Array) -> dict[str, Array]:
    """Return what the exact detectors say of many data sets `(n, SAMPLES, 1)`, each `(n,)`.

    "matched filter" is the largest signal-to-noise ratio in the bank; "likelihood ratio" the log of
    the ratio of evidences for signals of a known loudness, times, masses and phases integrated out.
    """

    def one(x: Array) -> dict[str, Array]:
        found = jnp.linalg.norm(templates @ x[:, 0], axis=-1)
        weights = jnp.log(i0e(loudness * found)) + loudness * found
        ratio = logsumexp(weights) - jnp.log(float(len(templates))) - 0.5 * loudness**2
        return {"matched filter": jnp.max(found), "likelihood ratio": ratio}

    return jax.lax.map(one, x, batch_size=16)


@jax.jit
def score(comparison: jaxsbi.Comparison, x: Array) -> Array:
    """Return the network's log-odds of a signal in many data sets, shape `(n,)`."""
    return jax.vmap(lambda x: comparison.log_bayes_factors(x, "noise")["signal"])(x)


def curve(noise: np.ndarray, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false-alarm and detection probabilities at every threshold, `(n + 1,)` each."""
    thresholds = np.concatenate([[np.inf], np.sort(noise)[::-1]])
    alarms = np.arange(len(thresholds)) / len(noise)
    detected = 1.0 - np.searchsorted(np.sort(signal), thresholds, "left") / len(signal)
    return alarms, detected


def area(noise: np.ndarray, signal: np.ndarray) -> float:
    """Return the area under the curve: how often a signal scores higher than noise."""
    ordered = np.sort(noise)
    below, above = (np.searchsorted(ordered, signal, side) for side in ("left", "right"))
    return float(np.mean(below + above) / (2 * len(noise)))
