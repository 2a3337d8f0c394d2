"""Modes of a density by L-BFGS from many starts, and the Laplace approximation at a mode."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsbi.base import Array, Key, warn
from jaxsbi.samplers.chains import LogDensity, resampled_start, traced_once

_CANDIDATES = 4096
_FAR = 1e10  # the loss where the density is zero or NaN: high, but a number to the line search


class Modes(NamedTuple):
    """Where the searches ended, the highest first.

    Attributes:
        points: Shape `(starts, d)`; the first row is the mode of highest density (MAP).
        log_density: Shape `(starts,)`, falling; -inf where a search never met a finite density.
        converged: Whether the gradient vanished, measured by the curvature, shape `(starts,)`.
        mode: Which row stands for the mode a search ended in, shape `(starts,)`.
        distinct: Whether a row stands for a mode, shape `(starts,)`: `points[distinct]` are the
            different modes.
    """

    points: Array
    log_density: Array
    converged: Array
    mode: Array
    distinct: Array

    def warn(self) -> None:
        """Warn (on the host) when the highest point is no mode."""
        if not bool(self.converged[0]):
            warn(
                "modes: the search that came highest has not converged. Raise steps, or look for "
                "a density without a maximum, or with NaN."
            )


class Laplace(NamedTuple):
    """The normal density that a mode's height and curvature define.

    Attributes:
        mean: The mode, shape `(d,)`.
        covariance: The inverse of the negative Hessian, shape `(d, d)`; NaN where that is not
            positive definite.
        log_evidence: Log of the integral of exp(log_density) by the approximation; NaN likewise.
    """

    mean: Array
    covariance: Array
    log_evidence: Array


def modes(
    key: Key,
    log_density: LogDensity,
    dim: int,
    *,
    starts: int = 64,
    steps: int = 100,
    tolerance: float = 0.05,
) -> Modes:
    """Search for the modes of a density from many starts, side by side.

    Half of the starts are draws of N(0, I), the latent prior; half are resampled from such draws by
    the density. Two ends are one mode if the lower one lies within one posterior standard deviation
    of the higher, by the curvature there (a search that stopped on the way counts as its own mode).
    Pure: can be put under `jax.jit` and `jax.vmap`.

    Args:
        key: A typed key.
        log_density: An unnormalised, differentiable log-density of one point `(dim,)`.
        dim: The number of dimensions.
        starts: Searches run side by side.
        steps: Steps of L-BFGS (Liu & Nocedal 1989, as Optax implements it), at most.
        tolerance: A search has converged if a Newton step would be shorter than this many posterior
            standard deviations.

    Raises:
        ValueError: If there are fewer than 2 starts, or no steps.
    """
    if starts < 2 or steps < 1 or not tolerance > 0.0:
        raise ValueError(
            "modes: expected starts >= 2, steps >= 1 and tolerance > 0, got "
            f"starts={starts}, steps={steps}, tolerance={tolerance}."
        )
    log_density = traced_once(log_density)
    key_prior, key_resampled = jax.random.split(key)
    half = starts // 2
    start = jnp.concatenate(
        [
            jax.random.normal(key_prior, (half, dim)),
            resampled_start(key_resampled, log_density, dim, starts - half, _CANDIDATES),
        ]
    )
    ends = jax.vmap(lambda z: _climb(log_density, z, steps))(start)
    value = jax.vmap(log_density)(ends)
    value = jnp.where(jnp.isfinite(value), value, -jnp.inf)
    order = jnp.argsort(-value)
    ends, value = ends[order], value[order]
    hessian = jax.vmap(lambda z: _curvature(log_density, z))(ends)
    newton = jax.vmap(lambda z, h: _newton_length(jax.grad(log_density)(z), h))(ends, hessian)
    converged = jnp.isfinite(value) & (newton < tolerance)
    mode = _leaders(ends, hessian, converged)
    return Modes(ends, value, converged, mode, mode == jnp.arange(starts))


def _climb(log_density: LogDensity, z: Array, steps: int) -> Array:
    """Return where L-BFGS ends, from one start."""
    optimizer = optax.lbfgs()

    def loss(z: Array) -> Array:
        value = log_density(z)
        return jnp.where(jnp.isfinite(value), -value, _FAR).astype(z.dtype)

    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
        z, state = carry
        value, gradient = value_and_grad(z, state=state)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
        update, state = optimizer.update(
            gradient, state, z, value=value, grad=gradient, value_fn=loss
        )
        new = optax.apply_updates(z, update)
        # The line search gives up in the rounding of float32: what it then proposes is no progress.
        better = loss(new) <= value
        return (jnp.where(better, new, z), state), None

    (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), None, steps)
    return z


def _curvature(log_density: LogDensity, z: Array) -> Array:
    """Return the negative Hessian, symmetric to the last digit."""
    hessian = -jax.hessian(log_density)(z)
    return 0.5 * (hessian + hessian.T)


def _newton_length(gradient: Array, hessian: Array) -> Array:
    """Return how many standard deviations a Newton step spans; infinite if it is no maximum."""
    values, vectors = jnp.linalg.eigh(jnp.where(jnp.isfinite(hessian), hessian, 0.0))
    along = vectors.T @ gradient
    length = jnp.sqrt(jnp.sum(along**2 / jnp.where(values > 0.0, values, 1.0)))
    fine = jnp.all(values > 0.0) & jnp.all(jnp.isfinite(gradient))
    return jnp.where(fine, length, jnp.inf)


def _leaders(points: Array, hessian: Array, converged: Array) -> Array:
    """Return, for each row, the first row of its mode; rows come with the highest density first."""
    n = points.shape[0]
    difference = points[:, None] - points[None]  # [i, j] from leader j
    distance = jnp.einsum("ijk,jkl,ijl->ij", difference, hessian, difference)
    near = (distance <= 1.0) & converged[None]

    def assign(leader: Array, i: Array) -> tuple[Array, None]:
        index = jnp.arange(n)
        candidate = near[i] & (leader == index) & (index < i)
        found = jnp.where(jnp.any(candidate), jnp.argmax(candidate), i)
        return leader.at[i].set(found), None

    leader, _ = jax.lax.scan(assign, jnp.arange(n), jnp.arange(n))
    return leader


def laplace(log_density: LogDensity, mode: Array) -> Laplace:
    """Return the Laplace approximation of a density at a mode.

    For several modes use `jax.vmap` over points; their `log_evidence` add as probabilities do.

    Args:
        log_density: An unnormalised, twice differentiable log-density of one point `(d,)`.
        mode: A maximum of it, shape `(d,)`; `modes(...).points[0]`.
    """
    dim = mode.shape[0]
    factor = jnp.linalg.cholesky(_curvature(log_density, mode))
    inverse = jax.scipy.linalg.solve_triangular(factor, jnp.eye(dim), lower=True)
    log_evidence = (
        log_density(mode)
        + 0.5 * dim * math.log(2.0 * math.pi)
        - jnp.sum(jnp.log(jnp.diagonal(factor)))
    )
    return Laplace(mode, inverse.T @ inverse, log_evidence)
