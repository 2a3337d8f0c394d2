"""Maps known by one direction: Newton for the other, the implicit function for derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from jaxsbi.latent.special import log_normal_density

Params = tuple[Array, ...]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


def newton(
    z: Array,
    start: Array,
    z_at: Callable[[Array], Array],
    log_density_at: Callable[[Array], Array],
) -> Array:
    """Solve ``z_at(u) == z`` elementwise; ``log_density_at`` is the log density of u."""
    tolerance = 4.0 * jnp.finfo(z.dtype).eps

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        u, _, count = state
        current = z_at(u)
        slope = jnp.exp(log_density_at(u) - log_normal_density(current))
        change = (current - z) / jnp.maximum(slope, 1e-30)
        limit = 1.0 + 0.5 * jnp.abs(u)  # a first guess in a flat tail must not be thrown across
        change = jnp.clip(jnp.where(jnp.isfinite(change), change, 0.0), -limit, limit)
        return u - change, jnp.abs(change) > tolerance * (1.0 + jnp.abs(u)), count + 1

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        return jnp.any(state[1]) & (state[2] < 25)

    state = (start, jnp.ones(start.shape, bool), jnp.zeros((), jnp.int32))
    return lax.while_loop(unfinished, step, state)[0]


def _moves(tangent: Array | SymbolicZero) -> bool:
    return not isinstance(tangent, SymbolicZero)


def implicit_pair(
    z_at: Callable[..., Array],
    solve: Callable[..., Array],
    log_density: Callable[..., Array],
    cdf_slope: Callable[..., Array],
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """The two directions of one family with implicit derivatives.

    Args:
        z_at: ``(x, *params) -> z``.
        solve: ``(z, *params) -> x``.
        log_density: ``(x, *params) -> log p``.
        cdf_slope: ``(x, params, tangents) -> dF``, the change of F at fixed x.
    """
    to_z, from_z = jax.custom_jvp(z_at), jax.custom_jvp(solve)

    def to_z_jvp(primals, tangents):
        x, *params = primals
        dx, *dparams = tangents
        z = to_z(*primals)
        log_p, log_phi = log_density(x, *params), log_normal_density(z)
        dz = dx * jnp.exp(log_p - log_phi) if _moves(dx) else jnp.zeros_like(z)
        if any(map(_moves, dparams)):
            dz = dz + cdf_slope(x, tuple(params), tuple(dparams)) * jnp.exp(-log_phi)
        return z, dz

    def from_z_jvp(primals, tangents):
        z, *params = primals
        dz, *dparams = tangents
        x = from_z(*primals)
        log_p = log_density(x, *params)
        dx = dz * jnp.exp(log_normal_density(z) - log_p) if _moves(dz) else jnp.zeros_like(x)
        if any(map(_moves, dparams)):
            dx = dx - cdf_slope(x, tuple(params), tuple(dparams)) * jnp.exp(-log_p)
        return x, dx

    to_z.defjvp(to_z_jvp, symbolic_zeros=True)
    from_z.defjvp(from_z_jvp, symbolic_zeros=True)
    return _broadcast(to_z), _broadcast(from_z)


def _broadcast(function: Callable[..., Array]) -> Callable[..., Array]:
    """Equal shapes and dtypes before the custom derivative sees the arguments."""

    def wrapped(first: Array, *params: Array) -> Array:
        first = jnp.asarray(first)
        params = tuple(jnp.asarray(p, first.dtype) for p in params)
        return function(*jnp.broadcast_arrays(first, *params))

    return wrapped


def dense(tangent: Array | SymbolicZero, like: Array) -> Array:
    """The tangent as an array, zeros where it is a symbolic zero."""
    return jnp.zeros_like(like) if isinstance(tangent, SymbolicZero) else tangent


def score_integral(
    log_density: Callable[..., Array],
    u: Array,
    width: Array,
    lower: Array,
    params: Params,
    tangents: tuple[Array | SymbolicZero, ...],
) -> Array:
    """dF at fixed u as the integral of the score over one tail: ∫ p ∂log p, which sums to zero.

    Taken over the tail that is the smaller, it keeps its digits where F itself has none. (The other
    way, TensorFlow Probability's derivatives of ``betainc``, is off by up to 0.6 % of dθ/da.)

    Args:
        log_density: ``(u, *params) -> log p(u)``, smooth on the whole real line.
        u: the points, elementwise.
        width: how far from u the tail reaches before it is negligible.
        lower: whether to integrate below u (else above, with the sign changed).
        params: parameters in the shape of u.
        tangents: their tangents.
    """
    nodes = jnp.asarray(0.5 + 0.5 * _NODES, u.dtype).reshape((1,) * u.ndim + (-1,))
    points = u[..., None] + jnp.where(lower, -width, width)[..., None] * nodes
    wide = [jnp.broadcast_to(p[..., None], points.shape) for p in params]
    dense_tangents = [
        jnp.broadcast_to(dense(t, p)[..., None], points.shape)
        for t, p in zip(tangents, params, strict=True)
    ]
    log_p, score = jax.jvp(lambda *p: log_density(points, *p), tuple(wide), tuple(dense_tangents))
    total = width * ((jnp.exp(log_p) * score) @ jnp.asarray(0.5 * _WEIGHTS, u.dtype))
    return jnp.where(lower, total, -total)
