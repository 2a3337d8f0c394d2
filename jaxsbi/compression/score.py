"""Score compression: the gradient of the log-likelihood at one parameter set, a number for each."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxsbi.base import Array, Data, Theta, configuration, is_concrete, leaf
from jaxsbi.networks import flatten
from jaxsbi.noise import gaussian


@configuration
class Score:
    """The score of a likelihood at a fixed parameter set: `x -> (d,)`.

    Attributes:
        log_likelihood: `log_likelihood(theta, x) -> scalar`.
        theta: The parameter set.
    """

    log_likelihood: Callable[[Theta, Data], Array]
    theta: Theta = leaf()

    def __call__(self, x: Data) -> Array:
        """Return the score of one data set, shape `(d,)`, in inverse units of the parameters."""
        flat, unravel = ravel_pytree(self.theta)
        return jax.grad(lambda v: self.log_likelihood(unravel(v), x))(flat)


@configuration
class GaussianScore:
    """The score of a mean in Gaussian noise at a fixed parameter set: linear, `x -> (d,)`.

    Attributes:
        mean: The data's mean there, shape `(p,)`.
        slopes: Shape `(p, d)`.
    """

    mean: Array = leaf()
    slopes: Array = leaf()

    def __call__(self, x: Data) -> Array:
        """Return the score of one data set, shape `(d,)`, in inverse units of the parameters."""
        return (flatten(x) - self.mean) @ self.slopes


def score(log_likelihood: Callable[[Theta, Data], Array], theta: Theta) -> Score:
    """Return the score of a likelihood as a summary (Alsing & Wandelt 2018, arXiv:1712.00012).

    It keeps the Fisher information at `theta`, and everything where the log-likelihood is linear
    in functions of theta of as many numbers. One learned by `nle` serves:
    `lambda theta, x: posterior.log_prob(theta, x) - prior.log_prob(theta)`.

    Args:
        log_likelihood: `log_likelihood(theta, x) -> scalar`, differentiable, of one data set.
        theta: The parameter set, named: near the maximum of the likelihood.
    """
    return Score(
        log_likelihood=log_likelihood, theta={k: jnp.asarray(a, float) for k, a in theta.items()}
    )


def gaussian_score(mean: Callable[[Theta], Data], covariance: Array, theta: Theta) -> GaussianScore:
    """Return the score Jᵀ C⁻¹ (x - mean) of a differentiable mean in Gaussian noise.

    J is the mean's derivative by theta (`jax.jacfwd`). The covariance does not depend on theta.
    Source: Heavens, Jimenez & Lahav 2000, arXiv:astro-ph/9911102.

    Args:
        mean: `mean(theta) -> x` without noise, any pytree of p numbers in all.
        covariance: Of the noise, shape `(p, p)`, or the variances, shape `(p,)`.
        theta: The parameter set, named.

    Raises:
        ValueError: If the covariance has another size than the data or is not positive definite.
    """
    flat, unravel = ravel_pytree({name: jnp.asarray(a, float) for name, a in theta.items()})
    centre = flatten(mean(unravel(flat)))
    jacobian = jax.jacfwd(lambda v: flatten(mean(unravel(v))))(flat)
    covariance, size = jnp.asarray(covariance, float), centre.size
    if covariance.shape not in ((size,), (size, size)):
        raise ValueError(
            f"covariance: expected shape {(size, size)} or {(size,)} for a mean of {size} numbers, "
            f"got {covariance.shape}. For equal, independent noise: sigma**2 * jnp.ones({size})."
        )
    if covariance.ndim == 1:
        if is_concrete(covariance) and not bool(jnp.all(covariance > 0)):
            raise ValueError(
                f"covariance: expected positive variances, got {float(jnp.min(covariance)):.3g}."
            )
        return GaussianScore(mean=centre, slopes=jacobian / covariance[:, None])
    factor = gaussian(covariance).cholesky
    return GaussianScore(mean=centre, slopes=jax.scipy.linalg.cho_solve((factor, True), jacobian))
