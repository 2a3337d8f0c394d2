"""Does a learned ratio integrate to one, as p(x | theta) / p(x) does over the prior?"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Posterior, check_key
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.methods.nre import NRE


class Normalization(NamedTuple):
    """What `normalization` estimates for one observation.

    Attributes:
        z: The estimate of Z(x), a scalar; 1 for an exact ratio.
        standard_error: Its standard error, from the ratios' scatter.
        ess: Effective number of draws, between 1 and n. Below about 100 neither of the above can
            be trusted: the posterior is too narrow for draws from the prior, use more of them.
    """

    z: Array
    standard_error: Array
    ess: Array


def normalization(key: Key, posterior: Posterior, x: Data, n: int = 10_000) -> Normalization:
    """Estimate Z(x) = E[r(theta, x)] over the prior of training, by `n` draws from it.

    The exact ratio p(x | theta) / p(x) has Z(x) = 1 for every x; NRE-C is made so that a learned
    one can (Miller et al. 2022, arXiv:2210.06170). Far from 1, the classifier has not learned
    this observation; near 1, it may still be wrong in shape. Pure: `jax.vmap` it over
    observations and keys.

    Args:
        key: A typed key.
        posterior: A posterior made by `nre`, or an ensemble of them.
        x: One data set, of the structure and shapes the simulator returns.
        n: The number of draws (static).

    Raises:
        TypeError: If the posterior's road learns no ratio, or the key is not typed.
        ValueError: If `x` has another shape or is not finite, or `n < 2`.
    """
    check_key(key)
    method = posterior.method
    road = method.method if isinstance(method, Ensemble) else method
    if not isinstance(road, NRE):
        raise TypeError(
            "normalization: expected a posterior of jaxsbi.nre, got one of "
            f"{type(road).__name__}, which learns no ratio whose prior mean is 1: a learned "
            "posterior or likelihood is normalised by construction."
        )
    if n < 2:
        raise ValueError(f"n: expected at least 2 draws, got {n!r}.")
    return _normalization(key, posterior, posterior.conform(x), int(n))


@functools.partial(jax.jit, static_argnames="n")
def _normalization(key: Key, posterior: Posterior, x: Data, n: int) -> Normalization:
    prior, variables = posterior.prior, posterior.variables
    method: Any = posterior.method

    def log_ratio(key: Key) -> Array:
        z = prior.to_latent(prior.sample(key))
        return method.log_likelihood(variables, prior, z, x)

    value = jax.vmap(log_ratio)(jax.random.split(key, n))
    # Relative to the largest: a ratio may exceed what float32 can hold.
    top = jnp.max(value)
    weight = jnp.exp(value - top)
    mean, scatter = jnp.mean(weight), jnp.std(weight, ddof=1)
    scale = jnp.exp(top)
    return Normalization(
        z=scale * mean,
        standard_error=scale * scatter / n**0.5,
        ess=jnp.sum(weight) ** 2 / jnp.sum(weight**2),
    )
