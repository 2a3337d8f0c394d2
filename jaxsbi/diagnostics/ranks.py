"""Simulation-based calibration: ranks of true parameters among posterior draws."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Key, Posterior, Simulator, Theta, check_key
from jaxsbi.diagnostics.uniformity import ks_p_value
from jaxsbi.priors import Prior


class Calibration(NamedTuple):
    """Ranks of the truth, and how surprising their distance from uniformity is.

    Attributes:
        ranks: Per parameter, how many draws lie below the truth, shape `(num_datasets, *shape)`;
            uniform on 0 … num_draws for a calibrated posterior.
        num_draws: Draws per data set.
        p_value: Kolmogorov–Smirnov p-value per parameter, shape `(*shape)`, not corrected for
            the number of parameters.
    """

    ranks: Theta
    num_draws: int
    p_value: Theta


def sbc(
    key: Key,
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    *,
    num_datasets: int = 1000,
    num_draws: int = 1000,
) -> Calibration:
    """Run simulation-based calibration (Talts et al. 2018, arXiv:1804.06788) as one program.

    It sees wrong widths and biases that hold on average over the prior. It cannot see a wrong
    simulator, and a posterior that ignores the data passes.

    Args:
        key: A typed key.
        posterior: The posterior to check.
        prior: The prior it should be calibrated under.
        simulator: The simulator it was trained on; called afresh.
        num_datasets: Data sets simulated.
        num_draws: Posterior draws per data set.

    Returns:
        Ranks and p-values per parameter.
    """
    check_key(key)
    keys = jax.random.split(key, num_datasets)
    ranks = _ranks(posterior, prior, simulator, keys, num_draws)
    p_value = {
        name: jnp.asarray(ks_p_value((np.asarray(r) + 0.5) / (num_draws + 1)))
        for name, r in ranks.items()
    }
    return Calibration(ranks, num_draws, p_value)


@functools.partial(jax.jit, static_argnames=("simulator", "num_draws"))
def _ranks(
    posterior: Posterior, prior: Prior, simulator: Simulator, keys: Array, num_draws: int
) -> Theta:
    def one(key: Key) -> Theta:
        key_theta, key_x, key_draws = jax.random.split(key, 3)
        theta = prior.sample(key_theta)
        draws = posterior.sample(key_draws, simulator(key_x, theta), num_draws)
        return jax.tree.map(lambda d, t: jnp.sum(d < t[None], axis=0), draws, theta)

    # A batch of data sets at a time bounds the memory at a few million draws.
    return jax.lax.map(one, keys, batch_size=max(1, min(keys.size, 2_000_000 // num_draws)))
