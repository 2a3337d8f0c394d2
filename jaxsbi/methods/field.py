"""What the roads that learn a vector field share: loss, draws and density.

A method needs `field`, `path`, `sampler`, `summary` and `noises`.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import (
    Array,
    Data,
    DataSpec,
    Key,
    Posterior,
    Simulations,
    Theta,
    Variables,
    check_key,
    is_concrete,
    positive,
)
from jaxsbi.fields import FieldInfo, compose, log_ratio, precision_of, widest_angle
from jaxsbi.methods.features import init_context, read_context
from jaxsbi.missing import refuse_masked_arrays
from jaxsbi.priors import Prior
from jaxsbi.recentred import Seen


def check(method: Any) -> None:
    """Check the options that all such methods have.

    Raises:
        TypeError: If the sampler or the path is none.
        ValueError: If there is no noise to train with.
    """
    if method.noises < 1:
        raise ValueError(f"noises: expected at least 1 per example, got {method.noises}.")
    if not callable(method.sampler) or not hasattr(method.sampler, "log_prob"):
        raise TypeError(
            "sampler: expected a solver such as jaxsbi.fields.ode(), got "
            f"{getattr(method.sampler, '__name__', None) or repr(method.sampler)}."
        )
    if isinstance(method.path, type) or not hasattr(method.path, "training_time"):
        raise TypeError(
            "path: expected a path such as jaxsbi.fields.EDM(), got "
            f"{getattr(method.path, '__name__', None) or repr(method.path)}."
        )


def check_field(name: str, field: Any, example: str, *arguments: str) -> None:
    """Raise a TypeError for a network that can't be called with these arguments.

    What is no Flax module at all is named by `fit`.

    Args:
        name: Of the option.
        field: The network.
        example: How to make one.
        arguments: What it is called with.
    """
    if not isinstance(field, nn.Module):
        return
    try:
        inspect.signature(field.__call__).bind(*arguments)
    except (TypeError, AttributeError):
        raise TypeError(
            f"{name}: expected a network such as jaxsbi.fields.{example}, called as "
            f"{name}({', '.join(arguments)}), got {type(field).__name__}."
        ) from None


def init(method: Any, key: Key, prior: Prior, simulations: Simulations) -> Variables:
    """Return initial parameters, and the data's mean and scale."""
    key_summary, key_field = jax.random.split(key)
    stats, summary, context = init_context(key_summary, method.summary, simulations.x)
    zero = jnp.zeros(prior.dim, context.dtype)
    params = method.field.init(key_field, jnp.zeros((), context.dtype), zero, context)
    return {
        "params": {"summary": summary, "field": params.get("params", {})},
        "statistics": stats,
    }


