"""Noise models: the density of an observation around the emulator's mean."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, configuration, is_concrete, leaf
from jaxsbi.densities.base import LOG_2PI

NOISE_GAIN = 10.0
"""How much faster than the mean's network a learned covariance moves: a scale has far to go."""


@configuration
class GaussianNoise:
    """Gaussian noise of known covariance.

    Attributes:
        cholesky: Lower Cholesky factor of the covariance, shape `(d, d)`, in the data's units.
    """

    cholesky: Array = leaf()

    def init(self, scale: Array) -> dict[str, Array]:
        """Return trainable parameters: none. `scale` is the data's standard deviation.

        Raises:
            ValueError: If the covariance has another size than the data.
        """
        if scale.shape != self.cholesky.shape[:1]:
            raise ValueError(
                f"noise.gaussian: expected a covariance of shape {(scale.size, scale.size)} for "
                f"data of {scale.size} numbers, got {self.cholesky.shape}."
            )
        return {}

    def log_prob(self, params: dict[str, Array], residual: Array, scale: Array) -> Array:
        """Return the log-density (a scalar) of a residual of shape `(d,)` in the data's units."""
        del params, scale
        u = jax.scipy.linalg.solve_triangular(self.cholesky, residual, lower=True)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.cholesky)))
        return -0.5 * jnp.sum(u * u) - log_det - 0.5 * u.size * LOG_2PI


@configuration
class EstimatedNoise:
    """Gaussian noise whose covariance is learned together with the mean."""

    def init(self, scale: Array) -> dict[str, Array]:
        """Return the Cholesky factor of the precision in standard units: the identity."""
        dim = scale.size
        return {
            "log_diagonal": jnp.zeros(dim, scale.dtype),
            "lower": jnp.zeros(dim * (dim - 1) // 2, scale.dtype),
        }

    def log_prob(self, params: dict[str, Array], residual: Array, scale: Array) -> Array:
        """Return the log-density (a scalar) of a residual of shape `(d,)` in the data's units."""
        r = residual / scale
        # 15 e-folds below the data's own scatter: a deterministic simulator stays finite.
        log_diagonal = 15.0 * jnp.tanh(NOISE_GAIN * params["log_diagonal"] / 15.0)
        rows, columns = np.tril_indices(r.size, -1)
        lower = (
            jnp.zeros((r.size, r.size), r.dtype).at[rows, columns].set(NOISE_GAIN * params["lower"])
        )
        u = jnp.exp(log_diagonal) * (r + lower @ r)
        log_det = jnp.sum(log_diagonal) - jnp.sum(jnp.log(scale))
        return -0.5 * jnp.sum(u * u) + log_det - 0.5 * u.size * LOG_2PI


def gaussian(covariance: Any) -> GaussianNoise:
    """Return Gaussian noise of known covariance.

    Args:
        covariance: Shape `(d, d)`, or the variances, shape `(d,)`, in squared units of the
            flattened data.

    Raises:
        ValueError: If it is not finite, symmetric and positive definite.
    """
    covariance = jnp.asarray(covariance, float)
    if covariance.ndim == 1:
        covariance = jnp.diag(covariance)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"noise.gaussian: expected shape (d, d) or (d,), got {covariance.shape}.")
    cholesky = jnp.linalg.cholesky(covariance)
    if is_concrete(covariance):
        matrix = np.asarray(covariance)
        if not np.all(np.isfinite(matrix)):
            raise ValueError("noise.gaussian: expected finite numbers, got NaN or infinity.")
        if not np.allclose(matrix, matrix.T, rtol=1e-4, atol=0.0):
            raise ValueError("noise.gaussian: expected a symmetric covariance, got another one.")
        if not np.all(np.isfinite(np.asarray(cholesky))):
            smallest = np.linalg.eigvalsh(matrix)[0]
            raise ValueError(
                "noise.gaussian: expected a positive definite covariance, got one whose smallest "
                f"eigenvalue is {smallest:.3g}. Add noise to its diagonal, or enable float64."
            )
    return GaussianNoise(cholesky=cholesky)


def estimated() -> EstimatedNoise:
    """Return Gaussian noise whose (constant) covariance is learned from the residuals."""
    return EstimatedNoise()
