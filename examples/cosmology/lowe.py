"""Planck's 2018 likelihood of E at low ℓ, as published: tabulated, for it is far from normal.

SimAll's log-probability of each multipole ℓ = 2 … 29 given its power alone (Planck Collaboration V
2020, arXiv:1907.12875). `lowE.csv` has 61 values of each; cubic splines in the power's square root
follow the 3,000 of the published table within 0.001 below 0.15 μK².
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

from jaxsbi.base import Array

MULTIPOLES = 28
"""ℓ = 2 … 29: the first of the spectra."""
STEP = 4
"""Knots to a unit of the roots, which is about a standard deviation where the data know most."""


class LowE(NamedTuple):
    """What the likelihood is made of.

    Attributes:
        coefficients: Of the cubics between knots, highest power first, shape `(4, knots - 1, 28)`.
        top: The largest tabulated power Dₗ, in μK².
    """

    coefficients: Array
    top: Array

    def roots(self, ee: Array) -> Array:
        """Return the roots of powers Dₗ, shape `(28,)`, in units of about a standard deviation.

        Args:
            ee: Dₗ of EE in μK², from ℓ = 2.
        """
        return self.coefficients.shape[1] / STEP * jnp.sqrt(ee[:MULTIPOLES] / self.top)

    def log_likelihood(self, roots: Array) -> Array:
        """Return the log-probability of what was observed, a scalar; -inf beyond the table."""
        pieces = self.coefficients.shape[1]
        place = STEP * roots
        piece = jnp.clip(place.astype(int), 0, pieces - 1)
        cubic = self.coefficients[:, piece, jnp.arange(MULTIPOLES)]
        value = jnp.sum(jnp.polyval(cubic, place - piece))
        return jnp.where(jnp.all((place >= 0) & (place <= pieces)), value, -jnp.inf)


def lowe() -> LowE:
    """Read the likelihood."""
    power, *table = np.loadtxt(Path(__file__).parent / "lowE.csv", delimiter=",").T
    knots = np.arange(power.size)
    return LowE(jnp.asarray(CubicSpline(knots, np.transpose(table)).c), jnp.asarray(power[-1]))