def loss(method: Any, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
    """Return the weighted squared error of the field per row, shape `(n,)`.

    Each row is seen with several noises. Their times are stratified over the row and over the
    batch: each row has one in each of `noises` equal parts, and the rows share each part evenly.
    """
    key_time, key_noise = jax.random.split(key)
    n, m = batch.weight.shape[0], method.noises
    jitter = jax.random.uniform(key_time, (n, m))
    quantile = (jnp.arange(m)[None] + (jnp.arange(n)[:, None] + jitter) / n) / m

    def one(theta: Theta, x: Data, quantile: Array, noise: Array) -> Array:
        z, context = prior.to_latent(theta), _context(method, variables, x)

        def error(quantile: Array, noise: Array) -> Array:
            t = method.path.training_time(quantile)
            alpha, sigma = method.path.scales(t)
            rho = jnp.sqrt(alpha**2 + sigma**2)
            u, target = (alpha * z + sigma * noise) / rho, (sigma * z - alpha * noise) / rho
            F = _apply(method, variables, log_ratio(alpha, sigma), u, context)
            return method.path.weight(t) * jnp.sum((F - target) ** 2)

        return jnp.mean(jax.vmap(error)(quantile, noise))

    noise = jax.random.normal(key_noise, (n, m, prior.dim))
    # Quantiles of 0 and 1 would be times at infinity, or none.
    quantile = jnp.clip(quantile, 1e-6, 1.0 - 1e-6)
    return jax.vmap(one)(batch.theta, batch.x, quantile, noise)


def sample(
    method: Any, variables: Variables, prior: Prior, key: Key, x: Data, n: int
) -> tuple[Theta, FieldInfo]:
    """Return `n` named draws; none is ever rejected."""
    rotation = _rotation(method, variables, x)
    z, info = method.sampler(key, rotation, prior.dim, n, widest_angle(method.path))
    return jax.vmap(prior.from_latent)(z), info


def log_prob(method: Any, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
    """Return log q(theta | x) by the ODE (`fields.ODE`); -inf outside the prior's support."""
    inside = jnp.isfinite(prior.log_prob(theta))
    z = prior.to_latent(theta)
    z = jnp.where(inside & jnp.all(jnp.isfinite(z)), z, 0.0)
    rotation = _rotation(method, variables, x)
    value = method.sampler.log_prob(rotation, z, widest_angle(method.path))
    return jnp.where(inside, value - prior.log_abs_det_jacobian(z), -jnp.inf)


def trajectories(key: Key, posterior: Posterior, x: Data, n: int, *, points: int = 65) -> Array:
    """Return how draws of a posterior flow, or diffuse, from noise to data.

    Args:
        key: A typed key.
        posterior: A posterior of `fmpe` or `npse`.
        x: One data set.
        n: The number of draws (static).
        points: Moments at which they are seen, evenly spaced in the solver's time.

    Returns:
        Latent coordinates, shape `(points, n, dim)`: from N(0, I) to the posterior's z.

    Raises:
        TypeError: If the key is not typed, or the posterior learned no field.
    """
    _check_field("trajectories", key, posterior)
    return _trajectories(key, posterior, posterior.conform(x), n, points)


@functools.partial(jax.jit, static_argnames=("n", "points"))
def _trajectories(key: Key, posterior: Posterior, x: Data, n: int, points: int) -> Array:
    method: Any = posterior.method
    rotation = _rotation(method, posterior.variables, x)
    widest = widest_angle(method.path)
    return method.sampler.path(key, rotation, posterior.prior.dim, n, widest, points)


def _check_field(name: str, key: Key, posterior: Posterior) -> None:
    check_key(key)
    if not hasattr(posterior.method, "field"):
        raise TypeError(
            f"{name}: expected a posterior of fmpe or npse (no ensemble), got "
            f"{type(posterior.method).__name__}."
        )


PILOT = 1_000
"""Draws of each single posterior, from which its covariance is estimated."""


def sample_iid(key: Key, posterior: Posterior, xs: Data, n: int) -> Theta:
    """Draw from the posterior given several independent observations of one parameter set.

    The fields of single observations are composed (`jaxsbi.fields.compose`): trained on single
    data sets, FMPE and NPSE then take any number of them. Exact for normal posteriors.

    Args:
        key: A typed key.
        posterior: A posterior of `fmpe` or `npse`.
        xs: Observations, every leaf with a leading axis of them.
        n: The number of draws (static).

    Returns:
        Named draws, each of shape `(n, *shape)`.

    Raises:
        TypeError: If the key is not typed, the posterior learned no field, or `xs` has another
            structure or dtype.
        ValueError: If the posterior is of rounds, the prior is not standard normal in the latent
            space, `xs` has other shapes,
            no observation or numbers that are not finite, or `n < 1`.
    """
    _check_field("sample_iid", key, posterior)
    positive("n", n)
    if isinstance(posterior.prior, Seen):
        raise ValueError(
            "sample_iid: expected a posterior that jaxsbi.fit returned, got one of sequential "
            "rounds, which is right for one observation. Fit one without rounds."
        )
    if not all(posterior.prior.exact.values()):
        names = [name for name, exact in posterior.prior.exact.items() if not exact]
        raise ValueError(
            "sample_iid: expected a prior that is standard normal in the latent space, got "
            f"{names} without a usable quantile function."
        )
    xs = _conform_each(posterior.data, xs)
    posterior.warn_beyond(xs)
    return _sample_iid(key, posterior, xs, int(n))


def _conform_each(data: DataSpec, xs: Data) -> Data:
    """Return observations as `DataSpec.conform` returns each, or raise a clear error."""
    expected = f"xs: expected observations {data}, stacked along a leading axis of each array"
    refuse_masked_arrays("xs", xs)
    if jax.tree.structure(xs) != data.treedef:
        raise TypeError(
            f"{expected}, got {type(xs).__name__} of another structure. Stack data sets with "
            "jax.tree.map(lambda *a: jnp.stack(a), *xs)."
        )
    shapes = [jnp.shape(a) for a in jax.tree.leaves(xs)]
    sizes = {shape[:1] for shape in shapes}
    if [shape[1:] for shape in shapes] != [shape for _, shape, _ in data.leaves] or () in sizes:
        raise ValueError(f"{expected}, got shapes {shapes}. Of one data set pass x[None].")
    if len(sizes) != 1 or (0,) in sizes:
        raise ValueError(f"{expected}, one at least and as many in each, got shapes {shapes}.")
    xs = jax.vmap(data.conform)(jax.tree.map(jnp.asarray, xs))
    for (path, _, _), a in zip(data.leaves, jax.tree.leaves(xs), strict=True):
        if is_concrete(a) and not np.all(np.isfinite(a)):
            bad = np.flatnonzero(~np.isfinite(a).reshape(len(a), -1).all(1))
            raise ValueError(
                f"xs{path}: expected finite numbers, got NaN or infinite ones in observations "
                f"{bad[:5].tolist()} ({bad.size} in all). Leave these out."
            )
    return xs


@functools.partial(jax.jit, static_argnames="n")
def _sample_iid(key: Key, posterior: Posterior, xs: Data, n: int) -> Theta:
    method, variables, dim = posterior.method, posterior.variables, posterior.prior.dim
    widest = widest_angle(method.path)  # type: ignore[attr-defined]
    sampler = method.sampler  # type: ignore[attr-defined]
    key_pilot, key_draws = jax.random.split(key)
    contexts = jax.vmap(lambda x: _context(method, variables, x))(xs)

    def pilot(key: Key, context: Array) -> Array:
        def rotation(noise: Array, u: Array) -> Array:
            return _apply(method, variables, noise, u, context)

        return precision_of(sampler(key, rotation, dim, PILOT, widest)[0])

    def rotations(noise: Array, u: Array) -> Array:
        return jax.vmap(lambda c: _apply(method, variables, noise, u, c))(contexts)

    precision = jax.vmap(pilot)(jax.random.split(key_pilot, contexts.shape[0]), contexts)
    z, _ = sampler(key_draws, compose(rotations, precision), dim, n, widest)
    return jax.vmap(posterior.prior.from_latent)(z)


def _rotation(method: Any, variables: Variables, x: Data) -> Any:
    context = _context(method, variables, x)
    return lambda noise, u: _apply(method, variables, noise, u, context)


def _apply(method: Any, variables: Variables, noise: Array, u: Array, context: Array) -> Array:
    return method.field.apply({"params": variables["params"]["field"]}, noise, u, context)


def _context(method: Any, variables: Variables, x: Data) -> Array:
    params = variables["params"]["summary"]
    return read_context(method.summary, variables["statistics"], params, x)
