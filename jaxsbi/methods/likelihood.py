"""What the roads with a likelihood or a ratio share: MCMC on the latent prior.

Such a method has a `sampler`, a `target` prior (or `None`) and
`log_likelihood(variables, prior, z, x)`, up to a constant that depends on `x` only.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxsbi import missing, samplers
from jaxsbi.base import Array, Data, Key, Theta, Variables
from jaxsbi.priors import Prior


class LikelihoodMethod(Protocol):
    """A method that learns a likelihood, or a likelihood ratio."""

    @property
    def sampler(self) -> Any:
        """`sampler(key, log_density, dim, n) -> (z, info)`."""
        ...

    @property
    def target(self) -> Prior | None:
        """The prior to sample under, where it is not the prior of training."""
        ...

    def log_likelihood(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        """Return the log-likelihood at a latent point of the training prior (a scalar)."""
        ...


def check_all_there(road: str, x: Data) -> None:
    """Raise a ValueError for data with a mask: a law of x itself would be one of what is hidden."""
    masked = list(missing.masks(x))
    if masked:
        raise ValueError(
            f"{road}: expected x without a mask, got one in {', '.join(f'x{m}' for m in masked)}. "
            "Its law is of the numbers of x, also of those under a mask. Take a road that reads x "
            "through a summary, npe, fmpe, npse or nre; or jaxsbi.compression.frozen(nle(), "
            "summary), which learns the law of a summary that reads masks."
        )


def check_sampler(sampler: Any) -> None:
    """Raise a TypeError unless `sampler` can be called as one: it would be, after training."""
    try:
        inspect.signature(sampler).bind("key", "log_density", "dim", "n")
    except TypeError:
        name = sampler if isinstance(sampler, str) else getattr(sampler, "__name__", "")
        hint = "It is called as sampler(key, log_density, dim, n)."
        if name in samplers.__all__:
            hint = f"Call it: samplers.{name}()."
        raise TypeError(
            "sampler: expected a sampler such as jaxsbi.samplers.nuts(), got "
            f"{getattr(sampler, '__name__', None) or repr(sampler)}. {hint}"
        ) from None
    except ValueError:  # a callable of C's, whose signature cannot be looked at
        pass


def is_learned_by(method: Any) -> bool:
    """Whether a method, or the members of an ensemble, learn a likelihood or a ratio."""
    return hasattr(getattr(method, "method", method), "log_likelihood")


def sample(
    method: LikelihoodMethod, variables: Variables, prior: Prior, key: Key, x: Data, n: int
) -> tuple[Theta, Any]:
    """Return `n` named draws by running the method's sampler in the latent space."""
    target = prior if method.target is None else method.target

    def log_density(z: Array) -> Array:
        return target.latent_log_prob(z) + _log_likelihood(method, variables, prior, z, x)

    z, info = method.sampler(key, log_density, target.dim, n)
    return jax.vmap(target.from_latent)(z), info


def log_prob(
    method: LikelihoodMethod, variables: Variables, prior: Prior, theta: Theta, x: Data
) -> Array:
    """Return log p(x | theta) + log p(theta), not normalised over theta; -inf off the support."""
    target = prior if method.target is None else method.target
    log_prior = target.log_prob(theta)
    value = log_prior + at_theta(method, variables, prior, theta, x)
    return jnp.where(jnp.isfinite(log_prior), value, -jnp.inf)


def _log_likelihood(
    method: LikelihoodMethod, variables: Variables, prior: Prior, z: Array, x: Data
) -> Array:
    if method.target is None:
        return method.log_likelihood(variables, prior, z, x)
    return at_theta(method, variables, prior, method.target.from_latent(z), x)


def at_theta(
    method: LikelihoodMethod, variables: Variables, prior: Prior, theta: Theta, x: Data
) -> Array:
    """Evaluate at named parameters; where training never was, the likelihood is unknown: -inf."""
    z = prior.to_latent(theta)
    known = jnp.isfinite(prior.log_prob(theta)) & jnp.all(jnp.isfinite(z))
    value = method.log_likelihood(variables, prior, jnp.where(known, z, 0.0), x)
    return jnp.where(known, value, -jnp.inf)
