"""Gaussian noise that is learned from the residuals, together with the mean."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from jaxsbi.base import Array, Data, Key, configuration
from jaxsbi.networks import flatten
from jaxsbi.noise.base import Params

NOISE_GAIN = 10.0
"""How much faster than the mean's network a learned covariance moves: a scale has far to go."""


class WhitenedNormal(dist.Distribution):
    """A normal law by the lower triangular matrix W that makes its residuals white: W(x - μ).

    Unlike by a covariance, its density costs one product and no linear solve.
    """

    arg_constraints: dict[str, Any] = {"loc": constraints.real_vector}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("loc", "whiten")

    def __init__(self, loc: Array, whiten: Array) -> None:
        self.loc, self.whiten = loc, whiten
        super().__init__((), loc.shape)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws of shape `(*sample_shape, d)`."""
        u = jax.random.normal(key, (*sample_shape, self.loc.size), self.loc.dtype)
        solve = jax.scipy.linalg.solve_triangular
        residual = solve(self.whiten, u.reshape(-1, self.loc.size).T, lower=True).T
        return self.loc + residual.reshape(u.shape)

    def log_prob(self, value: Array) -> Array:
        """Return the log-density of vectors `(..., d)`."""
        u = (value - self.loc) @ self.whiten.T
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.whiten)))
        return dist.Normal().log_prob(u).sum(-1) + log_det


@configuration
class EstimatedNoise:
    """Gaussian noise whose covariance is learned together with the mean.

    Attributes:
        network: A Flax module from the latent parameters to a vector, where the variances depend
            on them; the correlations do not.
    """

    network: nn.Module | None = None

    def init(self, key: Key, scale: Array, dim: int) -> Params:
        """Return the Cholesky factor of the precision in standard units: the identity."""
        params: Params = {
            "log_diagonal": jnp.zeros(scale.size, scale.dtype),
            "lower": jnp.zeros(scale.size * (scale.size - 1) // 2, scale.dtype),
        }
        if self.network is not None:
            head = Widths(self.network, scale.size)
            params["network"] = head.init(key, jnp.zeros(dim, scale.dtype))["params"]
        return params

    def distribution(self, params: Params, mean: Data, scale: Array, z: Array) -> dist.Distribution:
        """Return the law of the flattened data, shape `(d,)`."""
        location = flatten(mean)
        d, dtype = location.size, location.dtype
        log_diagonal = NOISE_GAIN * params["log_diagonal"]
        if self.network is not None:
            widths = Widths(self.network, d).apply({"params": params["network"]}, z)
            log_diagonal = log_diagonal - widths
        # 15 e-folds below the data's own scatter: a deterministic simulator stays finite.
        log_diagonal = 15.0 * jnp.tanh(log_diagonal / 15.0)
        rows, columns = np.tril_indices(d, -1)
        lower = jnp.eye(d, dtype=dtype).at[rows, columns].set(NOISE_GAIN * params["lower"])
        return WhitenedNormal(location, jnp.exp(log_diagonal)[:, None] * lower / scale[None])


class Widths(nn.Module):
    """A network, and a linear head that starts at zero: log-widths of the noise."""

    network: nn.Module
    size: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Return `(size,)` numbers from latent parameters `(dim,)`."""
        return nn.Dense(self.size, kernel_init=nn.initializers.zeros)(self.network(z))


def estimated(network: nn.Module | None = None) -> EstimatedNoise:
    """Return Gaussian noise that is learned from the residuals of noisy simulations.

    Args:
        network: A Flax module, called on the latent parameters, by which each number's variance
            depends on them; by default the covariance is the same everywhere.
    """
    return EstimatedNoise(network=network)
