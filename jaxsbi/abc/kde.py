"""Kernel-density posteriors: a density, and any number of draws, from kept and weighted draws."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from jaxsbi.abc.nearest import positive
from jaxsbi.base import Array, Key, Theta, check_key, configuration, is_concrete, leaf
from jaxsbi.priors import Prior

BANDWIDTHS = (0.02, 0.03, 0.045, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8)
"""Kernel widths tried, in units of the draws' covariance; an odd shape wants a narrow one."""
JUDGED = 1_000
"""Draws whose left-out density chooses the width."""


@configuration
class KernelDensity:
    """A mixture of Gaussians in latent space, one around each draw, as a posterior of θ.

    Attributes:
        prior: The prior, whose latent space it is.
        centre: Latent draws, shape `(n, d)`.
        log_weight: Their normalised log weights, shape `(n,)`.
        factor: Lower-triangular root of the kernel's covariance, shape `(d, d)`.
        bandwidth: The kernel's width in units of the draws' own, a scalar.
    """

    prior: Prior = leaf()
    centre: Array = leaf()
    log_weight: Array = leaf()
    factor: Array = leaf()
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
    that the density stays in the prior's support.

    Args:
        prior: The prior of the draws.
        draws: Draws of shape `(n, *shape)`.
        distances: Distance of each draw's simulation from the observation, shape `(n,)`; with it,
            draws are weighted by `exp(-(d / width)² / 2)`.
        width: h_x, in the units of the distances.
        weights: Weights of the draws, shape `(n,)`; they multiply.
        bandwidth: Standard deviation of the kernel of z in units of the (weighted) draws' own
            covariance; by default the one with the largest likelihood of left-out draws.

    Raises:
        ValueError: If only one of `distances` and `width` is given, a shape differs, a width is not
            positive, or no weight is.
    """
    n = len(jax.tree.leaves(draws)[0])
    if (distances is None) != (width is None):
        raise ValueError(
            "kde: expected distances and width together, got "
            f"distances={'None' if distances is None else 'an array'} and width={width!r}."
        )
    for name, rows in (("distances", distances), ("weights", weights)):
        if rows is not None and jnp.shape(rows) != (n,):
            raise ValueError(f"{name}: expected shape ({n},), got {jnp.shape(rows)}.")
    for name, value in (("width", width), ("bandwidth", bandwidth)):
        if value is not None and is_concrete(value) and not 0.0 < float(value) < math.inf:
            raise ValueError(f"{name}: expected a positive number, got {value!r}.")
    log_weight = jnp.zeros(n) if weights is None else jnp.log(jnp.asarray(weights))
    if distances is not None and width is not None:
        log_weight = log_weight - 0.5 * (jnp.asarray(distances) / width) ** 2
    if is_concrete(log_weight) and not bool(jnp.any(jnp.isfinite(log_weight))):
        raise ValueError(f"kde: expected some positive weights, got none among {n} draws.")
    return _estimate(prior, draws, log_weight, bandwidth)


@jax.jit
def _estimate(
    prior: Prior, draws: Theta, log_weight: Array, bandwidth: Array | None
) -> KernelDensity:
    z = jax.vmap(prior.to_latent)(draws)
    log_weight = jax.nn.log_softmax(log_weight)
    factor = covariance_root(z, log_weight)
    chosen = _left_out(z, log_weight, factor) if bandwidth is None else jnp.asarray(bandwidth)
    return KernelDensity(
        prior=prior, centre=z, log_weight=log_weight, factor=chosen * factor, bandwidth=chosen
    )


def covariance_root(z: Array, log_weight: Array) -> Array:
    """Return the lower-triangular root of the covariance of points `(n, d)`.

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
    diagonal = jnp.diag(jnp.diagonal(covariance) + 1e-12)
    return jnp.linalg.cholesky((1.0 - shrink) * covariance + shrink * diagonal)


def _left_out(z: Array, log_weight: Array, factor: Array) -> Array:
    """Return the bandwidth with the largest mean log density of draws left out in turn."""
    n, d = z.shape
    u = jax.scipy.linalg.solve_triangular(factor, z.T, lower=True).T
    widths = jnp.array(BANDWIDTHS, z.dtype)

    def judge(i: Array) -> Array:
        square = jnp.sum((u - u[i][None]) ** 2, axis=1)
        others = jnp.where(jnp.arange(n) == i, -jnp.inf, log_weight)

        def density(width: Array) -> Array:
            return jax.nn.logsumexp(others - 0.5 * square / width**2) - d * jnp.log(width)

        # A draw alone in its corner would ask for any width: what a float can hold is enough.
        return jnp.exp(log_weight[i]) * jnp.maximum(jax.lax.map(density, widths), -1e4)

    index = jnp.arange(0, n, -(-n // JUDGED))
    return widths[jnp.argmax(jnp.sum(jax.lax.map(judge, index), axis=0))]


@jax.jit
def _log_prob(kde: KernelDensity, theta: Theta) -> Array:
    prior = kde.prior
    z = prior.to_latent(theta)
    difference = (z[None] - kde.centre).T
    u = jax.scipy.linalg.solve_triangular(kde.factor, difference, lower=True)
    log_kernel = -0.5 * jnp.sum(u**2, axis=0) - 0.5 * z.size * math.log(2.0 * math.pi)
    density = jax.nn.logsumexp(kde.log_weight + log_kernel)
    density = density - jnp.sum(jnp.log(jnp.diagonal(kde.factor)))
    inside = jnp.isfinite(prior.log_prob(theta))
    return jnp.where(inside, density - prior.log_abs_det_jacobian(z), -jnp.inf)


@functools.partial(jax.jit, static_argnums=2)
def _sample(kde: KernelDensity, key: Key, n: int) -> Theta:
    key_centre, key_move = jax.random.split(key)
    total = jnp.cumsum(jnp.exp(kde.log_weight))
    # One draw from each n-th of the mass: copies of a draw are spread as evenly as can be.
    level = total[-1] * (jnp.arange(n) + jax.random.uniform(key_centre, (n,))) / n
    index = jnp.clip(jnp.searchsorted(total, level), 0, len(total) - 1)
    move = jax.random.normal(key_move, (n, kde.centre.shape[1])) @ kde.factor.T
    return jax.vmap(kde.prior.from_latent)(kde.centre[index] + move)
