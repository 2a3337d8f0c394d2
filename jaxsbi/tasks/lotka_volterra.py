"""The Lotka-Volterra model of predators and prey (arXiv:2101.04653, T.10)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.tasks.ode import solve
from jaxsbi.tasks.task import Task

_INITIAL = (30.0, 1.0)
_NOISE = 0.1
_TIMES = 2.1 * np.arange(10)  # every 21st of the 201 times the benchmark saves
_CAP = 20.0
_FLOOR, _CEILING = math.log(1e-10), math.log(1e4)  # the benchmark's limits on the populations


def lotka_volterra() -> Task:
    """Return the Lotka-Volterra task: both populations at ten times, with noise, x (20,).

    `alpha`, `gamma` ~ LogNormal(-0.125, 0.5), `beta`, `delta` ~ LogNormal(-3, 0.5) in
    d prey = (alpha - beta predators) prey, d predators = (delta prey - gamma) predators, from
    30 prey and 1 predator. `x` is LogNormal(log population, 0.1): ten prey, then ten predators.
    """
    return Task(
        name="lotka_volterra",
        prior=Prior(
            alpha=dist.LogNormal(-0.125, 0.5),
            beta=dist.LogNormal(-3.0, 0.5),
            gamma=dist.LogNormal(-0.125, 0.5),
            delta=dist.LogNormal(-3.0, 0.5),
        ),
        simulator=_simulator,
        log_likelihood=_log_likelihood,
        x_shape=(2 * len(_TIMES),),
    )


def _field(t: Any, state: Array, theta: Theta) -> Array:
    # Logarithms of the populations stay finite and relatively accurate at both ends of a cycle.
    # The cap, far above any population the model reaches, keeps a trial step that the solver will
    # reject from overflowing, after which float32 could not find a smaller one.
    log_prey, log_predators = jnp.minimum(state, _CAP)
    return jnp.stack(
        [
            theta["alpha"] - theta["beta"] * jnp.exp(log_predators),
            theta["delta"] * jnp.exp(log_prey) - theta["gamma"],
        ]
    )


def _log_populations(theta: Theta) -> Array:
    """Return the logarithms of the populations, ten of the prey, ten of the predators: (20,)."""
    initial = jnp.log(jnp.array(_INITIAL))
    states = solve(_field, initial, jnp.asarray(_TIMES, initial.dtype), theta)
    return jnp.clip(states.T.ravel(), _FLOOR, _CEILING)


def _simulator(key: Key, theta: Theta) -> Array:
    """Draw both populations at ten times, shape (20,)."""
    log_populations = _log_populations(theta)
    return jnp.exp(log_populations + _NOISE * jax.random.normal(key, log_populations.shape))


def _log_likelihood(theta: Theta, x: Array) -> Array:
    """Return log p(x | theta) for x of shape (20,)."""
    return dist.LogNormal(_log_populations(theta), _NOISE).log_prob(x).sum()
