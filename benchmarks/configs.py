"""What can be run: the methods by name, their configurations as readable JSON, the default plan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import jaxsbi

DRAWS = 10_000
"""Draws per record: as many as the reference posteriors have."""
KEPT_DRAWS = 2_000
"""Draws of each record that are kept for the figures."""
DEFAULT_BUDGETS, DEFAULT_OBSERVATIONS = (1_000,), (1,)
"""The ten-minute run: compiling takes most of it, so more simulations cost less than more tasks."""
DEFAULT_SCORED = 2_500
"""Draws that the ten-minute run compares with the reference: on ten-dimensional tasks the standard
C2ST of 10,000 draws takes 40 s of a core, as long as all the rest; and differs by about 0.01."""
DEFAULT_MAX_JOBS = 4
"""Processes of the ten-minute run; each needs about 1 GB of memory."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method of the benchmark.

    Attributes:
        make: Returns the method's configuration.
        road: "simulation-based" or "likelihood-based".
        text: One line for people.
        fit: Options for `jaxsbi.fit` other than its defaults.
        sets: Returns the configuration for data that the task declares exchangeable; `make` reads
            them as one vector.
        default: Whether it runs where no methods are asked for.
    """

    make: Callable[[], Any]
    road: str
    text: str
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sets: Callable[[], Any] | None = None
    default: bool = True

    def method(self, task: jaxsbi.tasks.Task) -> Any:
        """Return the method's configuration for a task."""
        return self.sets() if self.sets is not None and task.exchangeable else self.make()


def _npe_of_sets() -> Any:
    return jaxsbi.npe(summary=jaxsbi.networks.SortedSet())


def _spline() -> Any:
    return jaxsbi.densities.SplineAutoregressive(layers=2, hidden=64, activation="tanh")


METHODS: dict[str, Entry] = {
    "npe": Entry(
        jaxsbi.npe,
        "simulation-based",
        "neural posterior estimation, amortized draws",
        sets=_npe_of_sets,
    ),
    "nle": Entry(
        jaxsbi.nle,
        "simulation-based",
        "neural likelihood estimation + tempered SMC",
        sets=lambda: jaxsbi.nle(iid=True),
    ),
    "nre": Entry(
        jaxsbi.nre,
        "simulation-based",
        "contrastive neural ratio estimation + tempered SMC",
        sets=lambda: jaxsbi.nre(iid=True),
    ),
    "emulator": Entry(jaxsbi.emulator, "likelihood-based", "emulator + noise model + tempered SMC"),
    "nle_spline": Entry(
        lambda: jaxsbi.nle(density=_spline()),
        "simulation-based",
        "nle with two layers of splines",
        sets=lambda: jaxsbi.nle(density=_spline(), iid=True),
        default=False,
    ),
    "nle_mixture": Entry(
        lambda: jaxsbi.nle(density=jaxsbi.densities.GaussianMixture()),
        "simulation-based",
        "nle with a mixture of eight Gaussians",
        sets=lambda: jaxsbi.nle(density=jaxsbi.densities.GaussianMixture(), iid=True),
        default=False,
    ),
    "nle_ensemble": Entry(
        jaxsbi.nle,
        "simulation-based",
        "nle, a mixture of five",
        fit={"ensemble": 5},
        sets=lambda: jaxsbi.nle(iid=True),
        default=False,
    ),
    "nle_mixture_ensemble": Entry(
        lambda: jaxsbi.nle(density=jaxsbi.densities.GaussianMixture()),
        "simulation-based",
        "nle with a mixture of eight Gaussians, a mixture of five",
        fit={"ensemble": 5},
        sets=lambda: jaxsbi.nle(density=jaxsbi.densities.GaussianMixture(), iid=True),
        default=False,
    ),
    "npe_refit": Entry(
        jaxsbi.npe,
        "simulation-based",
        "npe, trained again on all data",
        fit={"refit": True},
        sets=_npe_of_sets,
        default=False,
    ),
    "npe_ensemble": Entry(
        jaxsbi.npe,
        "simulation-based",
        "npe, a mixture of five",
        fit={"ensemble": 5},
        sets=_npe_of_sets,
        default=False,
    ),
    "fmpe": Entry(jaxsbi.fmpe, "simulation-based", "flow matching", default=False),
    "npse": Entry(jaxsbi.npse, "simulation-based", "score-based diffusion", default=False),
    "joint": Entry(
        jaxsbi.joint, "simulation-based", "one transformer for any question", default=False
    ),
}
"""To add a method, add a line: its name is what `--methods` takes."""


def default_methods() -> tuple[str, ...]:
    """Return the names of the methods that run where none are asked for."""
    return tuple(name for name, entry in METHODS.items() if entry.default)


def task_names() -> tuple[str, ...]:
    """Return the names of the tasks."""
    return tuple(jaxsbi.tasks.NAMES)


def configuration(method: str) -> dict[str, Any]:
    """Return the readable configuration of a method, options of `fit` included."""
    entry = METHODS[method]
    found = describe(entry.make())
    if entry.sets is not None:
        found["sets"] = describe(entry.sets())
    if entry.fit:
        found["fit"] = describe(dict(entry.fit))
    return found


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return a short hash that two configurations share only if they are equal."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def describe(value: Any) -> Any:
    """Return a configuration (frozen dataclasses, Flax modules, tuples, arrays) as plain JSON.

    Arrays are told by shape and hash; functions and unknown objects by name, never by `repr`,
    which may hold an address that differs from run to run.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.name not in ("parent", "name")]
        return {"type": type(value).__name__} | {n: describe(getattr(value, n)) for n in fields}
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        array = np.ascontiguousarray(value)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:10]
        return {"array": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
    return getattr(value, "__qualname__", None) or type(value).__qualname__
