"""Against the data: what was observed among what the prior, and the posterior, would predict.

Asks, number by number, whether simulations look like the observation.

Cannot see: what is odd in how the numbers go together (`misspecification` does), and a posterior
that is wrong in directions that the data do not show.

When it fails: before any data are used (`prior_predictive`), widen the prior or mend the simulator
at the number that is named; after (`posterior_predictive`), see if the prior predictive fails too;
if not, the posterior is wrong at this observation (`local_c2st`), or the simulator can make each of
the numbers but not all of them with one parameter set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, Key, Posterior, Simulator, Theta, check_key
from jaxsbi.diagnostics.divergences import Estimate
from jaxsbi.diagnostics.uniformity import LEVEL
from jaxsbi.priors import Prior
from jaxsbi.samplers.weights import log_mean_and_error
from jaxsbi.simulate import simulate, simulate_at


class Predictive(NamedTuple):
    """The observation's place among simulated data sets.

    Attributes:
        names: A name for each number of a data set: its path and index.
        p_value: Two-sided, of each number by itself: twice the share of simulations beyond it.
        outside: How many numbers lie beyond every simulation.
        smallest: The smallest p-value, times the number of numbers (Bonferroni), at most 1.
    """

    names: tuple[str, ...]
    p_value: np.ndarray
    outside: int
    smallest: float

    @property
    def verdict(self) -> str:
        """One line: is the observation one of those that are predicted?"""
        worst = self.names[int(np.argmin(self.p_value))]
        if self.smallest >= LEVEL:
            return f"passes (smallest corrected p-value {self.smallest:.2g}, {worst})"
        return (
            f"FAILS: {worst} lies in the outermost {float(np.min(self.p_value)):.2g} of the "
            f"simulations ({self.outside} of {self.p_value.size} numbers beyond all of them)"
        )


def prior_predictive(
    key: Key, prior: Prior, simulator: Simulator, x: Data, *, n: int = 1000
) -> Predictive:
    """Return the observation's place among data simulated from the prior.

    What fails here was never in the training set: the simulator, or the prior, is not that of the
    data, and the posterior is an extrapolation.

    Args:
        key: A typed key.
        prior: The prior.
        simulator: The simulator.
        x: The observation.
        n: Data sets simulated.

    Raises:
        TypeError: If the key is not typed.
    """
    return _place(simulate(key, prior, simulator, n, progress=False).x, x)


def posterior_predictive(
    key: Key, posterior: Posterior, simulator: Simulator, x: Data, *, n: int = 1000
) -> Predictive:
    """Return the observation's place among data simulated from its own posterior.

    The p-values are conservative, for the posterior has seen the data: they cluster near 1/2 times
    two, and a small one is worse than it looks (Gelman, Meng & Stern 1996, Stat. Sinica 6, 733).

    Args:
        key: A typed key.
        posterior: The posterior.
        simulator: The simulator.
        x: The observation.
        n: Data sets simulated, each at a draw of its own.

    Raises:
        TypeError: If the key is not typed.
    """
    check_key(key)
    key_draws, key_x = jax.random.split(key)
    theta = posterior.sample(key_draws, x, n)
    return _place(simulate_at(key_x, simulator, theta, progress=False).x, x)


def log_predictive(
    key: Key,
    posterior: Posterior,
    log_likelihood: Callable[[Theta, Data], Any],
    x_observed: Data,
    x_new: Data,
    *,
    n: int = 1000,
) -> Estimate:
    """Return the log predictive density of new data, log of the mean of p(x_new | theta).

    Over draws of the posterior given the observation: higher is better, and data that were not
    used for the posterior compare models and posteriors with one another.

    Args:
        key: A typed key.
        posterior: The posterior.
        log_likelihood: `log_likelihood(theta, x) -> scalar`, normalised over x.
        x_observed: The data set of the posterior.
        x_new: Another data set of the same parameters.
        n: Draws.

    Returns:
        In nats, with its standard error.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If the log-likelihood is NaN for a draw.
    """
    check_key(key)
    theta = posterior.sample(key, x_observed, n)
    values = jax.vmap(lambda theta: log_likelihood(theta, x_new))(theta)
    bad = int(jnp.sum(jnp.isnan(values)))
    if bad:
        raise ValueError(
            f"log_likelihood: expected numbers, got NaN for {bad} of {n} posterior draws. Evaluate "
            "it at a draw."
        )
    value, error = log_mean_and_error(values)
    return Estimate(float(value), float(error))


def _place(simulated: Data, x: Data) -> Predictive:
    names, columns = _columns(simulated)
    observed = np.concatenate([np.ravel(np.asarray(a, float)) for a in jax.tree.leaves(x)])
    if observed.size != len(names):
        raise ValueError(
            f"observation: expected {len(names)} numbers as the simulator returns, got "
            f"{observed.size}."
        )
    finite = np.isfinite(columns).all(1)
    columns = columns[finite]
    n = len(columns)
    # Ties count on both sides: a number that is always the same is no surprise.
    below = (np.sum(columns <= observed, 0) + 1) / (n + 1)
    above = (np.sum(columns >= observed, 0) + 1) / (n + 1)
    p_value = np.minimum(1.0, 2 * np.minimum(below, above))
    outside = int(np.sum((observed < columns.min(0)) | (observed > columns.max(0))))
    return Predictive(names, p_value, outside, float(min(1.0, np.min(p_value) * observed.size)))


def _columns(simulated: Data) -> tuple[tuple[str, ...], np.ndarray]:
    """Return a name for each number, and all of them as columns."""
    names: list[str] = []
    parts = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(simulated)[0]:
        values = np.asarray(leaf, float)
        where = jax.tree_util.keystr(path)
        for index in np.ndindex(*values.shape[1:]):
            at = f"[{', '.join(map(str, index))}]" if index else ""
            names.append(f"x{where}{at}")
        parts.append(values.reshape(len(values), -1))
    return tuple(names), np.concatenate(parts, axis=1)


def contraction(
    key: Key,
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    *,
    num_datasets: int = 200,
    num_draws: int = 200,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much narrower than the prior posteriors are, and z-scores of the truth.

    Source: Betancourt 2018, arXiv:1803.08393.

    Args:
        key: A typed key.
        posterior: The posterior.
        prior: The prior.
        simulator: The simulator.
        num_datasets: Data sets simulated.
        num_draws: Draws per data set.

    Returns:
        1 - variance / prior variance in latent coordinates, and (truth - mean) / deviation, each of
        shape `(num_datasets, dim)`. Contraction near 0: the data say nothing.

    Raises:
        TypeError: If the key is not typed.
    """
    check_key(key)
    keys = jax.random.split(key, num_datasets)
    mean, variance, z = map(np.asarray, _moments(posterior, prior, simulator, keys, num_draws))
    return 1.0 - variance / np.var(z, 0), (z - mean) / np.sqrt(variance)


@functools.partial(jax.jit, static_argnames=("simulator", "num_draws"))
def _moments(
    posterior: Posterior, prior: Prior, simulator: Simulator, keys: Array, num_draws: int
) -> tuple[Array, Array, Array]:
    def one(key: Key) -> tuple[Array, Array, Array]:
        key_theta, key_x, key_draws = jax.random.split(key, 3)
        theta = prior.sample(key_theta)
        draws = posterior.sample(key_draws, simulator(key_x, theta), num_draws)
        z = jax.vmap(prior.to_latent)(draws)
        return jnp.mean(z, 0), jnp.var(z, 0), prior.to_latent(theta)

    return jax.lax.map(one, keys, batch_size=min(keys.size, 500))
