"""Surrogates of waveforms: principal components and a network, in units of the total mass.

A binary's waveform depends on its mass only by scales, so a surrogate is learned once for all
masses: as a function of M f on a few hundred nodes, divided by the first terms of its
post-Newtonian expansion, without its arrival time and starting phase. What is left are slow
amplitudes and phases, of which few principal components are enough, as in mlgw (Schmidt et al.
2021, arXiv:2011.01958) and DANSur (Thomas et al. 2024, arXiv:2412.06946).

A precessing binary has two such functions: its strongest mode in the frame of the total angular
momentum, and the next mode's ratio to it, which holds both angles by which the orbit is turned;
the other three modes follow (Hannam et al. 2014, arXiv:1308.3271).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxsbi
from examples.gravitational_waves import families
from jaxsbi.base import Array, Fitted, Key, Simulations, Theta

LOWEST, HIGHEST, NODES, FINER = 0.004, 0.19, 256, 4
"""Of M f: 20 Hz at 40 solar masses, and far beyond the ringdown; nodes, and points from one to the
next where phases are followed."""
COMPONENTS = 20
ALIGNED = jaxsbi.Prior(
    mass_ratio=dist.Uniform(0.125, 1.0),
    chi1=dist.Uniform(-0.8, 0.8),
    chi2=dist.Uniform(-0.8, 0.8),
)
PRECESSING = jaxsbi.Prior(
    mass_ratio=dist.Uniform(0.25, 1.0),
    chi1=dist.Uniform(-0.7, 0.7),
    chi2=dist.Uniform(-0.7, 0.7),
    chip=dist.Uniform(0.0, 0.7),
)


def place(mf: Any) -> Any:
    """Return where M f is among the nodes, from 0 to `NODES - 1`: they are evenly spaced in it."""
    first, last = LOWEST ** (-1 / 3), HIGHEST ** (-1 / 3)
    return (NODES - 1) * (mf ** (-1 / 3) - first) / (last - first)


def grid(finer: int = 1) -> np.ndarray:
    """Return M f at the nodes and at evenly spaced places between them."""
    count = (NODES - 1) * finer + 1
    return np.linspace(LOWEST ** (-1 / 3), HIGHEST ** (-1 / 3), count) ** -3.0


def expansion(mf: Any, theta: Theta, xp: Any = jnp) -> tuple[Any, Any]:
    """Return amplitude and phase of the post-Newtonian expansion, in units of the mass.

    The phase to order 1.5, where spins first count (Poisson and Will 1995, arXiv:gr-qc/9502040).
    """
    q = theta["mass_ratio"]
    eta, heavy, light = q / (1 + q) ** 2, 1 / (1 + q), q / (1 + q)
    shares = [113 / 12 * share**2 + 25 / 4 * eta for share in (heavy, light)]
    spins = shares[0] * theta["chi1"] + shares[1] * theta["chi2"]
    v = (np.pi * mf) ** (1 / 3)
    series = 1 + (3715 / 756 + 55 / 9 * eta) * v**2 + (4 * spins - 16 * np.pi) * v**3
    amplitude = xp.sqrt(5 * eta / 24) * np.pi ** (-2 / 3) * mf ** (-7 / 6)
    return amplitude, -3 / (128 * eta) * series / v**5


def prepare(h: np.ndarray, theta: Theta) -> dict[str, np.ndarray]:
    """Return waveforms as they are learned.

    Args:
        h: On `grid(FINER)`, in double precision, shape `(n, …)`.
        theta: Their parameters, each `(n,)`.

    Returns:
        On the nodes: "h", divided by the expansion, without the part of the phase that is linear in
        frequency, 1 in phase at the first node; and "time", what was taken out, in units of M.
    """
    columns = {name: np.asarray(a, np.float64)[:, None] for name, a in theta.items()}
    amplitude, phase = expansion(grid(FINER)[None], columns, np)
    ratio = h / amplitude * np.exp(-1j * phase)
    phase = np.unwrap(np.angle(ratio), axis=1)[:, ::FINER]
    mf = grid()
    # Where a detector hears most: amplitude times the root of the nodes' distance.
    weight = mf ** (-7 / 6) * np.gradient(mf) ** 0.5
    line = np.polynomial.polynomial.polyfit(mf, phase.T, 1, w=weight)[1][:, None]
    phase = phase - line * mf[None]
    h = np.abs(ratio[:, ::FINER]) * np.exp(1j * (phase - phase[:, :1]))
    time = line / (2 * np.pi)
    return {"h": h.astype(np.complex64), "time": time.astype(np.float32)}


def aligned(family: str, theta: Theta) -> Simulations:
    """Return runs of a family of waveforms without precession, as they are learned."""
    h = families.waveforms(family, grid(FINER), theta)
    return jaxsbi.from_arrays(theta, prepare(h, theta))


def precessing(theta: Theta) -> Simulations:
    """Return runs of IMRPhenomPv2, as they are learned; "tilt" is the ratio of modes over chip."""
    found = families.modes(grid(FINER), theta)
    tilt = found[:, 1, ::FINER] / found[:, 0, ::FINER] / np.asarray(theta["chip"])[:, None]
    return jaxsbi.from_arrays(
        theta, prepare(found[:, 0], theta) | {"tilt": tilt.astype(np.complex64)}
    )


def draw(key: Key, prior: jaxsbi.Prior, n: int) -> Theta:
    """Return `n` parameter sets."""
    return jax.vmap(prior.sample)(jax.random.split(key, n))


def train(
    key: Key,
    prior: jaxsbi.Prior,
    rows: Simulations,
    about: dict[str, Any] | None = None,
    **options: Any,
) -> Fitted:
    """Learn a surrogate from runs; `about` is of `jaxsbi.emulator`, `options` of `jaxsbi.fit`."""
    forms = {name: "amplitude_phase" for name in ("h", "tilt") if name in rows.x}
    method = jaxsbi.emulator(components=COMPONENTS, transform=forms, exact=True, **(about or {}))
    return jaxsbi.fit(key, method, prior, rows, progress=False, **options)


def waveform(prediction: dict[str, Array], mf: Array, theta: Theta, *, timed: bool) -> Array:
    """Return a waveform at any M f from what a surrogate predicts (or `prepare` returned).

    Args:
        prediction: "h" and "time" of one waveform.
        mf: M f, shape `(k,)`; beyond the nodes there is nothing.
        theta: One parameter set.
        timed: Whether the arrival time is put back.

    Returns:
        Complex, in units of M^2 over the distance, and up to a phase, shape `(k,)`.
    """
    amplitude, phase = expansion(mf, theta)
    change = between(prediction["h"], mf)
    phase = phase + change[1]
    if timed:
        phase = phase + 2 * jnp.pi * mf * prediction["time"][0]
    inside = (mf >= LOWEST) & (mf <= HIGHEST)
    return jnp.where(inside, amplitude * jnp.exp(change[0] + 1j * phase), 0.0)


def between(h: Array, mf: Array) -> Array:
    """Return log-amplitude and phase between nodes, by cubics through four, shape `(2, k)`."""
    parts = jnp.stack([jnp.log(jnp.abs(h)), jnp.unwrap(jnp.angle(h))])
    at = jnp.clip(place(mf), 0.0, NODES - 1.0)
    first = jnp.clip(jnp.floor(at).astype(int) - 1, 0, NODES - 4)
    t = at - first
    weights = [
        -(t - 1) * (t - 2) * (t - 3) / 6,
        t * (t - 2) * (t - 3) / 2,
        -t * (t - 1) * (t - 3) / 2,
        t * (t - 1) * (t - 2) / 6,
    ]
    return sum(w[None] * parts[:, first + i] for i, w in enumerate(weights))


def seen(h: Array, tilt: Array, chip: Array, view: Array) -> Array:
    """Return the plus polarization of a precessing binary, shape `(k,)`.

    Args:
        h: Its strongest mode, shape `(k,)`.
        tilt: `between` of the surrogate's "tilt", shape `(2, k)`.
        chip: The precessing spin.
        view: Polar angle of the total angular momentum to the line of sight, phase of precession,
            and polarization angle.
    """
    # Half the ratio of the first two modes: the tangent of half the opening angle, and its phase.
    ratio = 0.5 * chip * jnp.exp(tilt[0] + 1j * tilt[1])
    factors = jnp.stack(
        [jnp.ones_like(ratio), 2 * ratio, 6**0.5 * ratio**2, 2 * ratio**3, ratio**4]
    )
    left, right = families.pattern(*view)
    return 0.5 * h * ((left + right) @ factors)
