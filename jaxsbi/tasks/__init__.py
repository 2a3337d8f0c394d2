"""Standard problems: prior, simulator, and an exact or reference posterior.

The ten tasks of the simulation-based-inference benchmark (Lueckmann, Boelts, Greenberg,
Gonçalves and Macke 2021, arXiv:2101.04653), written from their definitions as pure JAX
functions, and the benchmark's own observations and reference posteriors.

    >>> from jaxsbi import tasks
    >>> task = tasks.get("two_moons")
    >>> task.x_shape, task.dim
    ((2,), 2)

`reference("two_moons", 1)` gives the first observation, the parameters it was made with and
10,000 draws of its posterior (see `jaxsbi.tasks.reference` for where they come from).
"""

from __future__ import annotations

import importlib

from jaxsbi.tasks.references import Reference, reference
from jaxsbi.tasks.task import Task

__all__ = ["NAMES", "Reference", "Task", "get", "names", "reference"]

# A task is built when it is asked for: importing jaxsbi makes no arrays and loads no ODE solver.
_FACTORIES = {
    "two_moons": ("two_moons", "two_moons"),
    "slcp": ("slcp", "slcp"),
    "slcp_distractors": ("slcp", "slcp_distractors"),
    "gaussian_linear": ("gaussian", "gaussian_linear"),
    "gaussian_linear_uniform": ("gaussian", "gaussian_linear_uniform"),
    "gaussian_mixture": ("gaussian", "gaussian_mixture"),
    "bernoulli_glm": ("bernoulli_glm", "bernoulli_glm"),
    "bernoulli_glm_raw": ("bernoulli_glm", "bernoulli_glm_raw"),
    "sir": ("sir", "sir"),
    "lotka_volterra": ("lotka_volterra", "lotka_volterra"),
}

NAMES: tuple[str, ...] = tuple(_FACTORIES)
"""The names `get` and `reference` accept."""


def names() -> tuple[str, ...]:
    """Return the names of the standard tasks."""
    return NAMES


def get(name: str) -> Task:
    """Return a standard task by name.

    Args:
        name: One of `jaxsbi.tasks.NAMES`.

    Raises:
        ValueError: If there is no task of that name.
    """
    if name not in _FACTORIES:
        raise ValueError(f"task: expected one of {', '.join(NAMES)}; got {name!r}.")
    module, factory = _FACTORIES[name]
    return getattr(importlib.import_module(f"jaxsbi.tasks.{module}"), factory)()
