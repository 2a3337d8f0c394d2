"""What a simulator's gradients add to a loss: the joint score as a target for the learned one.

The joint score t = d/dz log p(x, latents | z) of a simulation varies with the latent variables of
the simulator; its mean over them, given x and z, is the score of the intractable likelihood. So
the squared distance of a network's score to it is least at the true score (Brehmer et al. 2018,
arXiv:1805.00013; for posteriors Zeghal et al. 2022, arXiv:2207.05636).
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxsbi.base import Array, Simulations


def check(weight: float) -> None:
    """Raise a ValueError if the weight of the joint-score term is negative."""
    if weight < 0:
        raise ValueError(f"score: expected a weight of 0 or more, got {weight}.")


def measure(weight: float, of: str, simulations: Simulations) -> dict[str, Array]:
    """Return what `distance` needs to know: the scores' mean square, by latent parameter.

    Args:
        weight: Of the joint-score term; 0 for none.
        of: Which score: "likelihood" or "posterior".
        simulations: As `fit` passes them, with scores by z (`base.Method`).

    Raises:
        ValueError: If a weight is given, and the simulations have no scores.
    """
    if not weight:
        return {}
    target = target_of(weight, of, simulations)
    return {"square": jnp.maximum(jnp.mean(target**2, 0), 1e-12)}


def target_of(weight: float, of: str, simulations: Simulations) -> Array:
    """Return the joint scores by z, shape `(n, d)`, or raise a ValueError if there are none."""
    if simulations.score is None:
        raise ValueError(
            f"score={weight}: expected simulations with joint scores, got none. Make them with "
            "jaxsbi.simulate_scored(key, prior, simulator, log_joint, n), or leave `score` out."
        )
    return simulations.score[of]


def distance(kept: dict[str, Array], found: Array, target: Array) -> Array:
    """Return half the squared distance of two scores `(d,)`, in units of the mean square.

    Were the joint scores all noise, normal and independent, this would be their -log-likelihood.
    """
    return 0.5 * jnp.sum((found - target) ** 2 / kept["square"])
