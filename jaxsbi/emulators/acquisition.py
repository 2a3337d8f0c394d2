"""Where to run a slow simulator next: where the members of an ensemble disagree most."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Fitted, Key, Posterior, Theta, check_key
from jaxsbi.emulators.predict import members, posterior_of
from jaxsbi.methods import Ensemble
from jaxsbi.networks import flatten

PER_POINT, FEWEST = 20, 2_000
"""Candidates for each point that is wanted, and at least."""


def acquire(key: Key, fitted: Fitted | Posterior, n: int, *, draws: Theta | None = None) -> Theta:
    """Return parameter sets at which new runs would teach an ensemble of emulators most.

    One after another, the candidate of the largest product of two factors is chosen: how much the
    members disagree there (query by committee, Seung et al. 1992), and how far it is from
    what has been chosen before, for a batch of neighbours teaches one thing only.

    Simulate there (`jaxsbi.simulate_at`, or the slow program), join the runs with those there were
    (`simulations.join(more)`), and train again.

    Args:
        key: A typed key.
        fitted: What `fit(..., ensemble=5)` returned for an `emulator`, or its posterior.
        n: How many parameter sets.
        draws: Candidates, each of shape `(m, *shape)` with m > n: draws of a posterior, where
            only one observation matters; by default draws of the prior.

    Returns:
        Named parameters, each of shape `(n, *shape)`, the most wanted first.

    Raises:
        TypeError: If the key is not typed, or the method no ensemble of emulators.
        ValueError: If there are fewer candidates than are wanted.
    """
    check_key(key)
    posterior = posterior_of(fitted)
    if not isinstance(posterior.method, Ensemble):
        raise TypeError(
            "acquire: expected an ensemble, whose members' disagreement says where to look, got "
            "one emulator. Train several: jaxsbi.fit(..., ensemble=5)."
        )
    if draws is None:
        keys = jax.random.split(key, max(FEWEST, PER_POINT * n))
        draws = jax.vmap(posterior.prior.sample)(keys)
    count = len(next(iter(draws.values())))
    if not 1 <= n < count:
        raise ValueError(f"acquire: expected n from 1 to below {count} candidates, got n={n}.")
    chosen = np.asarray(_choose(posterior, draws, int(n)))
    return {name: jnp.asarray(np.asarray(a)[chosen]) for name, a in draws.items()}


@functools.partial(jax.jit, static_argnames="n")
def _choose(posterior: Posterior, candidates: Theta, n: int) -> Array:
    """Return the places of `n` of the candidates."""
    spread = jax.vmap(lambda theta: disagreement(posterior, theta))(candidates)
    z = jax.vmap(posterior.prior.to_latent)(candidates)
    # Distances in units of the candidates' own scatter: they may be a narrow posterior's.
    z = z / jnp.maximum(jnp.std(z, 0, keepdims=True), 1e-6)

    def add(nearest: Array, _: None) -> tuple[Array, Array]:
        best = jnp.argmax(spread * nearest)
        return jnp.minimum(nearest, jnp.linalg.norm(z - z[best][None], axis=1)), best

    _, places = jax.lax.scan(add, jnp.ones(len(z), z.dtype), None, length=n)
    return places


def disagreement(posterior: Posterior, theta: Theta) -> Array:
    """Return the members' root-mean-square deviation from their mean, in standard units."""
    each = jax.vmap(flatten)(members(posterior, theta))
    scale = jax.vmap(flatten)(posterior.variables["statistics"]["scale"])
    return jnp.sqrt(jnp.mean(((each - jnp.mean(each, 0, keepdims=True)) / scale) ** 2))
