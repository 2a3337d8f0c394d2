"""Whether a prior stays where another one was, on which something was trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsbi.notice import is_concrete, warn

DRAWS = 512
"""Draws that are looked at."""
SHARE = 0.01
"""Share of them outside that is worth a warning."""


def warn_beyond(trained: Any, new: Any, where: str = "with_prior") -> None:
    """Warn, outside of jit, if a new prior reaches beyond the support of the one of training.

    Args:
        trained: The prior of training.
        new: A prior of the same parameters.
        where: Who warns.
    """
    share = _share_beyond(trained, new)
    if not is_concrete(share) or not share > SHARE:
        return
    warn(
        f"{where}: {share:.0%} of the new prior lies outside the support of the training prior. "
        "What was learned says nothing there, and draws stay inside: a posterior that piles up at "
        "a border of the training prior is cut off by it, and so is its evidence. Simulate under "
        "the wider prior and train again."
    )


@jax.jit
def allowed(prior: Any, theta: Any) -> jax.Array:
    """Return which parameter sets a prior allows, shape `(n,)`."""
    return jnp.isfinite(jax.vmap(prior.log_prob)(theta))


@jax.jit
def _share_beyond(trained: Any, new: Any) -> jax.Array:
    theta = jax.vmap(new.sample)(jax.random.split(jax.random.key(0), DRAWS))
    return jnp.mean(~allowed(trained, theta))
