"""Gaussian noise of known covariance, fixed or a function of the prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from jaxsbi.base import Array, Data, Key, configuration, leaf
from jaxsbi.networks import flatten
from jaxsbi.noise.base import Params, check_size, factor


def normal(mean: Array, cholesky: Array) -> dist.Distribution:
    """Return the normal law of a vector, by a Cholesky factor or standard deviations."""
    if cholesky.ndim == 1:
        return dist.Normal(mean, cholesky).to_event(1)
    return dist.MultivariateNormal(mean, scale_tril=cholesky)


TRIED = 8
"""Predictions at which a covariance that depends on them is looked at."""


@configuration
class GaussianNoise:
    """Gaussian noise of known covariance.

    Attributes:
        cholesky: Lower Cholesky factor of the covariance, shape `(d, d)`, or the standard
            deviations of independent numbers, shape `(d,)`, in the data's units.
    """

    cholesky: Array = leaf()

    def init(self, key: Key, scale: Array, dim: int) -> Params:
        """Return trainable parameters: none.

        Raises:
            ValueError: If the covariance has another size than the data.
        """
        del key, dim
        check_size("noise.gaussian", self.cholesky.shape[0], scale)
        return {}

    def distribution(self, params: Params, mean: Data, scale: Array, z: Array) -> dist.Distribution:
        """Return the law of the flattened data, shape `(d,)`."""
        del params, scale, z
        return normal(flatten(mean), self.cholesky)


@configuration
class ModelledNoise:
    """Gaussian noise whose covariance is a known function of the prediction.

    Attributes:
        function: From the predicted data set, in the simulator's structure and units, to its
            covariance, shape `(d, d)`, or variances, shape `(d,)`; in JAX.
    """

    function: Callable[[Data], Array]

    def init(self, key: Key, scale: Array, dim: int) -> Params:
        """Return trainable parameters: none."""
        del key, scale, dim
        return {}

    def distribution(self, params: Params, mean: Data, scale: Array, z: Array) -> dist.Distribution:
        """Return the law of the flattened data, shape `(d,)`.

        Raises:
            ValueError: If the function's covariance has another size than the data.
        """
        del params, scale, z
        location, covariance = flatten(mean), self._covariance(mean)
        one = covariance.ndim == 1
        return normal(location, jnp.sqrt(covariance) if one else jnp.linalg.cholesky(covariance))

    def check(self, means: Data) -> None:
        """Look at the covariance of some predictions, every array of shape `(n, *shape)`.

        Raises:
            ValueError: If it is not finite, symmetric and positive definite.
        """
        some = jax.tree.map(lambda a: jnp.asarray(a[:TRIED]), means)
        for covariance in jax.vmap(self._covariance)(some):
            factor("noise.gaussian_of", covariance)

    def _covariance(self, mean: Data) -> Array:
        size, covariance = flatten(mean).size, jnp.asarray(self.function(mean))
        if covariance.shape not in ((size,), (size, size)):
            raise ValueError(
                f"noise.gaussian_of: expected a function that returns shape {(size, size)} "
                f"or {(size,)}, got {covariance.shape}."
            )
        return covariance


def gaussian(covariance: Any, *, simulations: int | None = None) -> GaussianNoise:
    """Return Gaussian noise of known covariance.

    Args:
        covariance: Shape `(d, d)`, or the variances, shape `(d,)`, in squared units of the
            flattened data (`jaxsbi.networks.flatten`).
        simulations: How many independent simulations the covariance was estimated from, if it
            was: its inverse is then made unbiased by (n - d - 2) / (n - 1) (Hartlap et al. 2007,
            arXiv:astro-ph/0608064). The posterior is still too narrow; see `student_t`.

    Raises:
        ValueError: If it is not finite, symmetric and positive definite, or estimated from d + 2
            simulations or fewer.
    """
    cholesky = factor("noise.gaussian", covariance)
    if simulations is not None:
        d = cholesky.shape[0]
        if simulations <= d + 2:
            raise ValueError(
                f"noise.gaussian: expected a covariance of {d} numbers from more than {d + 2} "
                f"simulations, got simulations={simulations}. Compress the data, or simulate more."
            )
        cholesky = cholesky * jnp.sqrt((simulations - 1) / (simulations - d - 2))
    return GaussianNoise(cholesky=cholesky)


def gaussian_of(function: Callable[[Data], Array]) -> ModelledNoise:
    """Return Gaussian noise whose covariance depends on the parameters through the prediction.

    For instance the scatter of a power spectrum that is known up to its number of modes,
    `gaussian_of(lambda c: 2 * c**2 / modes)`. The normalisation, which then depends on the
    parameters too, is counted.

    Args:
        function: From the predicted data set, in the simulator's structure and units, to the
            covariance of its numbers (`jaxsbi.networks.flatten`), shape `(d, d)`, or their
            variances, shape `(d,)`; in JAX. `fit` and `emulator_model` look at some, and raise a
            ValueError for one that is not positive definite. To be saved it must be of a class of
            your own with `__call__`, passed to `save` and `load` as `types=[...]`.
    """
    return ModelledNoise(function=function)
