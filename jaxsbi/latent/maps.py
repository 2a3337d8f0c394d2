"""θ from z, z from θ and their densities, following a `Route`.

Every function takes the route, the distribution it was chosen for and an array with any batch
dimensions that broadcast with the distribution's own.
"""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import transforms

from jaxsbi.latent import solved
from jaxsbi.latent.gaussian import VECTORS
from jaxsbi.latent.routes import ELEMENTWISE, Route, bijection_of, support_of
from jaxsbi.latent.special import FAR, log_normal_density, tails_of, z_of
from jaxsbi.latent.tails import TAILS
from jaxsbi.latent.truncated import (
    sides,
    truncated_from_z,
    truncated_to_z,
    truncated_x,
    truncated_z,
)


def from_latent(route: Route, d: Any, z: Array) -> Array:
    """θ of one distribution from its latent value ``z`` (``batch + latent event``)."""
    if route.kind == "normal":
        return d.loc + d.scale * z
    if route.kind == "tails":
        return TAILS[type(d)][0](d, *tails_of(z))
    if route.kind == "solved":
        return _solved_from_z(d, z)
    if route.kind == "vector":
        return VECTORS[type(d)][0](d, z)
    if route.kind == "unwrap":
        return from_latent(route.inner, _base(d), z)
    if route.kind == "push":
        x = from_latent(route.inner, d.base_dist, z * _direction(route, d))
        for transform in d.transforms:
            x = transform(x)
        return x
    if route.kind == "truncated":
        bounds = _bounds_like(route, d, z)
        t = truncated_from_z(z, *bounds)
        x = from_latent(route.inner, d.base_dist, t)
        if route.inner.kind == "solved":
            x = truncated_x(d, z, x, sides(d, z, x, t, *bounds))
        return jnp.clip(x, getattr(d, "low", None), getattr(d, "high", None))
    if route.kind == "copula":
        return from_latent(
            route.inner, d.marginal_dist, VECTORS[dist.MultivariateNormal][0](d.base_dist, z)
        )
    return bijection_of(d)(z)


def to_latent(route: Route, d: Any, x: Array) -> Array:
    """The inverse of `from_latent`."""
    if route.kind == "normal":
        return (x - d.loc) / d.scale
    if route.kind == "tails":
        return z_of(*TAILS[type(d)][1](d, x))
    if route.kind == "solved":
        return _solved_to_z(d, x)
    if route.kind == "vector":
        return VECTORS[type(d)][1](d, x)
    if route.kind == "unwrap":
        return to_latent(route.inner, _base(d), x)
    if route.kind == "push":
        for transform in reversed(d.transforms):
            x = transform.inv(x)
        return to_latent(route.inner, d.base_dist, x) * _direction(route, d)
    if route.kind == "truncated":
        t = to_latent(route.inner, d.base_dist, x)
        bounds = _bounds_like(route, d, t)
        z = truncated_to_z(t, *bounds)
        if route.inner.kind == "solved":
            z = truncated_z(d, z, x, sides(d, z, x, t, *bounds))
        return z
    if route.kind == "copula":
        correlated = to_latent(route.inner, d.marginal_dist, x)
        return VECTORS[dist.MultivariateNormal][1](d.base_dist, correlated)
    return bijection_of(d).inv(x)


def latent_log_prob(route: Route, d: Any, z: Array) -> Array:
    """Density of z, summed to a scalar: N(0, I) where exact, the support's law elsewhere."""
    if route.exact:
        return log_normal_density(z).sum()
    if route.kind == "unwrap":
        return latent_log_prob(route.inner, _base(d), z)
    if route.kind == "push":  # a bijection of θ does not change the law of z
        return latent_log_prob(route.inner, d.base_dist, z)
    bijection = bijection_of(d)
    x = bijection(z)
    return jnp.sum(d.log_prob(x)) + jnp.sum(bijection.log_abs_det_jacobian(z, x))


def log_prob(route: Route, d: Any, x: Array) -> tuple[Array, Array]:
    """Density of θ summed to a scalar (-inf outside the support, never NaN), and a safe θ.

    The second is ``x`` inside the support and some point of the support outside it.
    """
    inside = in_support(route, d, x)
    safe = jnp.where(inside, x, jnp.broadcast_to(interior(route, d), x.shape))
    return jnp.where(inside, jnp.sum(d.log_prob(safe)), -jnp.inf), safe


