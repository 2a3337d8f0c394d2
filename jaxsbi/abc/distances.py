"""Distances between data sets: unbatched functions `distance(x, x_observed) -> scalar`.

Any function of this form will do. Those here are pytrees, so that a scale estimated anew is no new
program. What is estimated from simulations is a leaf that can be read and given by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, configuration, leaf, varies
from jaxsbi.networks.flatten import flatten

Distance = Callable[[Data, Data], Array]
"""`distance(x, x_observed)` of two data sets (or two summaries of them): a scalar, 0 at best."""
Summary = Callable[[Data], Any]
"""`summary(x)` of one data set: what distances compare in its place."""

MAD_OF_NORMAL = 0.6744898
"""Median absolute deviation of N(0, 1): divided by it, a scale is a normal's standard deviation."""


@configuration
class Euclidean:
    """Weighted Euclidean distance `sqrt(sum(((x - x_observed) / scale)**2))` over all numbers.

    Attributes:
        scale: What one unit of distance is: a scalar, or one scale per number of the data set, in
            the pytree's order, shape `(p,)`.
    """

    scale: Any = leaf(default=1.0)

    def __call__(self, x: Data, x_observed: Data) -> Array:
        """Return the distance, a scalar."""
        return _norm((flatten(x) - flatten(x_observed)) / self.scale)


@configuration
class Mahalanobis:
    """Mahalanobis distance, the Euclidean one after the data have been decorrelated.

    Attributes:
        whiten: `W` with `W.T @ W` the inverse covariance of the data, shape `(p, p)`.
    """

    whiten: Array = leaf()

    def __call__(self, x: Data, x_observed: Data) -> Array:
        """Return the distance, a scalar."""
        return _norm(self.whiten @ (flatten(x) - flatten(x_observed)))


@configuration
class Energy:
    """Energy distance of two sets, whose leading axis counts exchangeable members.

    The root of `2 E|a - b| - E|a - a'| - E|b - b'|`, a metric of distributions without a parameter
    to choose (Székely & Rizzo 2013, J. Stat. Plan. Inference 143, 1249; in ABC: Nguyen, Arbel, Lü
    & Forbes 2020, arXiv:1905.05884). Every leaf of x has shape `(members, ...)`.

    Attributes:
        scale: A scalar, or one scale per number of a member.
    """

    scale: Any = leaf(default=1.0)

    def __call__(self, x: Data, x_observed: Data) -> Array:
        """Return the distance, a scalar."""
        a, b = _members(x, self.scale), _members(x_observed, self.scale)
        between, within, observed = (_mean_of_pairs(_norm, *s) for s in ((a, b), (a, a), (b, b)))
        return jnp.sqrt(jnp.maximum(2.0 * between - within - observed, 0.0))


@configuration
class MaximumMeanDiscrepancy:
    """Maximum mean discrepancy of two sets under a Gaussian kernel.

    Gretton et al. 2012, J. Mach. Learn. Res. 13, 723; in ABC: Park, Jitkrittum & Sejdinovic 2016,
    arXiv:1502.02558. Every leaf of x has shape `(members, ...)`.

    Attributes:
        scale: Standard deviation of the kernel: a scalar, or one per number of a member. Sets that
            are further apart than a few of them all look equally far.
    """

    scale: Any = leaf()

    def __call__(self, x: Data, x_observed: Data) -> Array:
        """Return the distance, a scalar."""

        def kernel(difference: Array) -> Array:
            return jnp.exp(-0.5 * jnp.sum(difference**2))

        a, b = _members(x, self.scale), _members(x_observed, self.scale)
        between, within, observed = (_mean_of_pairs(kernel, *s) for s in ((a, b), (a, a), (b, b)))
        return jnp.sqrt(jnp.maximum(within + observed - 2.0 * between, 0.0))


def scaled_euclidean(x: Data) -> Euclidean:
    """Return a Euclidean distance whose scales are estimated from simulated data, robustly.

    The scale of a number is its median absolute deviation (Prangle 2017, arXiv:1507.00874), made
    comparable with a standard deviation. Where more than half of the values are equal it is 0,
    and the standard deviation is taken; a number that never changed has scale 1.

    Args:
        x: Simulated data, every leaf of shape `(n, *shape)`; rows that are not finite do not count.
    """
    rows = _finite_rows(x)
    centre = jnp.nanmedian(rows, axis=0)
    deviation = jnp.nanmedian(jnp.abs(rows - centre[None]), axis=0) / MAD_OF_NORMAL
    mean = jnp.nanmean(rows, axis=0)
    standard = jnp.sqrt(jnp.nanmean((rows - mean[None]) ** 2, axis=0))
    # The deviation of a constant is the rounding of its mean.
    scale = jnp.where(varies(deviation, mean), deviation, standard)
    return Euclidean(scale=jnp.where(varies(scale, mean), scale, 1.0))


def mahalanobis(x: Data) -> Mahalanobis:
    """Return a Mahalanobis distance whose covariance is estimated from simulated data.

    Args:
        x: Simulated data, every leaf of shape `(n, *shape)`, with more rows than numbers; rows that
            are not finite do not count.
    """
    rows = _finite_rows(x)
    centred = rows - jnp.nanmean(rows, axis=0)[None]
    count = jnp.sum(jnp.isfinite(rows[:, 0]))
    centred = jnp.where(jnp.isfinite(centred), centred, 0.0)
    scale = jnp.sqrt(jnp.sum(centred**2, axis=0) / count)
    scale = jnp.where(scale > 0, scale, 1.0)
    # On correlations, so that the floor means the same for every unit of the data.
    standard = centred / scale[None]
    size, axes = jnp.linalg.eigh(standard.T @ standard / count)
    size = jnp.maximum(size, 1e-6)
    return Mahalanobis(whiten=(axes / jnp.sqrt(size)[None]).T / scale[None])


def _norm(difference: Array) -> Array:
    return jnp.sqrt(jnp.sum(difference**2))


def _finite_rows(x: Data) -> Array:
    """Return data as a matrix `(n, p)`, with NaN in every place of a row that is not finite."""
    rows = jax.vmap(flatten)(x)
    return jnp.where(jnp.all(jnp.isfinite(rows), axis=1, keepdims=True), rows, jnp.nan)


def _members(x: Data, scale: Array) -> Array:
    """Return the members of a set as rows, in units of the scale."""
    return jax.vmap(flatten)(x) / (scale if jnp.ndim(scale) == 0 else scale[None])


def _mean_of_pairs(function: Callable[[Array], Array], a: Array, b: Array) -> Array:
    """Return the mean over pairs of members; one member at a time, as all pairs do not fit."""
    sums = jax.lax.map(lambda one: jnp.sum(jax.vmap(lambda other: function(one - other))(b)), a)
    return jnp.sum(sums) / (a.shape[0] * b.shape[0])
