"""The density protocol: a Flax module that maps a context to a distribution over R^d.

A density owns two unbatched laws, `log_prob(z, context)` and `sample_and_log_prob(key, context)`;
`distribution(context)` is a distrax view of them for use inside one trace. Call them through
Flax: `density.apply({"params": params}, z, context, method="log_prob")`.

An untrained flow is the standard normal, so an untrained posterior is the prior.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key

LOG_2PI = math.log(2.0 * math.pi)


def kernel_init(variance: float = 0.1, *, batch_axes: int = 0) -> Any:
    """Return an initialiser of hidden layers, by default with a tenth of the usual variance.

    Conditioners then start close to linear, and learn the linear part of a problem before they
    fit noise. On a 10-d Gaussian posterior from 10,000 simulations, spline couplings end 0.35
    nat above the optimum with the usual variance, 0.20 with a third and 0.12 with a tenth of it.
    """
    init = jax.nn.initializers.variance_scaling(
        variance, "fan_in", "truncated_normal", batch_axis=tuple(range(batch_axes))
    )

    def initialize(key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
        # Flax divides by the number of stacked layers, of which there may be none.
        return init(key, shape, dtype) if math.prod(shape) else jnp.zeros(shape, dtype)

    return initialize


UNROLL = 1
"""Layers of a flow unrolled per step of the scan over layers."""


def first_carry(layers: dict[str, Array], z: Array) -> tuple[Array, Array]:
    """Return a point and a log-determinant of 0, in the widest precision of it and the layers.

    Parameters in double precision make doubles of single ones, which a scan does not allow.
    """
    dtype = jnp.result_type(z, *layers.values())
    return z.astype(dtype), jnp.zeros((), dtype)


class Density(Protocol):
    """What `npe` and `nle` ask of a density (a Flax module, configured without its size)."""

    dim: int | None
    """The number of dimensions d; a method sets it by `density.clone(dim=d)`."""

    def clone(self, *, dim: int) -> Any:
        """Return the same configuration for `dim` dimensions."""
        ...

    def log_prob(self, z: Array, context: Array) -> Array:
        """Return the log-density (a scalar) of `z`, shape `(d,)`, given a context `(c,)`."""
        ...

    def sample_and_log_prob(self, key: Key, context: Array) -> tuple[Array, Array]:
        """Return one draw, shape `(d,)`, and its log-density."""
        ...

    def distribution(self, context: Array) -> distrax.Distribution:
        """Return a distrax view; it must not leave the trace it was made in."""
        ...


class View(distrax.Distribution):
    """A density module bound to its parameters and one context, seen as a distrax distribution."""

    def __init__(self, density: Any, context: Array):
        # A bound Flax module cannot be called inside jax.vmap; its pure form can.
        self._density, self._variables = density.unbind()
        self._context = context

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape `(d,)` of one draw."""
        return (require_dim(self._density),)

    def log_prob(self, value: Array) -> Array:
        """Return the log-density of values of shape `(..., d)`."""
        flat = jnp.reshape(value, (-1, *self.event_shape))

        def one(z: Array) -> Array:
            return self._density.apply(self._variables, z, self._context, method="log_prob")

        return jnp.reshape(jax.vmap(one)(flat), value.shape[:-1])

    def _sample_n(self, key: Key, n: int) -> Array:
        return self._sample_n_and_log_prob(key, n)[0]

    def _sample_n_and_log_prob(self, key: Key, n: int) -> tuple[Array, Array]:
        def one(key: Key) -> tuple[Array, Array]:
            return self._density.apply(
                self._variables, key, self._context, method="sample_and_log_prob"
            )

        return jax.vmap(one)(jax.random.split(key, n))


def standard_normal_log_prob(z: Array) -> Array:
    """Return the log-density of N(0, I) at `z`, shape `(d,)`."""
    return -0.5 * jnp.sum(z * z) - 0.5 * z.size * LOG_2PI


def check_some(density: Any, *names: str) -> None:
    """Raise a ValueError unless there is at least one of what each of these attributes counts."""
    for name in names:
        if getattr(density, name) < 1:
            raise ValueError(
                f"{type(density).__name__}: expected {name} >= 1, got {getattr(density, name)}. "
                "Leave it out for the default."
            )


def check_density(road: str, density: Any) -> None:
    """Raise a TypeError for a network that is no density: it would fail where it is first used.

    What is no Flax module at all is named by `fit`.
    """
    if isinstance(density, nn.Module) and not hasattr(density, "log_prob"):
        raise TypeError(
            f"{road}: expected a conditional density such as jaxsbi.densities.SplineCoupling(), "
            f"got {type(density).__name__}. A network that reads x is a summary, or a part of a "
            "density of your own."
        )


def require_dim(density: Any) -> int:
    """Return the density's dimension, or say how to set it."""
    if density.dim is None:
        raise ValueError(
            f"{type(density).__name__}: expected dim to be set, got None. "
            "Methods set it; on its own, use density.clone(dim=d)."
        )
    return density.dim
