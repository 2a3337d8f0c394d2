"""A prior seen from where its posterior is: the same law in other latent coordinates."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, Theta
from jaxsbi.priors import Prior
from jaxsbi.workarounds import register_dataclass


class Seen:
    """A prior in other latent coordinates than its own: what does not depend on which."""

    prior: Any  # a Prior, or one that is itself seen from elsewhere

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return self.prior.names

    @property
    def dim(self) -> int:
        """The number of latent coordinates."""
        return self.prior.dim

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter in one θ."""
        return self.prior.shapes

    @property
    def latent(self) -> Prior:
        """A prior of one parameter "z" of shape (dim,) whose latent coordinates are itself."""
        return self.prior.latent

    def check(self, theta: Any) -> Theta:
        """θ as arrays in the order of `names`, as `Prior.check`."""
        return self.prior.check(theta)

    def _columns(self, *names: str) -> Array:
        return self.prior._columns(*names)


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Recentred(Seen):
    """A prior whose latent coordinates are z' = factor⁻¹ (z - mean), z those of another prior.

    The law of θ is that prior's. What is concentrated in z, as the simulations of a sequential
    round are, has unit scale in z'; `latent_log_prob` then is not N(0, I).

    Attributes:
        prior: The prior.
        mean: Shape `(dim,)`.
        factor: Lower triangular, shape `(dim, dim)`.
    """

    prior: Prior
    mean: Array
    factor: Array

    @property
    def exact(self) -> dict[str, bool]:
        """Whether each parameter's part of z' is N(0, I): none is."""
        return dict.fromkeys(self.names, False)

    def sample(self, key: Key) -> Theta:
        """Draw one θ, as `Prior.sample`."""
        return self.prior.sample(key)

    def log_prob(self, theta: Mapping[str, Any]) -> Array:
        """Normalised log density of one θ, as `Prior.log_prob`."""
        return self.prior.log_prob(theta)

    def to_latent(self, theta: Mapping[str, Any]) -> Array:
        """z' of one θ, shape `(dim,)`."""
        offset = self.prior.to_latent(theta) - self.mean
        return jax.scipy.linalg.solve_triangular(self.factor, offset, lower=True)

    def from_latent(self, z: Array) -> Theta:
        """One θ from z' of shape `(dim,)`; always inside the support."""
        return self.prior.from_latent(self._outer(z))

    def latent_log_prob(self, z: Array) -> Array:
        """Log density of z', a scalar."""
        return self.prior.latent_log_prob(self._outer(z)) + self._log_det

    def log_abs_det_jacobian(self, z: Array) -> Array:
        """`log|dθ/dz'|`, a scalar."""
        return self.prior.log_abs_det_jacobian(self._outer(z)) + self._log_det

    @property
    def _log_det(self) -> Array:
        return jnp.sum(jnp.log(jnp.diagonal(self.factor)))

    def _outer(self, z: Array) -> Array:
        return self.mean + self.factor @ z


@jax.jit
def recentre(prior: Prior, z: Array) -> Recentred:
    """Return a prior in whose latent coordinates `z`, shape `(n, dim)`, has unit covariance."""
    mean = jnp.mean(z, 0)
    offset = z - mean[None]
    covariance = offset.T @ offset / z.shape[0]
    # Parameters that are all but fixed keep a width that float32 can tell from zero.
    floor = 1e-6 * jnp.diag(jnp.diagonal(covariance) + 1e-6)
    return Recentred(prior, mean, jnp.linalg.cholesky(covariance + floor))


@functools.partial(jax.jit, static_argnames="batch")
def latents(prior: Prior | Recentred, theta: Theta, batch: int = 4096) -> Array:
    """Return z of many parameter sets, shape `(n, dim)`."""
    n = next(iter(theta.values())).shape[0]
    return jax.lax.map(prior.to_latent, theta, batch_size=min(batch, n))
