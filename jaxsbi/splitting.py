"""Which simulations are trained on, which validate, and how a method's loss sees them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, Simulations, Theta
from jaxsbi.priors import Prior


def split(simulations: Simulations, fraction: float, prior: Prior) -> tuple[Simulations, int]:
    """Return the valid rows, and how many of them, the first, to train on."""
    check_fraction(fraction)
    check_theta(simulations, prior)
    valid = np.flatnonzero(np.asarray(simulations.weight) > 0)
    invalid = len(simulations) - valid.size
    if valid.size < 4:
        raise ValueError(
            f"simulations: expected at least 4 finite ones to train and validate on, got "
            f"{valid.size} (and {invalid} that are not finite). Simulate more."
        )
    rows = simulations if not invalid else taken(simulations, valid)
    # Draws are independent, so the last rows are as good a validation set as any; every member
    # and every method then sees the same one, and their losses can be compared.
    return rows, valid.size - _held_out(valid.size, fraction)


def check_fraction(fraction: float) -> None:
    """Raise a ValueError unless some are held out, and not all."""
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"validation_fraction: expected between 0 and 1, got {fraction}.")


def _held_out(rows: int, fraction: float) -> int:
    return min(max(2, round(rows * fraction)), rows - 2)


def taken(simulations: Simulations, index: np.ndarray) -> Simulations:
    """Return some rows; by NumPy, for JAX would compile a program for every number of them."""
    return jax.tree.map(lambda a: np.asarray(a)[index], simulations)


def repeated(
    rows: Simulations, cut: int, capacity: int, fraction: float
) -> tuple[Simulations, int]:
    """Return `capacity` rows: the training part repeated, the validation part padded.

    Raises:
        ValueError: If there are more rows than that.
    """
    if capacity < len(rows):
        raise ValueError(
            f"capacity: expected at least the {len(rows)} simulations there are, got {capacity}."
        )
    held_out = _held_out(capacity, fraction)
    training = np.arange(capacity - held_out) % cut
    validation = np.arange(held_out) % (len(rows) - cut)
    found = taken(rows, np.concatenate([training, cut + validation]))
    weight = np.array(found.weight)
    weight[capacity - held_out + len(rows) - cut :] = 0.0
    return Simulations(found.theta, found.x, jnp.asarray(weight)), capacity - held_out


def check_theta(simulations: Simulations, prior: Prior) -> None:
    """Raise a ValueError unless the simulations are of this prior, and as many in every leaf."""
    shapes = {name: tuple(a.shape[1:]) for name, a in simulations.theta.items()}
    if shapes != prior.shapes:
        raise ValueError(
            f"simulations.theta: expected the prior's parameters {prior.shapes}, got {shapes}. "
            "Pass the prior that the simulations were drawn from."
        )
    rows = {jnp.shape(a)[0] for a in jax.tree.leaves(simulations)}
    if len(rows) > 1:
        raise ValueError(
            "simulations: expected the same number of rows in theta, x and weight, got "
            f"{sorted(rows)}. Every leaf has a leading axis of simulations."
        )


def seen(prior: Prior, theta: Theta, x: Data, valid: Array, latent: bool) -> Simulations:
    """Return rows as `loss` sees them (in a compiled function).

    What is not finite has weight 0; and is zero, for 0 times the gradient of NaN is NaN.
    """
    if latent:
        theta = {"z": jax.vmap(prior.to_latent)(theta)}

    def clean(a: Array) -> Array:
        return jnp.where(valid.reshape(-1, *(1,) * (a.ndim - 1)), a, jnp.zeros_like(a))

    theta, x = jax.tree.map(clean, (theta, x))
    return Simulations(theta, x, valid.astype(jnp.float32))
