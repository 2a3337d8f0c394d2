"""A prior cut to a box, in latent coordinates of unit scale within it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxsbi import latent
from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.recentred import Seen
from jaxsbi.workarounds import register_dataclass

EDGE = 1e-5
"""How far outside a latent number may seem, of its size or of 1, and lie on the edge: rounding."""
NODES = 64
"""Quantiles of which the mean and the width of a side are taken."""


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Boxed(Seen):
    """The law of a prior where its latent coordinates t lie between two corners.

    Its own are z = (t - mean) / scale: a narrow posterior within a small box keeps its shape. By
    quantiles within the box z would be N(0, I), and a Gaussian posterior none.

    Attributes:
        prior: The prior, whose latent coordinates are N(0, I).
        low: The lower corner, shape `(dim,)`.
        high: The upper one; above it in every coordinate.
        mean: The mean of t in the box, shape `(dim,)`.
        scale: Its standard deviation.
    """

    prior: Prior
    low: Array
    high: Array
    mean: Array
    scale: Array

    @property
    def exact(self) -> dict[str, bool]:
        """Whether each parameter's part of z is N(0, I): none is."""
        return dict.fromkeys(self.names, False)

    @property
    def log_mass(self) -> Array:
        """Log of the share of the prior that lies in the box, a scalar."""
        return jnp.sum(latent.log_mass(self.low, self.high))

    def marginal(self, *names: str) -> Boxed:
        """Return the law of some of the parameters, in the order given, as `Prior.marginal`."""
        some = self.prior.marginal(*names)  # first: it says which names there are
        columns = self._columns(*names)
        return Boxed(some, *(a[columns] for a in (self.low, self.high, self.mean, self.scale)))

    def sample(self, key: Key) -> Theta:
        """Draw one θ, as `Prior.sample`."""
        return self.at(jax.random.normal(key, (self.dim,), self.low.dtype))

    def at(self, normal: Array) -> Theta:
        """Return one θ of numbers that are N(0, I), shape `(dim,)`: their quantile in the box."""
        return self.prior.from_latent(latent.truncated_from_z(normal, self.low, self.high))

    def log_prob(self, theta: Mapping[str, Any]) -> Array:
        """Normalised log density of one θ, a scalar; -inf outside the box."""
        value = self.prior.log_prob(theta) - self.log_mass
        return jnp.where(self.holds(theta), value, -jnp.inf)

    def holds(self, theta: Mapping[str, Any]) -> Array:
        """Whether one θ lies in the box, up to rounding (a scalar bool)."""
        return self._inside(self.prior.to_latent(theta))

    def to_latent(self, theta: Mapping[str, Any]) -> Array:
        """z of one θ, shape `(dim,)`."""
        return (self.prior.to_latent(theta) - self.mean) / self.scale

    def from_latent(self, z: Array) -> Theta:
        """One θ from z of shape `(dim,)`; inside the support, outside the box if z is."""
        return self.prior.from_latent(self._outer(z))

    def latent_log_prob(self, z: Array) -> Array:
        """Log density of z, a scalar; -inf outside the box."""
        t = self._outer(z)
        value = self.prior.latent_log_prob(t) + self._log_det - self.log_mass
        return jnp.where(self._inside(t), value, -jnp.inf)

    def log_abs_det_jacobian(self, z: Array) -> Array:
        """`log|dθ/dz|`, a scalar."""
        return self.prior.log_abs_det_jacobian(self._outer(z)) + self._log_det

    @property
    def _log_det(self) -> Array:
        return jnp.sum(jnp.log(self.scale))

    def _outer(self, z: Array) -> Array:
        return self.mean + self.scale * z

    def _inside(self, t: Array) -> Array:
        slack = EDGE * jnp.maximum(jnp.abs(t), 1.0)
        return jnp.all((t >= self.low - slack) & (t <= self.high + slack))


def boxed(prior: Prior, low: Array, high: Array) -> Boxed:
    """Return a prior cut to the box between two corners of its latent coordinates."""
    normal = scipy.special.ndtri((np.arange(NODES) + 0.5) / NODES)
    nodes = jnp.broadcast_to(jnp.asarray(normal, low.dtype)[:, None], (NODES, low.size))
    t = latent.truncated_from_z(nodes, *(jnp.broadcast_to(c, nodes.shape) for c in (low, high)))
    return Boxed(prior, low, high, jnp.mean(t, 0), jnp.std(t, 0))


def whole(prior: Prior) -> Boxed:
    """Return a prior in a box that holds all of it.

    Raises:
        ValueError: If its latent coordinates are not N(0, I).
    """
    if not all(prior.exact.values()):
        names = [name for name, exact in prior.exact.items() if not exact]
        raise ValueError(
            f"prior: a box needs parameters whose latent coordinates are N(0, I), and {names} are "
            "mapped by their support."
        )
    corner = jnp.full(prior.dim, latent.FAR)
    return boxed(prior, -corner, corner)
