"""The ODE solver shared by the dynamical tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffrax
import jax.numpy as jnp

from jaxsbi.base import Array


def solve(
    field: Callable[[Any, Array, Any], Array], initial: Array, times: Array, args: Any
) -> Array:
    """Integrate `dy/dt = field(t, y, args)` from time 0, and return y at `times`.

    Tsit5 with adaptive steps. A trajectory that needs too many steps, or leaves the finite
    numbers, is NaN: it neither hangs the batch it is in nor raises.

    Args:
        field: The right-hand side.
        initial: The state at time 0, shape `(d,)`.
        times: Increasing times, shape `(m,)`.
        args: Passed to `field`.

    Returns:
        The states, shape `(m, d)`.
    """
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        t0=0.0,
        t1=times[-1],
        dt0=0.01,
        y0=initial,
        args=args,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        max_steps=4096,
        throw=False,
    )
    solved = solution.result == diffrax.RESULTS.successful
    return jnp.where(solved, solution.ys, jnp.nan)
