"""The probability-flow ODE of a field: draws, and their density.

In the coordinates of `fields/paths.py` it is `du/dphi = -F`, whatever the path. The angle is
traversed as `phi = widest * (1 - s)^power`, with equal steps in s: small ones close to the data,
where a narrow posterior bends the flow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration, warn
from jaxsbi.batching import over_draws
from jaxsbi.fields.paths import log_ratio

Rotation = Callable[[Array, Array], Array]
"""A field with its context: noise level (a scalar) and `u` `(d,)` → F `(d,)`."""

SOLVERS = {
    "euler": "Euler",
    "heun": "Heun",
    "midpoint": "Midpoint",
    "ralston": "Ralston",
    "bosh3": "Bosh3",
    "tsit5": "Tsit5",
    "dopri5": "Dopri5",
    "dopri8": "Dopri8",
}
"""Names of diffrax's solvers."""
PROBE_SEED = 0
"""Seed of the fixed random probes of the trace in many dimensions: a density is a function."""


class FieldInfo(NamedTuple):
    """What a solver reports.

    Attributes:
        num_steps: Steps taken.
        failed: Whether the solver gave up; draws of the ODE are then NaN, of the SDE some.
    """

    num_steps: Array
    failed: Array

    def warn(self) -> None:
        """Warn (on the host) of draws that are NaN."""
        if bool(jnp.any(self.failed)):
            warn(
                "fields: draws are NaN, for the solver gave up, or the field has no value there. "
                "Raise the sampler's tolerance or take fixed steps (tolerance=None); if that does "
                "not help, look at the training's losses."
            )


