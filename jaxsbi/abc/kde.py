"""Kernel-density posteriors: a density, and any number of draws, from kept and weighted draws."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.abc.nearest import is_number
from jaxsbi.base import (
    Array,
    Key,
    Theta,
    check_key,
    configuration,
    is_concrete,
    leaf,
    positive,
)
from jaxsbi.priors import Prior
from jaxsbi.samplers.weights import cholesky_and_inverse, effective_size, spread

BANDWIDTHS = (0.02, 0.03, 0.045, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1, 1.6)
"""Kernel widths tried, in units of the spread of a draw's neighbours."""
JUDGED = 1_000
"""Draws whose left-out density chooses the width, and among which neighbours are looked for."""
NEIGHBOURS = 4.0
"""Times the square root of the effective number of draws: neighbours that shape a kernel."""
FLOOR = 1e-6
"""Least variance of a kernel, in units of the draws' own: neighbours may all be the same."""
ROWS = 64
"""Draws whose neighbours are looked for at once."""
LEAST = 1e-12
"""Added to variances, so that rounding leaves them positive; draws with no more are one point."""


@configuration
class KernelDensity:
    """A mixture of Gaussians in latent space, one around each draw, as a posterior of θ.

    Attributes:
        prior: The prior, whose latent space it is.
        centre: Latent draws, shape `(n, d)`.
        log_weight: Their normalised log weights, shape `(n,)`.
        factor: Lower-triangular roots of the kernels' covariances, shape `(n, d, d)`; `(1, d, d)`
            where all kernels are alike.
        inverse: Their inverses.
        bandwidth: The kernels' width in units of the spread that they have their shape from, a
            scalar.
    """

    prior: Prior = leaf()
    centre: Array = leaf()
    log_weight: Array = leaf()
    factor: Array = leaf()
    inverse: Array = leaf()
    bandwidth: Array = leaf()

    def log_prob(self, theta: Theta) -> Array:
        """Return the normalised log density of one parameter set, a scalar."""
        return _log_prob(self, self.prior.check(theta))

    def sample(self, key: Key, n: int) -> Theta:
        """Return `n` equally weighted draws, each of shape `(n, *shape)`.

        Raises:
            TypeError: If the key is not a typed key.
            ValueError: If `n` is not a positive integer.
        """
        check_key(key)
        theta = _sample(self, key, positive("n", n))
        return {name: theta[name] for name in self.prior.names}


def kde(
    prior: Prior,
    draws: Theta,
    *,
    distances: Array | None = None,
    width: float | Array | None = None,
    weights: Array | None = None,
    bandwidth: float | Array | None = None,
) -> KernelDensity:
    """Return the joint kernel-density estimate p(θ | x_o) ∝ Σ K(d_i / h_x) K(z - z_i).

    Both kernels are Gaussian (Blum 2010, arXiv:0904.0635). The kernel of θ lies in latent space, so
    that the density stays in the prior's support. Around each draw it has the shape of the draws
    near it (Vincent & Bengio 2002, "Manifold Parzen windows"): narrow in a mode, and across a bend.

    Args:
        prior: The prior of the draws.
        draws: Draws of shape `(n, *shape)`.
        distances: Distance of each draw's simulation from the observation, shape `(n,)`; with it,
            draws are weighted by `exp(-(d / width)² / 2)`.
        width: h_x, in the units of the distances.
        weights: Weights of the draws, shape `(n,)`; they multiply.
        bandwidth: Standard deviation of the kernel of z in units of the (weighted) draws' own
            covariance, the same around all draws. By default each kernel has the shape of the
            spread around its draw, times the width with the largest likelihood of left-out draws.

    Raises:
        ValueError: If only one of `distances` and `width` is given, a shape differs, a width is not
            positive, or no weight is; if weights are negative or not finite, draws are outside of
            the prior's support, or have no spread.
    """
    n = _count(prior, draws)
    if (distances is None) != (width is None):
        raise ValueError(
            "kde: expected distances and width together, got "
            f"distances={'None' if distances is None else 'an array'} and width={width!r}."
        )
    for name, rows in (("distances", distances), ("weights", weights)):
        if rows is not None and jnp.shape(rows) != (n,):
            raise ValueError(f"{name}: expected shape ({n},), got {jnp.shape(rows)}.")
        if rows is not None and is_concrete(rows):
            _check_rows(name, np.asarray(rows))
    for name, value in (("width", width), ("bandwidth", bandwidth)):
        if (
            value is not None
            and is_concrete(value)
            and not (is_number(value) and 0.0 < float(value) < math.inf)
        ):
            raise ValueError(f"{name}: expected a positive number, got {value!r}.")
    log_weight = jnp.zeros(n) if weights is None else jnp.log(jnp.asarray(weights))
    if distances is not None and width is not None:
        log_weight = log_weight - 0.5 * (jnp.asarray(distances) / width) ** 2
    if is_concrete(log_weight) and not bool(jnp.any(jnp.isfinite(log_weight))):
        raise ValueError(f"kde: expected some positive weights, got none among {n} draws.")
    estimate = _estimate(prior, draws, log_weight, bandwidth)
    if is_concrete(estimate):
        _check_spread(estimate)
    return estimate


