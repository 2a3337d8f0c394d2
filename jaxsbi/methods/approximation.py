"""What an emulator knows before its training: an approximation, of which the error is learned.

Few runs of an exact simulator are enough where its difference from a cheap one is small and smooth
(Kennedy and O'Hagan 2000, Biometrika 87, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi import transforms
from jaxsbi.base import Data, DataSpec, Fitted, Posterior, Simulations, Theta, configuration, leaf
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.methods.fixed import fixed
from jaxsbi.priors import Prior

LOOKED_AT = 256
"""Simulations at which an approximation is tried before a training."""

Approximation = Callable[[Theta], Data]


@configuration
class Emulated:
    """A trained emulator as a function of the parameters; of an ensemble, its members' mean.

    Attributes:
        method: The emulator, or an ensemble of them.
        variables: What it has learned.
        prior: The prior of its training.
    """

    method: Any = leaf()
    variables: Any = leaf()
    prior: Prior = leaf()

    @property
    def transform(self) -> transforms.Transform:
        """The form in which it has learned."""
        return getattr(self.method, "method", self.method).transform

    def outputs(self, theta: Theta) -> Data:
        """Return what is predicted at one parameter set, in the form in which it was learned."""
        each = members(self.method, self.variables, self.prior, theta)
        return jax.tree.map(lambda a: jnp.mean(a, 0), each)

    def __call__(self, theta: Theta) -> Data:
        """Return the data set predicted at one parameter set."""
        return transforms.inverse(self.transform, self.outputs(theta))


def in_form(approximation: Any, transform: transforms.Transform, theta: Theta) -> Data:
    """Return an approximation at one parameter set, in the form in which outputs are learned."""
    if isinstance(approximation, Emulated) and approximation.transform == transform:
        return approximation.outputs(theta)
    return transforms.forward(transform, approximation(theta))


def members(method: Any, variables: Any, prior: Prior, theta: Theta) -> Data:
    """Return what each member predicts, in the form it is learned in, with a leading axis.

    Args:
        method: An emulator, which is its only member, or an ensemble of them.
        variables: What it has learned.
        prior: The prior of its training.
        theta: One parameter set.
    """
    z = prior.to_latent(theta)
    if isinstance(method, Ensemble):
        return jax.vmap(lambda v: method.method.outputs(v, prior, z))(variables)
    return jax.tree.map(lambda a: a[None], method.outputs(variables, prior, z))


def approximation_of(given: Fitted | Posterior | Approximation) -> Any:
    """Return an approximation as a configuration holds it: a pytree that is called on theta.

    Raises:
        TypeError: If it is no emulator, and no function.
    """
    posterior: Any = given.posterior if isinstance(given, Fitted) else given
    if not isinstance(posterior, Posterior):
        if callable(posterior):
            return fixed(posterior)
        got = type(posterior).__name__
    else:
        method: Any = posterior.method
        if hasattr(getattr(method, "method", method), "outputs"):
            return Emulated(method=method, variables=posterior.variables, prior=posterior.prior)
        got = f"a posterior of {type(method).__name__}, which predicts no data"
    raise TypeError(
        "approximation: expected what jaxsbi.fit returned for jaxsbi.emulator(...), or a function "
        f"from named parameters to a data set, got {got}."
    )


def check(approximation: Any, simulations: Simulations) -> None:
    """Try an approximation at simulated parameters, on concrete arrays.

    Raises:
        ValueError: If it is of other parameters or data than the simulations, was trained under a
            prior that excludes some of them, or is not finite.
    """
    theta, x = jax.tree.map(lambda a: np.asarray(a)[:LOOKED_AT], (simulations.theta, simulations.x))
    if isinstance(approximation, Emulated):
        _check_prior(approximation.prior, theta)
    found = jax.jit(jax.vmap(approximation))(theta)
    came, wanted = (DataSpec.of(each, batched=True) for each in (found, x))
    if _shapes(came) != _shapes(wanted):
        raise ValueError(
            f"approximation: expected data sets as the simulations have them, {wanted}, got {came}."
        )
    wrong = sum(np.count_nonzero(~np.isfinite(np.asarray(a))) for a in jax.tree.leaves(found))
    if wrong:
        raise ValueError(
            f"approximation: expected finite numbers at the simulated parameters, got {wrong} "
            "others. Simulate only where it can be evaluated."
        )


def _check_prior(prior: Prior, theta: Theta) -> None:
    if set(prior.names) != set(theta):
        raise ValueError(
            f"approximation: expected an emulator of the simulated parameters, {sorted(theta)}, "
            f"got one of {sorted(prior.names)}. Pass a function that makes one of the other: "
            "lambda theta: jaxsbi.emulate(fitted, ...)."
        )
    outside = int(np.sum(~np.isfinite(np.asarray(jax.jit(jax.vmap(prior.log_prob))(theta)))))
    if outside:
        raise ValueError(
            "approximation: expected an emulator whose prior allows the simulated parameters, got "
            f"{outside} of {len(next(iter(theta.values())))} outside of it, where it was never "
            "trained. Train it under a prior that is as wide."
        )


def _shapes(spec: DataSpec) -> Any:
    return spec.treedef, [(path, shape) for path, shape, _ in spec.leaves]
