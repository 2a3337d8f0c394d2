"""Fisher forecasts: how well data could constrain the parameters, from a differentiable model."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxsbi.base import Array, Data, Theta, is_concrete, warn
from jaxsbi.noise import gaussian
from jaxsbi.workarounds import register_dataclass

MAX_MEAN_SCORE = 5.0
"""Standard errors by which a mean score may be off zero before a warning is given."""


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Fisher:
    """The Fisher information of one parameter set, and the errors that it allows.

    A pytree: forecasts at many parameter sets (`jax.vmap`) have leading axes on every array.

    Attributes:
        matrix: Shape `(d, d)`, in inverse products of the parameters' units. The information of
            independent experiments, and the precision of a Gaussian prior, add.
        names: The name of each of the d numbers: the parameter's, with its index.
        shapes: Each parameter's name and shape, in the order of the numbers.
    """

    matrix: Array
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = dataclasses.field(metadata={"static": True})

    @property
    def covariance(self) -> Array:
        """The inverse, shape `(d, d)`: no unbiased estimator scatters less (Cramér-Rao).

        Raises:
            ValueError: If the matrix is not positive definite; the message names the combination
                of parameters that the data do not constrain. (NaN under `jax.jit`.)
        """
        if is_concrete(self.matrix):
            matrices = np.asarray(self.matrix).reshape(-1, len(self.names), len(self.names))
            for matrix in matrices:
                _check_definite(matrix, self.names)
        # Scaled to ones on the diagonal first: parameters may have very different units.
        scale = jnp.sqrt(jnp.diagonal(self.matrix, axis1=-2, axis2=-1))
        product = scale[..., :, None] * scale[..., None, :]
        return jnp.linalg.inv(self.matrix / product) / product

    @property
    def standard_errors(self) -> Theta:
        """Marginal errors, by name, in the parameters' units: nothing else is known.

        Raises:
            ValueError: As `covariance`.
        """
        return self._named(jnp.sqrt(jnp.diagonal(self.covariance, axis1=-2, axis2=-1)))

    @property
    def conditional_errors(self) -> Theta:
        """Errors by name, in the parameters' units, of each number if all others were known."""
        return self._named(jnp.diagonal(self.matrix, axis1=-2, axis2=-1) ** -0.5)

    def _named(self, values: Array) -> Theta:
        """Return numbers, shape `(…, d)`, as named parameters."""
        sizes = [math.prod(shape) for _, shape in self.shapes]
        parts = jnp.split(values, np.cumsum(sizes)[:-1], axis=-1)
        return {
            name: part.reshape(*values.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes, parts, strict=True)
        }


def fisher_information(
    log_likelihood: Callable[[Theta, Data], Array], theta: Theta, x: Data
) -> Fisher:
    """Return the Fisher information as the mean outer product of scores of simulated data.

    The score, the gradient of log p(x | theta) with respect to theta, has mean zero over data
    simulated at theta; its covariance is the information (Fisher 1925, Math. Proc. Camb. Phil.
    Soc. 22, 700). From n data sets each element is known to about sqrt(2 / n) of itself.

    Args:
        log_likelihood: `log_likelihood(theta, x) -> scalar`, differentiable, of one data set
            (traced once per function object); up to what depends on x only, so that a learned one
            serves:
            `lambda theta, x: posterior.log_prob(theta, x) - prior.log_prob(theta)`.
        theta: The parameter set to forecast at, named, each of shape `(*shape)`.
        x: Data simulated at theta (`jaxsbi.simulate.simulate_at`), every leaf `(n, *shape)`.

    Returns:
        The information and the errors it allows. A warning is given if the scores' mean is not
        zero: the data are not of this likelihood at this theta. (Not under `jax.jit`.)

    Raises:
        TypeError: If theta is not a dict of arrays, or the log-likelihood is not a scalar.
        ValueError: If there are fewer than d + 1 data sets, or a score is not finite.
    """
    theta, names, shapes = _named_numbers(theta)
    rows = {jnp.shape(a)[:1] for a in jax.tree.leaves(x)}
    if len(rows) != 1 or rows == {()} or min(rows)[0] <= len(names):
        raise ValueError(
            f"x: expected at least {len(names) + 1} data sets for {len(names)} numbers in theta, "
            f"on the leading axis of every leaf, got leading axes {sorted(rows)}. Simulate more."
        )
    scores = _scores(log_likelihood, theta, x)
    if is_concrete(scores):
        _check_scores(np.asarray(scores), names)
    return Fisher(scores.T @ scores / scores.shape[0], names, shapes)