def _count(prior: Prior, draws: Theta) -> int:
    """Return how many draws there are, or raise an error unless all have that leading axis."""
    shapes = {name: jnp.shape(a) for name, a in draws.items()}
    counts = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(counts) != 1 or 0 in counts or not all(shapes.values()):
        expected = {name: ("n", *shape) for name, shape in prior.shapes.items()}
        raise ValueError(f"draws: expected arrays of shapes {expected} with n >= 2, got {shapes}.")
    return counts.pop()


def _check_rows(name: str, rows: np.ndarray) -> None:
    """Raise a ValueError if weights, or distances, are not what they must be."""
    if name == "weights":
        expected, bad = "finite numbers >= 0", ~((rows >= 0) & np.isfinite(rows))
    else:  # an infinite distance is a weight of 0
        expected, bad = "numbers", np.isnan(rows)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"{name}: expected {expected}, got {rows[first]} at {first} and {int(bad.sum())} such "
            "in all. Leave these draws out."
        )


def _check_spread(estimate: KernelDensity) -> None:
    """Raise a ValueError if the draws are not finite, or are one point in some direction."""
    z = np.asarray(estimate.centre, np.float64)
    bad = ~np.isfinite(z).all(axis=1)
    if bad.any():
        raise ValueError(
            f"draws: expected parameters inside the prior's support, got {int(bad.sum())} of "
            f"{len(z)} that are outside or not finite. Leave them out, or pass the prior that the "
            "draws were made with."
        )
    weight = np.exp(np.asarray(estimate.log_weight, np.float64))
    weight = weight / weight.sum()
    same = np.flatnonzero(weight @ (z - weight @ z) ** 2 <= LEAST)
    if same.size:
        raise ValueError(
            "draws: expected different ones of positive weight, got no spread in the latent "
            f"coordinates {same.tolist()} among {len(z)} draws, worth {1 / (weight @ weight):.3g} "
            "equally weighted ones. A density needs more draws, or more even weights: keep more, "
            "or take a larger width."
        )


@jax.jit
def _estimate(
    prior: Prior, draws: Theta, log_weight: Array, bandwidth: Array | None
) -> KernelDensity:
    z = jax.vmap(prior.to_latent)(draws)
    log_weight = jax.nn.log_softmax(log_weight)
    factor, inverse = (a[None] for a in covariance_root(z, log_weight))
    if bandwidth is None:
        near, near_inverse = _neighbourhoods(z @ inverse[0].T, log_weight)
        factor, inverse = factor @ near, near_inverse @ inverse
        bandwidth = _left_out(z, log_weight, inverse)
    return KernelDensity(
        prior=prior, centre=z, log_weight=log_weight, factor=bandwidth * factor,
        inverse=inverse / bandwidth, bandwidth=jnp.asarray(bandwidth),
    )  # fmt: skip


def _neighbourhoods(u: Array, log_weight: Array) -> tuple[Array, Array]:
    """Return roots `(n, d, d)` of the covariances of each draw's neighbours, and their inverses.

    Few neighbours say little of a shape: it is mixed with a ball of the same size, which counts as
    much as d² of them.
    """
    n, d = u.shape
    # Equally weighted, so that a number of the nearest is a share of the weight.
    others = u[spread(jnp.array(0.5), jnp.exp(log_weight), min(n, JUDGED))]
    effective = jnp.minimum(effective_size(log_weight), others.shape[0])
    share = jnp.minimum(NEIGHBOURS / jnp.sqrt(effective), 1.0)
    last = jnp.ceil(share * others.shape[0]).astype(int) - 1
    ball = d**2 / (d**2 + share * effective)

    def covariance(u: Array) -> Array:
        square = jnp.sum((others - u[None]) ** 2, axis=1)
        near = square <= jnp.sort(square)[last]
        weight = near / jnp.sum(near)
        centred = others - (weight @ others)[None]
        found = (weight[:, None] * centred).T @ centred
        size = jnp.trace(found) / d
        return (1.0 - ball) * found + (ball * size + FLOOR) * jnp.eye(d)

    return cholesky_and_inverse(jax.lax.map(covariance, u, batch_size=min(ROWS, n)))


