"""What the inside of a simulator adds to a loss: joint scores and joint ratios as targets.

Where each random number of a simulator has a density, p(x, latents | theta) is known, though the
likelihood, its integral over the latents, is not (Brehmer et al. 2018, arXiv:1805.00013).

The joint score t = d/dz log p(x, latents | z) of a simulation varies with its latent variables; its
mean over them, given x and z, is the score of the likelihood. So the squared distance of a
network's score to it is least at the true score (for posteriors Zeghal et al. 2022,
arXiv:2207.05636).

The joint ratio says which of several parameter sets made a simulation. Let one of K + 1, which are
exchangeable (independent draws of the prior, say), have made x and the latents; given both, it was
the k-th with probability w_k = p(x, latents | theta_k) / sum_j p(x, latents | theta_j). The mean of
w over the latents, given x, is the same without latents, p(x | theta_k) / sum_j p(x | theta_j). So
a cross-entropy whose labels are w has the mean of the one whose labels say which it was, and is
least at the same ratios, but varies less: its labels are the others' mean (for two parameter sets
ALICE, Stoye et al. 2018, arXiv:1808.00973).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Simulations, Theta


def check(weight: float, name: str = "score") -> None:
    """Raise a ValueError if the weight of a term is negative."""
    if weight < 0:
        raise ValueError(f"{name}: expected a weight of 0 or more, got {weight}.")


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


def ratios_of(weight: float, simulations: Simulations) -> tuple[Theta, Array]:
    """Return the contrasts and their joint log-ratios, or raise a ValueError if there are none."""
    if simulations.contrasts is None or simulations.log_ratio is None:
        raise ValueError(
            f"ratio={weight}: expected simulations with joint ratios, got none. Make them with "
            "jaxsbi.simulate_scored(key, prior, simulator, log_joint, n, contrasts=64), or leave "
            "`ratio` out."
        )
    return simulations.contrasts, simulations.log_ratio


def labels(log_ratio: Array) -> Array:
    """Return w, shape `(K + 1,)`: of the parameter set that was simulated, then of the contrasts.

    Args:
        log_ratio: Joint log-ratios of the contrasts to that parameter set, shape `(K,)`.
    """
    return jax.nn.softmax(jnp.concatenate([jnp.zeros_like(log_ratio[:1]), log_ratio]))


def choice(log_ratio: Array, found: Array) -> Array:
    """Return the cross-entropy of which of K + 1 parameter sets made a simulation, in nats.

    At the true ratios its gradient is the labels' noise alone: without latents it is zero for each
    simulation, and not just in the mean.

    Args:
        log_ratio: As for `labels`.
        found: What was learned of log p(x | theta) of each, `(K + 1,)`, up to any function of x.
    """
    return -jnp.sum(labels(log_ratio) * jax.nn.log_softmax(found))


def choice_by(weight: float, learned: Callable[[Theta], Array], row: Simulations) -> Array:
    """Return the weighted `choice` among a row's parameter set and its contrasts.

    Args:
        weight: Of the joint-ratio term.
        learned: From parameters to what a method gives for log p(x | theta) at the row's x.
        row: One row of the simulations.
    """
    contrasts, log_ratio = ratios_of(weight, row)
    every = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), row.theta, contrasts)
    return weight * choice(log_ratio, jax.vmap(learned)(every))
