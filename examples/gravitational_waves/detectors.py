"""Where the detectors are, and how they respond to a source in the sky.

Positions and responses: LIGO-T980044 (as in LALDetectors.h). A test compares antenna patterns and
delays with LALSuite's.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array

LIGHT = 299792458.0
SIDEREAL_DAY = 86164.0905
VERTEX = np.array(
    [
        [-2161414.92636, -3834695.17889, 4600350.22664],
        [-74276.0447238, -5496283.71971, 3224257.01744],
    ]
)
"""Hanford and Livingston, metres from the Earth's centre."""
X_ARM = np.array(
    [
        [-0.22389266154, 0.79983062746, 0.55690487831],
        [-0.95457412153, -0.14158077340, -0.26218911324],
    ]
)
Y_ARM = np.array(
    [
        [-0.91397818574, 0.02609403989, -0.40492342125],
        [0.29774156894, -0.48791033647, -0.82054461286],
    ]
)
RESPONSE = 0.5 * (X_ARM[:, :, None] * X_ARM[:, None, :] - Y_ARM[:, :, None] * Y_ARM[:, None, :])


def sidereal(gps: float) -> float:
    """Return Greenwich mean sidereal time in radians, for GPS times from July 2015 to 2016.

    IAU 1982, with UT1 = UTC and the 17 leap seconds of those months.
    """
    days = (gps - 17.0 - 630763200.0) / 86400.0  # from noon of 1 January 2000
    centuries = days / 36525.0
    seconds = (
        67310.54841
        + (876600.0 * 3600.0 + 8640184.812866) * centuries
        + 0.093104 * centuries**2
        - 6.2e-6 * centuries**3
    )
    return float(np.mod(seconds, 86400.0) * 2.0 * np.pi / 86400.0)


def project(ra: Array, dec: Array, psi: Array, sidereal_time: Array) -> tuple[Array, Array, Array]:
    """Return the antenna patterns F+ and Fx, and the delay from the Earth's centre.

    Args:
        ra: Right ascension.
        dec: Declination.
        psi: Polarization angle.
        sidereal_time: Greenwich mean sidereal time; all in radians.

    Returns:
        Three arrays of shape `(2,)`, Hanford and Livingston; delays in seconds.
    """
    hour = sidereal_time - ra
    sin_h, cos_h, sin_d, cos_d = jnp.sin(hour), jnp.cos(hour), jnp.sin(dec), jnp.cos(dec)
    east = jnp.stack([-sin_h, -cos_h, 0.0 * hour])
    north = jnp.stack([-cos_h * sin_d, sin_h * sin_d, cos_d])
    x = jnp.cos(psi) * east + jnp.sin(psi) * north
    y = jnp.cos(psi) * north - jnp.sin(psi) * east
    response = jnp.asarray(RESPONSE, x.dtype)
    plus = jnp.einsum("i,dij,j->d", x, response, x) - jnp.einsum("i,dij,j->d", y, response, y)
    cross = 2.0 * jnp.einsum("i,dij,j->d", x, response, y)
    source = jnp.stack([cos_h * cos_d, -sin_h * cos_d, sin_d])
    return plus, cross, -jnp.asarray(VERTEX, x.dtype) @ source / LIGHT
