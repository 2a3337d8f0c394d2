"""Two moons: a two-dimensional posterior with two crescents (arXiv:2101.04653, T.8)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.tasks.task import Task

_OFFSET = 0.25
_RADIUS, _WIDTH = 0.1, 0.01


def two_moons() -> Task:
    """Return the two-moons task.

    `theta` (2,) is uniform on [-1, 1]². With a ~ U(-pi/2, pi/2) and r ~ N(0.1, 0.01²),
    `x = (r cos a + 0.25, r sin a) + (-|theta_1 + theta_2|, theta_2 - theta_1) / sqrt(2)`.
    """
    return Task(
        name="two_moons",
        prior=Prior(theta=dist.Uniform(-np.ones(2), np.ones(2)).to_event(1)),
        simulator=_simulator,
        log_likelihood=_log_likelihood,
        x_shape=(2,),
    )


def _shift(theta: Array) -> Array:
    """Return what `theta` (2,) adds to the crescent; its absolute value makes the second mode."""
    return jnp.stack([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]]) / math.sqrt(2.0)


def _simulator(key: Key, theta: Theta) -> Array:
    """Draw one point on the crescent, shape (2,)."""
    key_angle, key_radius = jax.random.split(key)
    angle = jax.random.uniform(key_angle, minval=-math.pi / 2, maxval=math.pi / 2)
    radius = _RADIUS + _WIDTH * jax.random.normal(key_radius)
    point = jnp.stack([radius * jnp.cos(angle) + _OFFSET, radius * jnp.sin(angle)])
    return point + _shift(theta["theta"])


def _log_likelihood(theta: Theta, x: Array) -> Array:
    """Return log p(x | theta), the density over the plane.

    The area element r dr da divides by the radius, which sbibm's `_likelihood` leaves out; its
    reference draws, made in closed form, have it. The probability of r < 0 (1e-23) is ignored.
    """
    u, v = x - _shift(theta["theta"]) - jnp.array([_OFFSET, 0.0])
    # The floor keeps the gradient finite at the origin, where the density is 0 anyway.
    radius = jnp.sqrt(jnp.maximum(u**2 + v**2, 1e-12))
    log_density = dist.Normal(_RADIUS, _WIDTH).log_prob(radius) - jnp.log(math.pi * radius)
    return jnp.where(u > 0, log_density, -jnp.inf)
