"""Observations and reference posteriors of the standard tasks, from the benchmark's own package.

They are read straight out of the published wheel `sbibm==1.1.0` (Lueckmann et al. 2021,
arXiv:2101.04653), which is neither installed nor imported. The wheel is looked for

1. where the caller, or the environment variable `JAXSBI_SBIBM_WHEEL`, says;
2. in the cache directory: `JAXSBI_CACHE`, or the platform's;
3. with `pip download`, once, into that directory;

and is used only if its SHA-256 is the published one.
"""

from __future__ import annotations

import bz2
import dataclasses
import functools
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

WHEEL = "sbibm-1.1.0-py2.py3-none-any.whl"
SHA256 = "12ecc6b4d327b92f9225f08faa6405e4274fb8e75943d86a53157d1b1bcfaf74"
NUM_OBSERVATIONS = 10
_REQUIREMENT = "sbibm==1.1.0"
_TIMEOUT = 300.0

# Task → the wheel's folder and the name of its observation files. The variants share a folder,
# true parameters and reference posteriors with the task they vary.
_FILES = {
    "two_moons": ("two_moons", "observation"),
    "slcp": ("slcp", "observation"),
    "slcp_distractors": ("slcp", "observation_distractors"),
    "gaussian_linear": ("gaussian_linear", "observation"),
    "gaussian_linear_uniform": ("gaussian_linear_uniform", "observation"),
    "gaussian_mixture": ("gaussian_mixture", "observation"),
    "bernoulli_glm": ("bernoulli_glm", "observation"),
    "bernoulli_glm_raw": ("bernoulli_glm", "observation_raw"),
    "sir": ("sir", "observation"),
    "lotka_volterra": ("lotka_volterra", "observation"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """One observation of a standard task, and what is known about its posterior.

    All arrays are float32, as the benchmark made them.

    Attributes:
        task: The name of the task.
        observation: The number of the observation, 1 to 10.
        x: The observed data, shape `(task.x_shape)`; counts and spikes are floats too.
        theta_true: The parameters `x` was simulated with, shape `(d,)`.
        posterior_samples: Reference draws, shape `(10000, d)`, columns as in `task.flatten`.
    """

    task: str
    observation: int
    x: np.ndarray
    theta_true: np.ndarray
    posterior_samples: np.ndarray


def reference(task: str, observation: int, *, wheel: str | Path | None = None) -> Reference:
    """Return an observation of a standard task and its reference posterior.

    Args:
        task: One of `jaxsbi.tasks.NAMES`.
        observation: 1 to 10.
        wheel: The path of `sbibm-1.1.0-py2.py3-none-any.whl`; by default it is looked for as the
            module's docstring says, and downloaded (18 MB) the first time.

    Raises:
        ValueError: If the task or the observation does not exist, or the wheel's hash is wrong.
        FileNotFoundError: If the wheel is not where the caller says.
        RuntimeError: If the wheel is not at hand and could not be downloaded.
    """
    if task not in _FILES:
        raise ValueError(f"task: expected one of {', '.join(_FILES)}; got {task!r}.")
    whole = isinstance(observation, int | np.integer) and not isinstance(observation, bool)
    if not whole or not 1 <= observation <= NUM_OBSERVATIONS:
        raise ValueError(
            f"observation: expected an integer from 1 to {NUM_OBSERVATIONS}, got {observation!r}."
        )
    folder, name = _FILES[task]
    shape = (4, 2) if task == "slcp" else (-1,)  # the published files are flat
    with zipfile.ZipFile(find_wheel(wheel)) as archive:
        base = f"sbibm/tasks/{folder}/files/num_observation_{observation}"
        return Reference(
            task=task,
            observation=int(observation),
            x=_csv(archive.read(f"{base}/{name}.csv"))[0].reshape(shape),
            theta_true=_csv(archive.read(f"{base}/true_parameters.csv"))[0],
            posterior_samples=_csv(
                bz2.decompress(archive.read(f"{base}/reference_posterior_samples.csv.bz2"))
            ),
        )


def find_wheel(path: str | Path | None = None) -> Path:
    """Return the path of the benchmark's wheel, checked by its hash; download it if need be.

    Args:
        path: The wheel, or the directory it lies in. By default the environment variable
            `JAXSBI_SBIBM_WHEEL`, else the cache directory.

    Raises:
        FileNotFoundError: If there is no wheel at a given path.
        ValueError: If a wheel has the wrong hash.
        RuntimeError: If the wheel could not be downloaded.
    """
    given = path or os.environ.get("JAXSBI_SBIBM_WHEEL")
    if given:
        found = Path(given).expanduser()
        found = found / WHEEL if found.is_dir() else found
        if not found.is_file():
            source = "the argument" if path else "the environment variable JAXSBI_SBIBM_WHEEL"
            raise FileNotFoundError(
                f"wheel: expected {WHEEL} at {found} (from {source}), found no such file. "
                "Correct the path, or leave it out to have the wheel downloaded."
            )
    else:
        found = cache_directory() / WHEEL
        if not found.is_file():
            _download(found)
    _check(found)
    return found


def cache_directory() -> Path:
    """Return the directory for downloads: `JAXSBI_CACHE`, or the platform's cache directory."""
    if given := os.environ.get("JAXSBI_CACHE"):
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "jaxsbi"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "jaxsbi"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "jaxsbi"


def _csv(text: bytes) -> np.ndarray:
    """Return the rows of a comma-separated table below its header, shape `(rows, columns)`."""
    return np.loadtxt(io.BytesIO(text), dtype=np.float32, delimiter=",", skiprows=1, ndmin=2)


def _check(wheel: Path) -> None:
    """Raise unless the file is the published wheel."""
    status = wheel.stat()
    digest = _digest(str(wheel), status.st_mtime_ns, status.st_size)
    if digest != SHA256:
        raise ValueError(
            f"wheel: expected {WHEEL} with SHA-256 {SHA256}, got {digest} for {wheel}. The file "
            "is damaged or another one: delete it to have it downloaded again, or give the path "
            "of the published wheel."
        )


@functools.lru_cache(maxsize=4)
def _digest(path: str, modified: int, size: int) -> str:
    """Return a file's SHA-256; its time and size are part of the key, so a new file is read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(target: Path) -> None:
    """Download the wheel to `target`, which appears complete and checked or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", scratch, _REQUIREMENT]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
            )
            message = done.stderr.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            message = str(error)
        wheel = Path(scratch) / WHEEL
        if not wheel.is_file():
            last = message.splitlines()[-1] if message else "pip left no such file"
            raise RuntimeError(
                f"The reference posteriors need {WHEEL}. Looked at the environment variable "
                f"JAXSBI_SBIBM_WHEEL (not set) and {target} (no such file), then "
                f"tried `{' '.join(command)}`: {last}. Without a network, run "
                f"`pip download --no-deps {_REQUIREMENT}` where there is one and set "
                "JAXSBI_SBIBM_WHEEL to the file's path."
            )
        _check(wheel)
        os.replace(wheel, target)