@configuration
class ODE:
    """A solver of the probability-flow ODE (arXiv:2011.13456), by diffrax.

    Attributes:
        steps: Steps from noise to data.
        solver: One of `SOLVERS`.
        power: How much finer the steps are close to the data; 1 for equal angles.
        tolerance: Adapt the steps to this relative and absolute error instead; `steps` then
            sizes the first one. `None` for fixed steps.
        density_steps: Steps for the density, whose error adds up along the path.
        exact_dim: Up to so many dimensions the divergence is exact; above, Hutchinson's estimate.
        probes: Random vectors of that estimate; they are the same for every point.
    """

    steps: int = 10
    solver: str = "bosh3"
    power: float = 3.0
    tolerance: float | None = None
    density_steps: int = 32
    exact_dim: int = 16
    probes: int = 8

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If the solver is not known, or a number is out of its range.
        """
        if self.solver not in SOLVERS:
            raise ValueError(f"solver: expected one of {sorted(SOLVERS)}, got {self.solver!r}.")
        if self.tolerance is not None and not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance: expected between 0 and 1, got {self.tolerance}.")
        if self.tolerance is not None and self.solver == "euler":
            raise ValueError("tolerance: euler has no error estimate; use 'tsit5'.")
        if min(self.steps, self.density_steps, self.probes) < 1 or self.power < 1.0:
            raise ValueError(
                "ode: expected steps, density_steps, probes and power of at least 1, got "
                f"{self.steps}, {self.density_steps}, {self.probes} and {self.power}."
            )

    def __call__(
        self, key: Key, rotation: Rotation, dim: int, n: int, widest: Array
    ) -> tuple[Array, FieldInfo]:
        """Draw `n` points.

        All draws are one system: they share steps, and what the noise level costs.

        Args:
            key: A typed key.
            rotation: The field, for one point.
            dim: The number of dimensions.
            n: The number of draws.
            widest: The angle to begin at.

        Returns:
            Draws, shape `(n, dim)`, and the solver's report.
        """
        start = jax.random.normal(key, (n, dim), widest.dtype)
        slope = self._slope(rotation, widest)
        z, info = self._solve(slope, 0.0, 1.0, self.steps, start)
        return jnp.where(info.failed, jnp.nan, z), info

    def path(
        self, key: Key, rotation: Rotation, dim: int, n: int, widest: Array, points: int
    ) -> Array:
        """Return the way of `n` draws from noise to data, shape `(points, n, dim)`."""
        start = jax.random.normal(key, (n, dim), widest.dtype)
        slope = self._slope(rotation, widest)
        at = jnp.linspace(0.0, 1.0, points)
        return self._solve(slope, 0.0, 1.0, self.steps, start, at)[0]

    def _slope(self, rotation: Rotation, widest: Array) -> Any:
        def slope(s: Array, u: Array, _: Any) -> Array:
            angle, rate = angle_at(s, widest, self.power)
            return -rate * over_draws(functools.partial(rotation, noise_at(angle)), u)

        return slope

    def log_prob(self, rotation: Rotation, z: Array, widest: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, under the flow."""
        z = z.astype(float)  # as the solver's times, in double precision too
        probes = self._probes(z)

        def slope(s: Array, state: tuple[Array, Array], _: Any) -> tuple[Array, Array]:
            angle, rate = angle_at(s, widest, self.power)
            noise = noise_at(angle)
            F, push = jax.linearize(lambda u: rotation(noise, u), state[0])
            trace = jnp.sum(jax.vmap(push)(probes) * probes) * (z.size / jnp.sum(probes**2))
            return -rate * F, -rate * trace

        state = (z, jnp.zeros((), z.dtype))
        (u, change), info = self._solve(slope, 1.0, 0.0, self.density_steps, state)
        value = jnp.sum(jax.scipy.stats.norm.logpdf(u)) + change
        return jnp.where(info.failed, jnp.nan, value)

    def _probes(self, z: Array) -> Array:
        if z.size <= self.exact_dim:
            return jnp.eye(z.size, dtype=z.dtype)
        key = jax.random.key(PROBE_SEED)
        return jax.random.rademacher(key, (self.probes, z.size), z.dtype)

    def _solve(
        self,
        slope: Any,
        begin: float,
        end: float,
        steps: int,
        state: Any,
        at: Array | None = None,
    ) -> tuple[Any, FieldInfo]:
        """Return the state at the end, or at the times `at`, and the solver's report."""
        import diffrax  # slow to import

        controller: Any
        if self.tolerance is None:
            controller, dt0, most = diffrax.StepTo(jnp.linspace(begin, end, steps + 1)), None, steps
        else:
            controller = diffrax.PIDController(rtol=self.tolerance, atol=self.tolerance)
            dt0, most = (end - begin) / steps, 4096
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            getattr(diffrax, SOLVERS[self.solver])(),
            t0=begin,
            t1=end,
            dt0=dt0,
            y0=state,
            stepsize_controller=controller,
            max_steps=most,
            throw=False,
            saveat=diffrax.SaveAt(t1=True) if at is None else diffrax.SaveAt(ts=at),
        )
        failed = solution.result != diffrax.RESULTS.successful
        ys = solution.ys if at is not None else jax.tree.map(lambda a: a[0], solution.ys)
        return ys, FieldInfo(solution.stats["num_steps"], failed)


def angle_at(s: Array, widest: Array, power: float) -> tuple[Array, Array]:
    """Return `widest * (1 - s)^power`, and its derivative by s."""
    left = jnp.maximum(1.0 - s, 0.0).astype(widest.dtype)
    return widest * left**power, -widest * power * left ** (power - 1.0)


def noise_at(angle: Array) -> Array:
    """Return the noise level of an angle, log tan(phi), finite at both ends."""
    return log_ratio(jnp.cos(angle), jnp.sin(angle))


def ode(
    *,
    steps: int = 10,
    solver: str = "bosh3",
    power: float = 3.0,
    tolerance: float | None = None,
    density_steps: int = 32,
) -> ODE:
    """Return the configuration of a probability-flow ODE solver.

    Args:
        steps: Steps from noise to data.
        solver: A solver's name: "heun", "midpoint", "bosh3", "tsit5", "dopri8" …
        power: How much finer the steps are close to the data; 1 for equal angles.
        tolerance: Adapt the steps to this error instead of fixing their number.
        density_steps: Steps for the density.

    Raises:
        ValueError: If the solver is not known, or a number is out of its range.
    """
    return ODE(
        steps=steps, solver=solver, power=power, tolerance=tolerance, density_steps=density_steps
    )