def gaussian_fisher(mean: Callable[[Theta], Data], covariance: Array, theta: Theta) -> Fisher:
    """Return the Fisher information of a differentiable mean in Gaussian noise: J' C^-1 J.

    J is the mean's derivative by theta (`jax.jacfwd`). Source: Tegmark, Taylor & Heavens 1997,
    arXiv:astro-ph/9603021, eq. 15, for a covariance that does not depend on theta (for one that
    does, use `fisher_information`).

    Args:
        mean: `mean(theta) -> x` without noise, any pytree of arrays, d_x numbers in all (traced
            once per function object).
        covariance: Of the noise, shape `(d_x, d_x)`, or the variances, shape `(d_x,)`, in squared
            units of the flattened data.
        theta: The parameter set to forecast at, named, each of shape `(*shape)`.

    Raises:
        TypeError: If theta is not a dict of arrays.
        ValueError: If the covariance has another size than the data or is not positive definite,
            or a derivative is not finite.
    """
    theta, names, shapes = _named_numbers(theta)
    jacobian = _jacobian(mean, theta)
    size = jacobian.shape[0]
    covariance = jnp.asarray(covariance, float)
    if covariance.shape not in ((size,), (size, size)):
        raise ValueError(
            f"covariance: expected shape {(size, size)} or {(size,)} for a mean of {size} numbers, "
            f"got {covariance.shape}. For equal, independent noise: sigma**2 * jnp.ones({size})."
        )
    if is_concrete(jacobian) and not np.all(np.isfinite(jacobian)):
        raise ValueError(
            f"mean: expected a finite derivative by {list(names)}, got "
            f"{int(np.sum(~np.isfinite(jacobian)))} NaN or infinite numbers of {jacobian.size}. "
            "A square root or a norm at zero is the usual cause."
        )
    if covariance.ndim == 2:
        factor = gaussian(covariance).cholesky
        white = jax.scipy.linalg.solve_triangular(factor, jacobian, lower=True)
    else:
        # A diagonal matrix of an image's pixels would not fit into memory.
        if is_concrete(covariance) and not np.all(np.asarray(covariance) > 0):
            raise ValueError(
                f"covariance: expected positive variances, got {float(jnp.min(covariance)):.3g}."
            )
        white = jacobian / jnp.sqrt(covariance)[:, None]
    return Fisher(white.T @ white, names, shapes)


@functools.partial(jax.jit, static_argnames="log_likelihood")
def _scores(log_likelihood: Callable[[Theta, Data], Array], theta: Theta, x: Data) -> Array:
    flat, unravel = ravel_pytree(theta)

    def one(x: Data) -> Array:
        return jax.grad(lambda v: log_likelihood(unravel(v), x))(flat)

    return jax.vmap(one)(x)


@functools.partial(jax.jit, static_argnames="mean")
def _jacobian(mean: Callable[[Theta], Data], theta: Theta) -> Array:
    flat, unravel = ravel_pytree(theta)
    return jax.jacfwd(lambda v: ravel_pytree(mean(unravel(v)))[0])(flat)


def _named_numbers(
    theta: Theta,
) -> tuple[Theta, tuple[str, ...], tuple[tuple[str, tuple[int, ...]], ...]]:
    """Return theta as floats, a name for each of its numbers, and its shapes, as JAX orders it."""
    if not isinstance(theta, dict) or not theta:
        raise TypeError(
            "theta: expected a dict of named arrays such as {'width': 0.1}, got "
            f"{type(theta).__name__}. The forecast is made at one parameter set."
        )
    theta = {name: jnp.asarray(theta[name], float) for name in sorted(theta)}
    names = []
    for name, value in theta.items():
        for index in np.ndindex(*value.shape):
            names.append(name + (f"[{', '.join(map(str, index))}]" if index else ""))
    return theta, tuple(names), tuple((name, value.shape) for name, value in theta.items())


def _check_scores(scores: np.ndarray, names: tuple[str, ...]) -> None:
    n = len(scores)
    bad = ~np.isfinite(scores).all(1)
    if bad.any():
        raise ValueError(
            f"log_likelihood: expected finite derivatives by {list(names)}, got NaN or infinity "
            f"for {int(bad.sum())} of {n} data sets. Evaluate jax.grad at one of them."
        )
    error = np.maximum(np.std(scores, 0, ddof=1) / math.sqrt(n), np.finfo(scores.dtype).tiny)
    off = np.abs(np.mean(scores, 0)) / error
    if off.max() > MAX_MEAN_SCORE:
        warn(
            f"fisher_information: the mean score of {names[int(off.argmax())]} is {off.max():.3g} "
            "standard errors off zero: x was not drawn from this likelihood at this theta. "
            "Simulate x at theta, with the simulator whose likelihood this is."
        )


def _check_definite(matrix: np.ndarray, names: tuple[str, ...]) -> None:
    """Raise an error that names what is not constrained, unless the matrix can be inverted."""
    if not np.all(np.isfinite(matrix)):
        raise ValueError("Fisher: expected a finite matrix, got NaN or infinity.")
    diagonal = np.diagonal(matrix).astype(float)
    if np.any(diagonal <= 0):
        flat = [name for name, value in zip(names, diagonal, strict=True) if value <= 0]
        raise ValueError(
            f"Fisher: expected a positive definite matrix, got no information on {flat}: the data "
            "do not depend on them here. Leave them out of theta, or add a prior's precision."
        )
    scale = np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    if values[0] > 8 * len(names) * np.finfo(matrix.dtype).eps:
        return
    direction = vectors[:, 0] / scale
    # Numbers that take no part move by less than rounding moves them.
    keep = np.abs(vectors[:, 0]) > 1e-2
    direction = direction / direction[np.argmax(np.abs(direction) * keep)]
    terms = " ".join(f"{direction[i]:+.3g} {names[i]}" for i in np.flatnonzero(keep))
    raise ValueError(
        "Fisher: expected a positive definite matrix, got one that does not constrain the "
        f"direction ({terms}): parameters moved along it leave the data as they are. Fix one of "
        "them, add a prior's precision to the matrix, or enable float64 if it is close to that."
    )
