"""Planck's 2018 likelihood in its published compressed form, as residuals of unit variance.

- ℓ = 30 … 2508: plik-lite, 613 binned TT, TE and EE powers with a covariance, foregrounds
  marginalised out (Planck Collaboration V 2020, arXiv:1907.12875);
- ℓ = 2 … 29: two log-normal bins of TT and three of EE, which fix the optical depth (Prince &
  Dunkley 2022, arXiv:2104.05715).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.io import FortranFile

from jaxsbi.base import Array
from jaxsbi.tasks.published import fetch

PUBLISHER = (
    "https://raw.githubusercontent.com/heatherprince/planck-lite-py/master/data/"
    "planck2018_plik_lite/"
)
SHA256 = {
    "blmin.dat": "325b351cbf8f694556bb13e98f285344e8d66811bb8eef18bcdcf1626518719d",
    "blmax.dat": "c28ade0fa5270c7e87ba07bdcb68aef8783b132b352bfaa36c04d17694ab4014",
    "bweight.dat": "8afcbd8bad769e2de96bacd80177e6543f96b2b406e6c2da1fd0d26718c9e415",
    "cl_cmb_plik_v22.dat": "dac0d9d493213e77c940a10a968cf0da3c5730bae60e1356c4cd8bcff96377ff",
    "c_matrix_plik_v22.dat": "ad90378c50bd67841764179c90ae6711fa4317c649966ab2b0712143b31e0a32",
}
SPECTRA = ("TT", "TE", "EE")
BINS = (215, 199, 199)
LMIN, HIGH, LMAX = 2, 30, 2508
# ln(D - shift) of the mean Dₗ of the range, in μK², has this mean and standard deviation: the
# published fits (planck-low-py, version of 2022).
LOW = (
    # spectrum, first ℓ, last ℓ, mean, standard deviation, shift
    ("TT", 2, 15, 6.717116274813354, 0.09246982093348896, 0.0),
    ("TT", 16, 29, 6.733861137941956, 0.06038337798709543, 0.0),
    ("EE", 2, 5, -3.2021233001783513, 0.5113593277417658, 0.0),
    ("EE", 6, 9, -3.9973872345587576, 0.3458173615714616, -0.01851179682534038),
    ("EE", 10, 29, -3.3584130481065722, 0.1138409519592051, -0.03462076357220606),
)
CALIBRATION = 0.0025
"""Standard deviation of Planck's absolute calibration about 1 (arXiv:1907.12875)."""

Spectra = dict[str, Array]
"""`TT`, `TE`, `EE`: Dₗ = ℓ(ℓ+1)Cₗ/2π in μK², ℓ = 2 … 2508, each of shape `(2507,)`."""


class Planck(NamedTuple):
    """What the likelihood is made of.

    Attributes:
        data: The observation, shape `(618,)`: independent numbers of unit variance. The first 613
            are the bins of plik-lite, the others those at low ℓ.
        index: Places of plik-lite's bins in the concatenated spectra, shape `(613, width)`.
        weights: Of these places: Dₗ to bins over standard deviations, shape `(613, width)`.
        white: The inverse Cholesky factor of the bins' correlations, shape `(613, 613)`.
        shift, scale: Of the logarithms at low ℓ, shape `(5,)`.
    """

    data: Array
    index: Array
    weights: Array
    white: Array
    shift: Array
    scale: Array

    def mean(self, spectra: Spectra) -> Array:
        """Return the expectation of `data` for a calibration of 1, shape `(618,)`."""
        whole = jnp.concatenate([spectra[name] for name in SPECTRA])
        high = self.white @ jnp.sum(self.weights * whole[self.index], axis=1)
        ranges = [spectra[name][a - LMIN : b + 1 - LMIN] for name, a, b, *_ in LOW]
        low = jnp.stack([jnp.mean(power) for power in ranges])
        return jnp.concatenate([high, jnp.log(low - self.shift) / self.scale])

    def log_likelihood(self, mean: Array, calibration: Array | float = 1.0) -> Array:
        """Return -χ²/2, a scalar: the published likelihoods but for a constant."""
        return -0.5 * jnp.sum((self.data - calibrate(mean, calibration)) ** 2)


def calibrate(mean: Array, calibration: Array | float) -> Array:
    """Return the expectation of the data for a calibration, which the bins at low ℓ have not."""
    low = len(LOW)
    return jnp.concatenate([mean[:-low] / calibration**2, mean[-low:]])


def planck() -> Planck:
    """Read the likelihood's files; what needs it is computed in float64."""
    power, covariance = _bins()
    sigma = np.sqrt(np.diag(covariance))
    white = np.linalg.inv(np.linalg.cholesky(covariance / np.outer(sigma, sigma)))
    index, weights = _windows()
    *_, mean, scale, shift = (np.array(column) for column in zip(*LOW, strict=True))
    # As a function of the theory's D, a log-normal density is the likelihood of a datum with
    # normal errors about ln(D - shift): completing the square moves it by the variance.
    low = (mean - scale**2) / scale
    data = np.concatenate([white @ (power / sigma), low])
    arrays = (data, index, weights / sigma[:, None], white, shift, scale)
    return Planck(*(jnp.asarray(array) for array in arrays))


def low_constant() -> float:
    """Return what the five log-normal densities have beside -χ²/2."""
    *_, mean, scale, _ = (np.array(column) for column in zip(*LOW, strict=True))
    return float(np.sum(scale**2 / 2 - mean - np.log(scale) - 0.5 * np.log(2 * np.pi)))


def _bins() -> tuple[np.ndarray, np.ndarray]:
    """Return plik-lite's powers Cₗ in μK², `(613,)`, and their covariance."""
    power = np.loadtxt(_file("cl_cmb_plik_v22.dat"))[:, 1]
    with FortranFile(_file("c_matrix_plik_v22.dat"), "r") as file:
        stored = file.read_reals(float).reshape(power.size, power.size)
    lower = np.tril(stored, -1)  # one triangle is filled
    return power, lower + lower.T + np.diag(np.diag(stored))


def _windows() -> tuple[np.ndarray, np.ndarray]:
    """Return the places in the concatenated Dₗ of each bin, and their weights for its Cₗ."""
    first, last = (
        np.loadtxt(_file(name)).astype(int) + HIGH for name in ("blmin.dat", "blmax.dat")
    )
    weight = np.loadtxt(_file("bweight.dat"))
    width = int(np.max(last - first)) + 1
    index, weights = np.zeros((sum(BINS), width), int), np.zeros((sum(BINS), width))
    rows = [(spectrum, b) for spectrum, count in enumerate(BINS) for b in range(count)]
    for row, (spectrum, b) in enumerate(rows):
        ell = np.arange(first[b], last[b] + 1)
        index[row, : ell.size] = spectrum * (LMAX + 1 - LMIN) + ell - LMIN
        weights[row, : ell.size] = weight[ell - HIGH] * 2 * np.pi / (ell * (ell + 1))
    return index, weights


def _file(name: str) -> Path:
    """Return a file of the likelihood, from `JAXSBI_DATA` or the publisher, checked by its hash."""
    return fetch("planck_lite", name, PUBLISHER + name, SHA256[name])
