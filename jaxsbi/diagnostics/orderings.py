"""What parameter sets are ranked by: a calibrated posterior ranks the truth uniformly by each.

An ordering is called as `ordering(problem, theta)` on one parameter set and returns a vector of
numbers; each of them is a test. `blind` says what it cannot see; what to do when one fails is told
in `calibration`. A classifier's ordering comes from `local_classifiers(...).ordering`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Posterior, Theta, configuration
from jaxsbi.priors import Prior


def unit_vectors(key: Key, count: int, dim: int) -> Array:
    """Return random directions, shape `(count, dim)`."""
    axes = jax.random.normal(key, (count, dim))
    return axes / jnp.linalg.norm(axes, axis=1, keepdims=True)


class Problem(NamedTuple):
    """One simulated data set, and what an ordering may look at.

    Attributes:
        draw: A draw of the prior of its own, which has nothing to do with the data.
        posterior: The posterior that is checked.
        prior: The prior it should be calibrated under.
        x: The data set.
    """

    draw: Theta
    posterior: Posterior
    prior: Prior
    x: Data


class Ordering(Protocol):
    """Numbers to rank parameter sets by."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def blind(self) -> str:
        """What it cannot see."""
        ...

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return a vector for one parameter set."""
        ...


@configuration
class Parameters:
    """Each parameter by itself: simulation-based calibration (Talts et al. 2018, 1804.06788)."""

    name: str = "parameters"
    blind: str = "wrong correlations, a posterior that ignores the data, a wrong simulator"

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return all parameters, in the prior's order."""
        return jnp.concatenate([jnp.ravel(theta[name]) for name in problem.prior.names])


@configuration
class Projections:
    """Random directions in the prior's latent coordinates: correlations are seen too.

    Attributes:
        count: How many, the same for all data sets.
    """

    count: int = 8
    name: str = "projections"
    blind: str = "a posterior that ignores the data, a wrong simulator"

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return the products with unit vectors."""
        z = problem.prior.to_latent(theta)
        return unit_vectors(jax.random.key(0), self.count, z.size) @ z


@configuration
class Density:
    """The posterior's own density: coverage of its highest-density regions.

    Source: expected coverage, Hermans et al. 2022, arXiv:2110.06581.
    """

    name: str = "density"
    blind: str = (
        "shifts and shapes that leave the regions' coverage right, a posterior that ignores the "
        "data, a wrong simulator"
    )

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return minus its logarithm: the truth lies in the region whose level is the rank."""
        return -problem.posterior.log_prob(theta, problem.x)[None]


@configuration
class Distance:
    """The distance from a point chosen without the truth: TARP (Lemos et al. 2023, 2302.03026).

    Attributes:
        reference: `reference(x) -> theta`, the point; by default a draw of the prior, anew for
            each data set. A point that depends on x lets it see lost information.
    """

    reference: Callable[[Data], Theta] | None = None
    name: str = "distance"
    blind: str = "with points that do not depend on x: a posterior that ignores the data"

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return the distance in the prior's latent coordinates."""
        prior = problem.prior
        point = problem.draw if self.reference is None else self.reference(problem.x)
        return jnp.linalg.norm(prior.to_latent(theta) - prior.to_latent(point))[None]


@configuration
class LogLikelihood:
    """The likelihood of the data: sees lost information, which all of the above miss.

    Attributes:
        function: `function(theta, x) -> scalar`.
    """

    function: Callable[[Theta, Data], Any]
    name: str = "likelihood"
    blind: str = "a wrong simulator"

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return the log-likelihood."""
        return jnp.reshape(self.function(theta, problem.x), (1,))


@configuration
class LogPrior:
    """The prior's density."""

    name: str = "prior"
    blind: str = "whatever does not move draws to more or less likely parts of the prior"

    def __call__(self, problem: Problem, theta: Theta) -> Array:
        """Return the log-density."""
        return problem.prior.log_prob(theta)[None]
