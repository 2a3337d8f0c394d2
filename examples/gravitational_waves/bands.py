"""Fewer frequencies without loss: data on the nodes of a multibanded, heterodyned grid.

Divided by a reference waveform, a signal is a smooth function of frequency, linear between a few
hundred nodes (heterodyning: Cornish 2010, arXiv:1007.4820; Zackay et al. 2018, arXiv:1806.08792).
What a Gaussian likelihood needs of the strain is then its product with each node's hat function,
and these products have a known, tridiagonal covariance. Its Cholesky factor whitens them: data of
independent unit noise, from which a network learns and of which the likelihood is a sum of squares.
Nodes are dense where ratios bend, at low frequencies (multibanding: Dax et al. 2024,
arXiv:2407.09602).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from scipy.ndimage import uniform_filter1d

from examples.gravitational_waves.data import Segment
from jaxsbi.base import Array
from jaxsbi.workarounds import register_dataclass

SMOOTH = 21
"""Frequencies over which the examples' curvature is averaged: lines of the noise move no nodes."""


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Bands:
    """A grid of nodes, and what whitens data on it.

    Attributes:
        nodes: Hz, shape `(b,)`.
        reference: The reference waveform's phase factor at the nodes, shape `(2, b)`.
        diagonal: Of the Cholesky factor of the nodes' information matrix, shape `(2, b)`.
        below: What is below the diagonal, shape `(2, b)`; the last number is 0.
    """

    nodes: Array
    reference: Array
    diagonal: Array
    below: Array

    def whiten(self, strain: Array) -> Array:
        """Return a noiseless signal's whitened data: strain at the nodes, `(2, b)`, to `(2, b)`.

        The noise of each, real and imaginary, has unit variance.
        """
        ratio = strain / jnp.asarray(self.reference, strain.dtype)
        diagonal, below = (jnp.asarray(a, ratio.real.dtype) for a in (self.diagonal, self.below))
        after = jnp.concatenate([ratio[:, 1:], jnp.zeros_like(ratio[:, :1])], axis=1)
        return diagonal * ratio + below * after


def spread(
    count: int,
    segment: Segment,
    strains: np.ndarray,
    reference: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return nodes in Hz on which example signals over the reference waveform are all but linear.

    What linear interpolation loses of a function's square integral is least where nodes are as
    dense as the fifth root of its second derivative's square (equidistribution: de Boor 1974, Good
    approximation by splines with variable knots II).

    Args:
        count: How many.
        segment: Its noise weighs the frequencies.
        strains: Examples of signals at all frequencies, `(m, 2, n)`.
        reference: As of `compress`.
    """
    ratios = strains * np.conj(reference(segment.frequency))
    weight = 1.0 / segment.asd
    size = np.sum(np.abs(ratios * weight) ** 2, axis=(1, 2))
    bend = np.gradient(np.gradient(ratios, axis=2), axis=2) * weight
    curvature = np.mean(np.sum(np.abs(bend) ** 2, axis=1) / size[:, None], axis=0)
    curvature = uniform_filter1d(curvature, SMOOTH, mode="nearest")
    # Somewhere signals end; nodes go on, a thousandth as dense.
    turns = np.cumsum(np.maximum(curvature, 1e-15 * np.max(curvature)) ** 0.2)
    return np.interp(np.linspace(turns[0], turns[-1], count), turns, segment.frequency)


def compress(
    segment: Segment, nodes: np.ndarray, reference: Callable[[np.ndarray], np.ndarray]
) -> tuple[Bands, np.ndarray]:
    """Return the grid of some nodes for a segment's noise, and its whitened data.

    Args:
        segment: Strain in frequency.
        nodes: Hz, shape `(b,)`.
        reference: The phase factor of a reference waveform in both detectors, from frequencies
            `(n,)` to `(2, n)`.

    Returns:
        The grid, and complex data, shape `(2, b)`.
    """
    place = np.clip(np.searchsorted(nodes, segment.frequency, "right") - 1, 0, len(nodes) - 2)
    share = (segment.frequency - nodes[place]) / np.diff(nodes)[place]
    hats = np.stack([1.0 - share, share])
    factors, data = [], []
    phases = reference(segment.frequency)
    for strain, asd, phase in zip(segment.strain, segment.asd, phases, strict=True):
        # Noise of variance 1 / (2 df) per real part times its spectrum: 4 df gives unit variance.
        whitener = np.sqrt(4.0 * segment.resolution) / asd
        products = _gather(hats * (whitener**2 * np.conj(phase) * strain)[None], place, len(nodes))
        diagonal = _gather((hats * whitener) ** 2, place, len(nodes))
        beside = np.bincount(place, hats[0] * hats[1] * whitener**2, len(nodes))
        # Nodes between which there are fewer than two frequencies can depend on one another.
        diagonal = diagonal * (1.0 + 1e-9)
        factor = scipy.linalg.cholesky_banded(np.stack([diagonal, beside]), lower=True)
        factors.append(factor)
        data.append(_solve(factor, products))
    diagonal, below = np.stack(factors, 1)
    below[:, -1] = 0.0
    return Bands(nodes, reference(nodes), diagonal, below), np.stack(data)


def _gather(parts: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """Return the sums over frequencies at each node, of parts for the left and the right one."""

    def sums(a: np.ndarray) -> np.ndarray:
        left, right = (np.bincount(place + side, a[side], count) for side in (0, 1))
        return left + right

    return sums(parts.real) + 1j * sums(parts.imag) if np.iscomplexobj(parts) else sums(parts)


def _solve(factor: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the solution of L y = rows for a bidiagonal L."""
    return scipy.linalg.solve_banded((1, 0), factor, rows)
