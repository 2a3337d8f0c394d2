"""Planck's 2018 likelihood, foregrounds marginalised out: plik-lite with two bins at low ℓ.

613 binned powers with a covariance (TT, TE, EE; ℓ = 30 … 2508; Planck Collaboration V 2020,
arXiv:1907.12875), two Gaussian bins of the temperature at ℓ < 30 (Prince & Dunkley 2019,
arXiv:1909.05869), and a Gaussian for the optical depth in place of the low-ℓ polarisation.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.io import FortranFile

from jaxsbi.base import Array
from jaxsbi.tasks.references import cache_directory

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
BINS = {"TT": 215, "TE": 199, "EE": 199}
LMIN = 2
"""Of the theory's spectra; the bins of plik-lite begin at ℓ = 30."""
# Prince & Dunkley's 2018 low-ℓ bins, ℓ = 2 … 15 and 16 … 29 with weights ∝ ℓ(ℓ+1): Cₗ and its
# variance. Their published log-likelihoods with and without the bins (-293.955865 and -291.334812)
# are met by these numbers to 2e-8.
LOW = ((2, 15), (16, 29))
LOW_POWER = (53.43946266415627, 9.695704299702811)
LOW_VARIANCE = (24.235023922831867, 0.345706135681528)

CALIBRATION = 0.0025
"""Standard deviation of Planck's absolute calibration about 1 (arXiv:1907.12875)."""
OPTICAL_DEPTH = (0.0506, 0.0086)
"""τ from the low-ℓ polarisation alone, "lowE" (Planck Collaboration V 2020, arXiv:1907.12875)."""


class PlanckLite(NamedTuple):
    """The likelihood: data, windows, and what makes residuals white.

    Attributes:
        data: Binned powers Cₗ over their standard deviations, shape `(615,)`: the two low TT bins,
            then TT, TE, EE.
        index: Places in the theory's concatenated TT, TE, EE spectra, shape `(615, width)`.
        weights: Of these places: Dₗ to the units of `data`; shape `(615, width)`.
        white: The inverse Cholesky factor of the data's correlations, shape `(615, 615)`.
    """

    data: Array
    index: Array
    weights: Array
    white: Array

    def bin(self, spectra: dict[str, Array]) -> Array:
        """Return the theory's bins in the units of `data`, shape `(615,)`.

        Args:
            spectra: `TT`, `TE`, `EE`: Dₗ = ℓ(ℓ+1)Cₗ/2π in μK² from ℓ = 2 on, shape `(2507,)`.
        """
        whole = jnp.concatenate([spectra[name] for name in SPECTRA])
        return jnp.sum(self.weights * whole[self.index], axis=1)

    def residual(self, spectra: dict[str, Array], calibration: Array | float = 1.0) -> Array:
        """Return residuals that are independent standard normals for the true theory, `(615,)`."""
        return self.white @ (self.data - self.bin(spectra) / calibration**2)

    def log_likelihood(self, spectra: dict[str, Array], calibration: Array | float = 1.0) -> Array:
        """Return -χ²/2."""
        return -0.5 * jnp.sum(self.residual(spectra, calibration) ** 2)


def planck_lite(low: bool = True, lmax: int = 2508) -> PlanckLite:
    """Read the likelihood's files; sums that need it are done in float64.

    Args:
        low: Include the two temperature bins at ℓ < 30.
        lmax: The last ℓ of the theory's spectra.
    """
    power, covariance = _data()
    first, last = (_table(name).astype(int) + 30 for name in ("blmin.dat", "blmax.dat"))
    weight = _table("bweight.dat")
    windows = []  # of each bin: places, and weights of Cₗ there
    for spectrum, name in enumerate(SPECTRA):
        for start, stop in zip(first[: BINS[name]], last[: BINS[name]], strict=True):
            ell = np.arange(start, stop + 1)
            windows.append((spectrum, ell, weight[ell - 30]))
    if low:
        tops = [np.arange(start, stop + 1.0) for start, stop in LOW]
        shapes = [ell * (ell + 1) for ell in tops]
        windows = [
            (0, ell.astype(int), w / w.sum()) for ell, w in zip(tops, shapes, strict=True)
        ] + windows
        power = np.concatenate([LOW_POWER, power])
        covariance = jax.scipy.linalg.block_diag(np.diag(LOW_VARIANCE), covariance)
    sigma = np.sqrt(np.diag(covariance))
    width = max(len(ell) for _, ell, _ in windows)
    index, weights = np.zeros((len(power), width), int), np.zeros((len(power), width))
    for row, (spectrum, ell, w) in enumerate(windows):
        index[row, : len(ell)] = spectrum * (lmax + 1 - LMIN) + ell - LMIN
        weights[row, : len(ell)] = w * 2 * np.pi / (ell * (ell + 1)) / sigma[row]
    white = np.linalg.inv(np.linalg.cholesky(covariance / np.outer(sigma, sigma)))
    return PlanckLite(*map(jnp.asarray, (power / sigma, index, weights, white)))


def _data() -> tuple[np.ndarray, np.ndarray]:
    """Return the high-ℓ powers Cₗ in μK², `(613,)`, and their covariance."""
    power = _table("cl_cmb_plik_v22.dat")[:, 1]
    with FortranFile(_file("c_matrix_plik_v22.dat"), "r") as file:
        stored = file.read_reals(float).reshape(power.size, power.size)
    lower = np.tril(stored, -1)  # one triangle is filled
    return power, lower + lower.T + np.diag(np.diag(stored))


def _table(name: str) -> np.ndarray:
    return np.loadtxt(_file(name))


def _file(name: str) -> Path:
    """Return a file of the likelihood, from `JAXSBI_DATA` or the publisher, checked by its hash."""
    folder = os.environ.get("JAXSBI_DATA")
    path = (Path(folder) if folder else cache_directory()) / "planck_lite" / name
    if not path.is_file() and not folder:
        path.parent.mkdir(parents=True, exist_ok=True)
        urllib.request.urlretrieve(PUBLISHER + name, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise ValueError(f"{path}: expected SHA-256 {SHA256[name]}, got {found}. Delete the file.")
    return path
