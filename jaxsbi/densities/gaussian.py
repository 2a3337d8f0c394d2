"""Gaussian and Gaussian-mixture densities whose moments are functions of the context."""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Key
from jaxsbi.densities.base import LOG_2PI, View, check_some, kernel_init, require_dim
from jaxsbi.networks import activations

# exp(±10) spans the scales float32 can hold beside one another without losing the smaller.
MAX_LOG_SCALE = 10.0


class GaussianMixture(nn.Module):
    """Mixture of full-covariance Gaussians (Bishop 1994, "Mixture density networks").

    Each component is parametrised by its mean and the Cholesky factor of its precision, so the
    density needs no matrix inverse.

    Attributes:
        components: Number of components.
        hidden: Width of the network that reads the context.
        depth: Its hidden layers.
        activation: A registered name.
        dim: Number of dimensions; set by the method.
    """

    components: int = 8
    hidden: int = 64
    depth: int = 2
    activation: str = "silu"
    dim: int | None = None

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there are no components.
        """
        super().__post_init__()
        check_some(self, "components")

    def setup(self) -> None:
        """Create the network."""
        dim = require_dim(self)
        k, off = self.components, dim * (dim - 1) // 2
        self.body = [nn.Dense(self.hidden, kernel_init=kernel_init()) for _ in range(self.depth)]
        zeros = nn.initializers.zeros
        self.weights = nn.Dense(k, kernel_init=zeros)
        # Components start at different places, or they would all learn the same thing; a single
        # one starts as N(0, I).
        spread = nn.initializers.normal(1.0) if k > 1 else zeros
        self.means = nn.Dense(k * dim, kernel_init=zeros, bias_init=spread)
        self.scales = nn.Dense(k * dim, kernel_init=zeros)
        self.lower = nn.Dense(k * off, kernel_init=zeros) if off else None

    def _moments(self, context: Array) -> tuple[Array, Array, Array, Array]:
        """Return log-weights (k,), means (k, d), log-diagonals (k, d), precision factors."""
        dim, k = require_dim(self), self.components
        activation = activations.get(self.activation)
        h = context
        for dense in self.body:
            h = activation(dense(h))
        log_weight = jax.nn.log_softmax(self.weights(h))
        mean = jnp.reshape(self.means(h), (k, dim))
        raw = jnp.reshape(self.scales(h), (k, dim))
        log_diagonal = MAX_LOG_SCALE * jnp.tanh(raw / MAX_LOG_SCALE)
        factor = jax.vmap(jnp.diag)(jnp.exp(log_diagonal))
        if self.lower is not None:
            rows, columns = np.tril_indices(dim, -1)
            # Rows scale with their diagonal, so that a correlation does not depend on units.
            off = jnp.reshape(self.lower(h), (k, -1)) * jnp.exp(log_diagonal)[:, rows]
            factor = factor.at[:, rows, columns].set(off)
        return log_weight, mean, log_diagonal, factor

    def log_prob(self, z: Array, context: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, given a context `(c,)`."""
        return self._log_prob(z, *self._moments(context))

    def _log_prob(
        self, z: Array, log_weight: Array, mean: Array, log_diagonal: Array, factor: Array
    ) -> Array:
        u = jnp.einsum("kij,kj->ki", factor, z[None] - mean)
        log_prob = -0.5 * jnp.sum(u * u, -1) + jnp.sum(log_diagonal, -1)
        log_prob = log_prob - 0.5 * require_dim(self) * LOG_2PI
        return jax.scipy.special.logsumexp(log_weight + log_prob)

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        """Return one draw, shape `(d,)`, and its log-density."""
        moments = self._moments(context)
        log_weight, mean, _, factor = moments
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, log_weight)
        u = jax.random.normal(key_noise, (require_dim(self),), mean.dtype)
        z = mean[component] + jax.scipy.linalg.solve_triangular(factor[component], u, lower=True)
        return z, self._log_prob(z, *moments)

    def distribution(self, context: Array) -> distrax.Distribution:
        """Return a distrax view; it must not leave the trace it was made in."""
        return View(self, context)


def Gaussian(  # noqa: N802 - it stands where a module class would
    hidden: int = 64, depth: int = 2, activation: str = "silu", dim: int | None = None
) -> GaussianMixture:
    """Return a Gaussian with mean and full covariance from the context: a mixture of one."""
    return GaussianMixture(components=1, hidden=hidden, depth=depth, activation=activation, dim=dim)