def covariance_root(z: Array, log_weight: Array) -> tuple[Array, Array]:
    """Return the lower-triangular root of the covariance of points `(n, d)`, and its inverse.

    Few points know few directions: off the diagonal it is shrunk by d / (d + effective points).

    Args:
        z: The points.
        log_weight: Their normalised log weights, shape `(n,)`.
    """
    weight = jnp.exp(log_weight)
    centred = z - (weight @ z)[None]
    covariance = (weight[:, None] * centred).T @ centred
    d, effective = z.shape[1], 1.0 / jnp.sum(weight**2)
    shrink = d / (d + effective)
    diagonal = jnp.diag(jnp.diagonal(covariance) + LEAST)
    return cholesky_and_inverse((1.0 - shrink) * covariance + shrink * diagonal)


def _left_out(z: Array, log_weight: Array, inverse: Array) -> Array:
    """Return the bandwidth with the largest mean log density of draws left out in turn."""
    n, d = z.shape
    widths = jnp.array(BANDWIDTHS, z.dtype)
    log_mass = log_weight + _log_volume(inverse)

    def judge(i: Array) -> Array:
        square = _squares(inverse, z[i], z)
        others = jnp.where(jnp.arange(n) == i, -jnp.inf, log_mass)

        def density(width: Array) -> Array:
            return jax.nn.logsumexp(others - 0.5 * square / width**2) - d * jnp.log(width)

        # A draw alone in its corner would ask for any width: what a float can hold is enough.
        return jnp.exp(log_weight[i]) * jnp.maximum(jax.lax.map(density, widths), -1e4)

    index = jnp.arange(0, n, -(-n // JUDGED))
    return widths[jnp.argmax(jnp.sum(jax.lax.map(judge, index), axis=0))]


def _squares(inverse: Array, z: Array, centre: Array) -> Array:
    """Return the squared distance of a point from each centre, in widths of its kernel."""
    offset = z[None] - centre
    if inverse.shape[0] == 1:
        return jnp.sum((offset @ inverse[0].T) ** 2, axis=1)
    return jnp.sum(jnp.sum(inverse * offset[:, None, :], axis=2) ** 2, axis=1)


def _log_volume(inverse: Array) -> Array:
    """Return the log of each kernel's inverse determinant, `(n,)` or `(1,)`."""
    return jnp.sum(jnp.log(jnp.diagonal(inverse, axis1=1, axis2=2)), axis=1)


@jax.jit
def _log_prob(kde: KernelDensity, theta: Theta) -> Array:
    prior = kde.prior
    z = prior.to_latent(theta)
    log_kernel = _log_volume(kde.inverse) - 0.5 * _squares(kde.inverse, z, kde.centre)
    density = jax.nn.logsumexp(kde.log_weight + log_kernel) - 0.5 * z.size * math.log(2.0 * math.pi)
    inside = jnp.isfinite(prior.log_prob(theta))
    return jnp.where(inside, density - prior.log_abs_det_jacobian(z), -jnp.inf)


@functools.partial(jax.jit, static_argnums=2)
def _sample(kde: KernelDensity, key: Key, n: int) -> Theta:
    key_centre, key_move, key_order = jax.random.split(key, 3)
    total = jnp.cumsum(jnp.exp(kde.log_weight))
    # One draw from each n-th of the mass: copies of a draw are spread as evenly as can be.
    level = total[-1] * (jnp.arange(n) + jax.random.uniform(key_centre, (n,))) / n
    index = jnp.clip(jnp.searchsorted(total, level), 0, len(total) - 1)
    # Centres may lie in an order, such as the nearest first: draws do not.
    index = jax.random.permutation(key_order, index)
    factor = kde.factor[jnp.minimum(index, kde.factor.shape[0] - 1)]
    noise = jax.random.normal(key_move, (n, kde.centre.shape[1]))
    move = jnp.sum(factor * noise[:, None, :], axis=2)
    return jax.vmap(kde.prior.from_latent)(kde.centre[index] + move)
