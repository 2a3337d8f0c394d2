"""The probability-flow ODE of a field: draws, and their density.

In the coordinates of `fields/paths.py` it is `du/dphi = -F`, whatever the path. The angle is
traversed so that a step is the smaller of a share of phi, down to phi = c (`finest`), and of a
constant: ds is proportional to dphi (1 / sqrt(phi² + c²) + 1). A posterior of width w, in the
prior's, bends the flow at phi = w, and separate modes bend it at large phi. With the default steps,
widths of exact normal posteriors come out within 0.5 % for w from 1 to 0.03, and 0.8, 1.4 and 2.9 %
too small for w = 0.01, 0.003 and 0.001; those of the density, of more steps, within 0.1 %.
"""

from __future__ import annotations

import dataclasses
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
FINEST = 3e-3
"""See `ODE.finest`."""
NEWTON = 6  # steps to an angle: the last digits of double precision
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
        finest: Angle down to which steps shrink in proportion to it. Posteriors that are narrower
            than this share of the prior need more steps.
        tolerance: Adapt the steps to this relative and absolute error instead; `steps` then
            sizes the first one. `None` for fixed steps.
        density_steps: Steps for the density, whose error adds up along the path.
        exact_dim: Up to so many dimensions the divergence is exact; above, Hutchinson's estimate.
        probes: Random vectors of that estimate; they are the same for every point.
    """

    steps: int = 20
    solver: str = "bosh3"
    finest: float = FINEST
    tolerance: float | None = None
    density_steps: int = 48
    exact_dim: int = 64
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
        if min(self.steps, self.density_steps, self.probes) < 1 or self.finest <= 0.0:
            raise ValueError(
                "ode: expected steps, density_steps and probes of at least 1 and finest > 0, got "
                f"{self.steps}, {self.density_steps}, {self.probes} and {self.finest}."
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

    @property
    def as_density(self) -> ODE:
        """The solver whose draws follow its density, for weights: with as many steps."""
        return dataclasses.replace(self, steps=max(self.steps, self.density_steps))

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
            angle, rate = angle_at(s, widest, self.finest)
            return -rate * over_draws(functools.partial(rotation, noise_at(angle)), u)

        return slope

    def log_prob(self, rotation: Rotation, z: Array, widest: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, under the flow."""
        z = z.astype(float)  # as the solver's times, in double precision too
        probes = self._probes(z)

        def slope(s: Array, state: tuple[Array, Array], _: Any) -> tuple[Array, Array]:
            angle, rate = angle_at(s, widest, self.finest)
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
            adjoint: Any = diffrax.DirectAdjoint()  # also forwards: for Hessians
        else:
            controller = diffrax.PIDController(rtol=self.tolerance, atol=self.tolerance)
            dt0, most = (end - begin) / steps, 4096
            adjoint = diffrax.RecursiveCheckpointAdjoint()
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
            adjoint=adjoint,
            saveat=diffrax.SaveAt(t1=True) if at is None else diffrax.SaveAt(ts=at),
        )
        failed = solution.result != diffrax.RESULTS.successful
        ys = solution.ys if at is not None else jax.tree.map(lambda a: a[0], solution.ys)
        return ys, FieldInfo(solution.stats["num_steps"], failed)


def angle_at(s: Array, widest: Array, finest: float) -> tuple[Array, Array]:
    """Return the angle at which the share s of all steps is done, and its derivative by s."""

    def steps(t: Array) -> Array:  # to the angle finest sinh(t), in the unit of the small ones
        return t + finest * jnp.sinh(t)

    total = steps(jnp.arcsinh(widest / finest))
    left = total * jnp.maximum(1.0 - s, 0.0).astype(widest.dtype)
    t = jnp.minimum(left, jnp.arcsinh(left / finest))  # above the root of a convex function
    for _ in range(NEWTON):
        t = t - (steps(t) - left) / (1.0 + finest * jnp.cosh(t))
    angle = jnp.minimum(finest * jnp.sinh(t), widest)
    return angle, -total / (1.0 / jnp.hypot(angle, finest) + 1.0)


def noise_at(angle: Array) -> Array:
    """Return the noise level of an angle, log tan(phi), finite at both ends."""
    return log_ratio(jnp.cos(angle), jnp.sin(angle))


def ode(
    *,
    steps: int = 20,
    solver: str = "bosh3",
    finest: float = FINEST,
    tolerance: float | None = None,
    density_steps: int = 48,
    exact_dim: int = 64,
    probes: int = 8,
) -> ODE:
    """Return the configuration of a probability-flow ODE solver.

    Args:
        steps: Steps from noise to data.
        solver: A solver's name: "heun", "midpoint", "bosh3", "tsit5", "dopri8" …
        finest: Angle down to which steps shrink in proportion to it. Posteriors that are narrower
            than this share of the prior need more steps.
        tolerance: Adapt the steps to this error instead of fixing their number.
        density_steps: Steps for the density.
        exact_dim: Up to so many dimensions the divergence is exact, at the cost of one derivative
            of the network for each. Above, the log-density is estimated, with an error of some
            tenths of a nat that is nearly the same at all points.
        probes: Random vectors of that estimate.

    Raises:
        ValueError: If the solver is not known, or a number is out of its range.
    """
    return ODE(
        steps=steps,
        solver=solver,
        finest=finest,
        tolerance=tolerance,
        density_steps=density_steps,
        exact_dim=exact_dim,
        probes=probes,
    )