def in_support(route: Route, d: Any, x: Array) -> Array:
    """Whether all of ``x`` lies in the support (scalar bool); False for NaN."""
    if route.kind == "unwrap":
        return in_support(route.inner, _base(d), x)
    inside = jnp.all(support_of(d)(x)) & jnp.all(jnp.isfinite(x))
    if route.kind == "push":
        # The codomain of the last transform says nothing about where the base lives.
        y = jnp.where(inside, x, jnp.broadcast_to(interior(route, d), x.shape))
        for transform in reversed(d.transforms):
            y = transform.inv(y)
        inside = inside & in_support(route.inner, d.base_dist, y)
    return inside


def interior(route: Route, d: Any) -> Array:
    """Some point inside the support, to stand where a density must not be evaluated."""
    if route.kind == "unwrap":
        return jnp.broadcast_to(interior(route.inner, _base(d)), d.shape())
    if route.kind == "push":
        x = interior(route.inner, d.base_dist)
        for transform in d.transforms:
            x = transform(x)
        return x
    bijection = bijection_of(d)
    return bijection(jnp.zeros(bijection.inverse_shape(d.shape())))


def truncation_bounds(base: Route, d: Any) -> tuple[Array, Array]:
    """The bounds of a truncated distribution in its base's latent space, cut at ±40."""
    low, high = getattr(d, "low", None), getattr(d, "high", None)
    dtype = jnp.result_type(float)
    if low is not None and isinstance(d.base_dist, dist.Gamma):
        low = jnp.maximum(low, jnp.finfo(dtype).tiny)
    given = [jnp.broadcast_to(bound, d.batch_shape) for bound in (low, high) if bound is not None]
    # Both bounds in one call: a quantile is a large program.
    mapped = to_latent(base, d.base_dist, jnp.stack(given).astype(dtype))
    mapped = jnp.clip(mapped, -FAR, FAR)
    return (
        jnp.full(d.batch_shape, -FAR) if low is None else mapped[0],
        jnp.full(d.batch_shape, FAR) if high is None else mapped[-1],
    )


def _bounds_like(route: Route, d: Any, z: Array) -> tuple[Array, Array]:
    low, high = truncation_bounds(route.inner, d)
    return jnp.broadcast_to(low, z.shape), jnp.broadcast_to(high, z.shape)


def _base(d: Any) -> Any:
    return d._ald if isinstance(d, dist.AsymmetricLaplaceQuantile) else d.base_dist


def _solved_from_z(d: Any, z: Array) -> Array:
    if isinstance(d, dist.Gamma):
        return solved.gamma_from_z(*_full(z, d.concentration)) / d.rate
    if isinstance(d, dist.Beta):
        return solved.beta_from_z(*_full(z, d.concentration1, d.concentration0))
    return d.loc + d.scale * solved.student_from_z(*_full(z, d.df))


def _solved_to_z(d: Any, x: Array) -> Array:
    if isinstance(d, dist.Gamma):
        return solved.gamma_to_z(*_full(x * d.rate, d.concentration))
    if isinstance(d, dist.Beta):
        return solved.beta_to_z(*_full(x, d.concentration1, d.concentration0))
    return solved.student_to_z(*_full((x - d.loc) / d.scale, d.df))


def _full(first: Array, *params: Any) -> tuple[Array, ...]:
    return (first, *(jnp.asarray(p, first.dtype) for p in params))


def _direction(route: Route, d: Any) -> Any:
    """-1 where the transforms fall, so that z still rises with θ; 1 where not elementwise."""
    inner = route.inner
    while inner.kind in ("unwrap", "push"):
        inner = inner.inner
    known = (
        transforms.AffineTransform,
        transforms.PowerTransform,
        transforms.ExpTransform,
        transforms.SigmoidTransform,
        transforms.SoftplusTransform,
    )
    if inner.kind not in ELEMENTWISE or not all(isinstance(t, known) for t in d.transforms):
        return 1.0
    sign = 1.0
    for transform in d.transforms:
        if isinstance(transform, transforms.AffineTransform | transforms.PowerTransform):
            sign = sign * transform.sign
    return sign
