"""The protocol of a noise model: the law of a data set around the emulator's prediction."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import Array, Data, Key, is_concrete

Params = dict[str, Any]


class Noise(Protocol):
    """A configuration with two pure functions.

    A law that may not be one for all predictions has a third function, `check(means)`, called on
    the host with some predictions, every array of shape `(n, *shape)`; it raises a ValueError.

    The law is of all numbers of a data set as one real vector, `jaxsbi.networks.flatten(x)`, in
    which a complex array is its real parts followed by its imaginary parts.
    """

    def init(self, key: Key, scale: Array, dim: int) -> Params:
        """Return what is trained, {} for a law that is known.

        Args:
            key: A typed key.
            scale: Standard deviation of each number of the training data, shape `(d,)`.
            dim: The number of latent parameters.

        Raises:
            ValueError: If the model is for another number of data.
        """
        ...

    def distribution(self, params: Params, mean: Data, scale: Array, z: Array) -> dist.Distribution:
        """Return the law of `flatten(x)`, a NumPyro distribution of event shape `(d,)`.

        Args:
            params: As `init` made them, or trained.
            mean: The predicted data set, in the structure and units of the simulator's.
            scale: As for `init`.
            z: The latent parameters, shape `(dim,)`.
        """
        ...


def log_prob(d: dist.Distribution, x: Array) -> Array:
    """Return a law's log-density at the real vector `x` (a scalar)."""
    # NumPyro broadcasts by NumPy's rules, which a user may have switched off.
    with jax.numpy_rank_promotion("allow"):
        return d.log_prob(x)


def check_size(name: str, size: int, scale: Array) -> None:
    """Raise a ValueError unless a law of `size` numbers is for data of that size."""
    if scale.shape != (size,):
        raise ValueError(
            f"{name}: expected a covariance of shape {(scale.size, scale.size)}, or variances of "
            f"shape {(scale.size,)}, for data of {scale.size} numbers, got one of {size}."
        )


def factor(name: str, covariance: Any) -> Array:
    """Return the lower Cholesky factor of a covariance, or standard deviations.

    Args:
        name: The function's name, for messages.
        covariance: Shape `(d, d)`, or the variances, shape `(d,)`.

    Raises:
        ValueError: If it is concrete and not finite, symmetric and positive definite.
    """
    covariance = jnp.asarray(covariance, float)
    if covariance.ndim not in (1, 2) or covariance.shape[0] != covariance.shape[-1]:
        raise ValueError(f"{name}: expected shape (d, d) or (d,), got {covariance.shape}.")
    one = covariance.ndim == 1
    # JAX's Cholesky factor is that of the symmetric part.
    cholesky = jnp.sqrt(covariance) if one else jnp.linalg.cholesky(covariance)
    if not is_concrete(covariance):
        return cholesky
    matrix, diagonal = np.asarray(covariance), np.asarray(cholesky if one else jnp.diag(cholesky))
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity.")
    if not one and not _is_symmetric(matrix):
        raise ValueError(f"{name}: expected a symmetric covariance, got another one.")
    if not np.all(diagonal > 0):  # NaN is not
        smallest = matrix.min() if one else np.linalg.eigvalsh(matrix)[0]
        raise ValueError(
            f"{name}: expected a positive definite covariance, got one whose smallest "
            f"eigenvalue is {smallest:.3g}. Add noise to its diagonal, or enable float64."
        )
    return cholesky


def _is_symmetric(matrix: np.ndarray) -> bool:
    """Whether it is up to rounding, in which a correlation of 0 may be 1e-16 and -1e-17."""
    deviation = np.sqrt(np.abs(np.diag(matrix)))
    return bool(np.all(np.abs(matrix - matrix.T) <= 1e-4 * np.outer(deviation, deviation)))
