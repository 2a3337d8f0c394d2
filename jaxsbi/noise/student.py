"""Noise whose covariance was estimated from a limited number of simulations."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from jaxsbi.base import Array, Data, Key, configuration, leaf
from jaxsbi.networks import flatten
from jaxsbi.noise.base import Params, check_size, factor


@configuration
class StudentNoise:
    """A multivariate Student t law around the prediction.

    Attributes:
        cholesky: Lower Cholesky factor of its scale matrix, shape `(d, d)`.
        degrees: Degrees of freedom, a scalar.
    """

    cholesky: Array = leaf()
    degrees: Array = leaf()

    def init(self, key: Key, scale: Array, dim: int) -> Params:
        """Return trainable parameters: none.

        Raises:
            ValueError: If the covariance has another size than the data.
        """
        del key, dim
        check_size("noise.student_t", self.cholesky.shape[0], scale)
        return {}

    def distribution(self, params: Params, mean: Data, scale: Array, z: Array) -> dist.Distribution:
        """Return the law of the flattened data, shape `(d,)`."""
        del params, scale, z
        return dist.MultivariateStudentT(self.degrees, flatten(mean), self.cholesky)


def student_t(covariance: Any, simulations: int) -> StudentNoise:
    """Return the law of Gaussian data whose covariance was estimated from n simulations.

    The unknown true covariance is integrated out (Sellentin and Heavens 2016, arXiv:1511.05969):
    p(x) is proportional to [1 + (x - μ)ᵀ S⁻¹ (x - μ) / (n - 1)]^(-n/2), a Student t law with
    n - d degrees of freedom.

    Args:
        covariance: The unbiased estimate S, shape `(d, d)`, in squared units of the flattened data.
        simulations: The number n of independent simulations it was estimated from.

    Raises:
        ValueError: If S is not finite, symmetric and positive definite, or n is d or less.
    """
    covariance = jnp.asarray(covariance, float)
    if covariance.ndim != 2:
        raise ValueError(f"noise.student_t: expected shape (d, d), got {covariance.shape}.")
    cholesky = factor("noise.student_t", covariance)
    d = cholesky.shape[0]
    if simulations <= d:
        raise ValueError(
            f"noise.student_t: expected a covariance of {d} numbers from more than {d} "
            f"simulations, got simulations={simulations}. Compress the data, or simulate more."
        )
    degrees = jnp.asarray(simulations - d, cholesky.dtype)
    return StudentNoise(cholesky=cholesky * jnp.sqrt((simulations - 1) / degrees), degrees=degrees)
