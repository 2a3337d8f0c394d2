"""The public data of GW150914: strain, noise spectra and a published posterior.

Files are looked for in the folder `gw150914` of the one that the environment variable JAXSBI_DATA
names; otherwise they are downloaded once, and their hash is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import scipy.signal

from jaxsbi.tasks.published import fetch

DETECTORS = ("H1", "L1")
EVENT = 1126259462.4
"""GPS seconds to which times of coalescence are relative."""
START, RATE = 1126259446, 4096
"""Of the strain files: GPS seconds of the first sample, and samples per second."""
LOWEST = 20.0
"""Hz: neither the waveforms nor the spectra are used below."""

_GWOSC = "https://gwosc.org/s/events/GW150914"
_GITHUB = "https://raw.githubusercontent.com"
FILES = {
    "H-H1_LOSC_4_V2-1126259446-32.hdf5": (
        f"{_GWOSC}/H-H1_LOSC_4_V2-1126259446-32.hdf5",
        "fa170ebc577652bfeb5c4b9d2a2d713eef8a4b2996b198b749692446fa7a163c",
    ),
    "L-L1_LOSC_4_V2-1126259446-32.hdf5": (
        f"{_GWOSC}/L-L1_LOSC_4_V2-1126259446-32.hdf5",
        "3fccf5c091b3542ff348e36da217afa3220ced2137a53a2838f5a3d41d622e72",
    ),
    "asd_dataset_GW150914.hdf5": (
        f"{_GITHUB}/dingo-gw/flow-matching-posterior-estimation/"
        "3b50430d49bb3e59eec8f03208437fd4fa6fed63/gravitational-waves/datasets/"
        "asd_dataset_GW150914.hdf5",
        "157256ea38af866295b7a0474681e0f0ee34c8ac1d439777dc6d01c1aff17cee",
    ),
    "gw150914_posteriors_thinned.hdf": (
        f"{_GITHUB}/gwastro/pycbc-inference-paper/master/posteriors/"
        "gw150914_posteriors_thinned.hdf",
        "5df979972a28fba2e5c57c1d0757d0197da1031fabc0a51c7e1cda562fc3adf9",
    ),
}
"""File → where its publisher has it, and the SHA-256 of its content."""


class Segment(NamedTuple):
    """Strain of both detectors in frequency.

    Attributes:
        frequency: Hz, equally spaced, shape `(n,)`.
        strain: Complex Fourier transform (strain per Hz) with phases relative to `EVENT`, shape
            `(2, n)`.
        asd: Amplitude spectral density of the noise (strain per root Hz), shape `(2, n)`.
    """

    frequency: np.ndarray
    strain: np.ndarray
    asd: np.ndarray

    @property
    def resolution(self) -> float:
        """The spacing of frequencies in Hz."""
        return float(self.frequency[1] - self.frequency[0])


def find(name: str) -> Path:
    """Return the path of a data file, after downloading it if there is none.

    Raises:
        ValueError: If its content is not what was published.
    """
    return fetch("gw150914", name, *FILES[name])


def strain(detector: str) -> np.ndarray:
    """Return 32 s of strain at 4096 Hz from `START` on."""
    with h5py.File(find(f"{detector[0]}-{detector}_LOSC_4_V2-{START}-32.hdf5")) as file:
        return file["strain/Strain"][()]


def spectrum(detector: str, frequency: np.ndarray) -> np.ndarray:
    """Return the amplitude spectral density around the event at some frequencies above 20 Hz."""
    with h5py.File(find("asd_dataset_GW150914.hdf5")) as file:
        values = file[f"asds/{detector}"][0]
    grid = np.arange(len(values)) / 8.0
    return np.interp(frequency, grid[grid >= LOWEST], values[grid >= LOWEST])


def segment(
    begin: float = EVENT - 6.0,
    duration: float = 8.0,
    *,
    highest: float = 512.0,
    taper: float = 0.4,
    memory: float | None = None,
    extra: np.ndarray | None = None,
) -> Segment:
    """Return a piece of the event's strain in frequency.

    Args:
        begin: GPS seconds of its begin (rounded to a sample).
        duration: Its length in seconds.
        highest: Upper end of the frequencies in Hz.
        taper: Seconds at each end that a Tukey window fades.
        memory: Seconds that the whitening filter is cut to (a smoother spectrum); `None`: as is.
        extra: Strain to add in time, shape `(2, n)`: a glitch, say.
    """
    first, count = round((begin - START) * RATE), round(duration * RATE)
    begin = START + first / RATE
    frequency = np.fft.rfftfreq(count, 1.0 / RATE)
    use = (frequency >= LOWEST) & (frequency < highest)
    window = scipy.signal.windows.tukey(count, 2.0 * taper / duration)
    strains, asds = [], []
    for row, detector in enumerate(DETECTORS):
        x = _above(15.0, strain(detector))[first : first + count]
        x = x if extra is None else x + extra[row]
        strains.append(
            np.fft.rfft(window * x) / RATE * np.exp(-2j * np.pi * frequency * (begin - EVENT))
        )
        asd = spectrum(detector, frequency)
        asds.append(asd if memory is None else _smooth(asd, frequency, memory))
    return Segment(frequency[use], np.stack(strains)[:, use], np.stack(asds)[:, use])


def published_segment() -> Segment:
    """Return the strain as the published analysis read it: 16 s, not tapered.

    Its noise spectrum was a median over 1,040 s that are not in the files here; the spectrum is
    that of `spectrum`, with the whitening filter cut to 4 s as there.
    """
    return segment(1126259452.0, 16.0, highest=1024.0, taper=0.0, memory=4.0)


def published() -> dict[str, np.ndarray]:
    """Return the published draws by name, each `(8400,)`, and their log-likelihood ratios."""
    with h5py.File(find("gw150914_posteriors_thinned.hdf")) as file:
        draws = {name: values[()] for name, values in file["samples"].items()}
        return draws | {"log_ratio": file["likelihood_stats/loglr"][()]}


def _above(edge: float, x: np.ndarray) -> np.ndarray:
    """Remove what is slower than `edge` Hz, without a shift in time."""
    filters = scipy.signal.butter(8, edge, "highpass", fs=RATE, output="sos")
    return scipy.signal.sosfiltfilt(filters, x)


def _smooth(asd: np.ndarray, frequency: np.ndarray, seconds: float) -> np.ndarray:
    """Cut the whitening filter 1 / asd to a length in time."""
    band = (frequency >= LOWEST) & (frequency < 1024.0)
    scale = asd[band].min()
    filtered = np.fft.irfft(np.where(band, scale / asd, 0.0))
    half = round(seconds * RATE / 2.0)
    filtered[half : len(filtered) - half] = 0.0
    return scale / np.maximum(np.abs(np.fft.rfft(filtered)), 1e-12)
