"""Where an emulator was trained, and how far outside of that it is asked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Theta, warn
from jaxsbi.priors import Prior

SLACK = 0.01
"""Shares of the training range: few runs leave so much of a prior's edges empty by chance."""
SHARE = 0.01
"""Share of draws outside the range that is worth a warning."""


def extremes(z: Array) -> Array:
    """Return the rows of `z` `(n, d)` with the least and the greatest of each number, `(2d, d)`."""
    return jnp.concatenate([z[jnp.argmin(z, 0)], z[jnp.argmax(z, 0)]])


def training_range(prior: Prior, rows: Array) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the least and the greatest trained value of each parameter.

    Args:
        prior: The prior of training.
        rows: What `extremes` returned.
    """
    theta = jax.vmap(prior.from_latent)(rows)
    return {name: (np.min(a, 0), np.max(a, 0)) for name, a in _host(theta).items()}


def warn_outside(prior: Prior, rows: Array, theta: Theta) -> dict[str, float]:
    """Warn of parameter sets outside the training range, and return how far they are.

    Args:
        prior: The prior of training.
        rows: What `extremes` returned.
        theta: Named parameters, each of shape `(n, *shape)`.

    Returns:
        Name to the largest distance from the range, in units of its width; 0 inside.
    """
    furthest, told = {}, []
    for name, (low, high) in training_range(prior, rows).items():
        values, width = np.asarray(theta[name]), np.maximum(high - low, 1e-30)
        beyond = np.maximum(np.maximum(low - values, values - high) / width, 0.0)
        furthest[name] = float(beyond.max(initial=0.0))
        outside = (beyond > SLACK).reshape(len(values), -1).any(1).mean()
        if outside > SHARE:
            told.append(
                f"{name} in {outside:.0%}, by up to {furthest[name]:.2g} widths of its range "
                f"({_text(low)} to {_text(high)})"
            )
    if told:
        warn(
            "emulator: asked outside the range of its training parameters, where it is not known "
            f"to be right: {'; '.join(told)}. Simulate there and train again, or narrow the prior."
        )
    return furthest


def _host(theta: Theta) -> dict[str, np.ndarray]:
    return {name: np.asarray(a) for name, a in theta.items()}


def _text(a: np.ndarray) -> str:
    return f"{float(a):.4g}" if a.ndim == 0 else np.array2string(a, precision=4)
