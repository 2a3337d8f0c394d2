"""What a trained emulator predicts, and how much the members of an ensemble disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi import transforms
from jaxsbi.base import Data, Fitted, Posterior, Theta, is_concrete
from jaxsbi.methods import Emulator, Ensemble
from jaxsbi.methods.approximation import members as _members
from jaxsbi.methods.reach import training_range as _training_range
from jaxsbi.methods.reach import warn_outside


def emulate(fitted: Fitted | Posterior, theta: Mapping[str, Any]) -> Data:
    """Return the emulated data set at one parameter set, in the simulator's structure and units.

    Pure: put it under `jax.jit`, `jax.vmap` (over theta) and `jax.grad`. Members of an ensemble
    are averaged in the form in which they learned (logarithms, phases).

    Args:
        fitted: What `fit` returned for an `emulator`, or its posterior.
        theta: Named parameters of one parameter set.

    Raises:
        TypeError: If the method is no emulator.
        ValueError: If theta has other names or shapes.

    Warns:
        UserWarning: Outside jit and vmap, where theta is outside the training range.
    """
    return _predicted(fitted, theta)[0]


def emulate_with_error(fitted: Fitted | Posterior, theta: Mapping[str, Any]) -> tuple[Data, Data]:
    """Return the emulated data set as `emulate`, and its predictive error.

    The error is the standard deviation among the members of an ensemble, which differ in their
    initialisation and order of batches: what the training leaves open, not what all members share
    (too few components, say).

    Raises:
        TypeError: If the method is no ensemble of emulators.
        ValueError: If theta has other names or shapes.
    """
    if not isinstance(posterior_of(fitted).method, Ensemble):
        raise TypeError(
            "emulate_with_error: expected an ensemble, whose members' disagreement is the error, "
            "got one emulator. Train several: jaxsbi.fit(..., ensemble=5)."
        )
    return _predicted(fitted, theta)


def members(posterior: Posterior, theta: Theta) -> Data:
    """Return what each member predicts, in the form it is learned in, with a leading axis."""
    return _members(posterior.method, posterior.variables, posterior.prior, theta)


def emulator_of(posterior: Posterior) -> Emulator:
    """Return the configuration of an emulator, or of an ensemble's members."""
    method: Any = posterior.method
    return getattr(method, "method", method)


def posterior_of(fitted: Fitted | Posterior) -> Posterior:
    """Return the posterior of an emulator.

    Raises:
        TypeError: If it is none.
    """
    posterior = fitted.posterior if isinstance(fitted, Fitted) else fitted
    method = emulator_of(posterior) if isinstance(posterior, Posterior) else posterior
    if not isinstance(method, Emulator):
        raise TypeError(
            "expected what jaxsbi.fit returned for jaxsbi.emulator(...), got "
            f"{type(method).__name__}. Other roads predict no data."
        )
    return posterior


def training_range(fitted: Fitted | Posterior) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the least and the greatest value of each parameter among the training simulations.

    Training that went on from another emulator (`fit(initial=...)`) keeps that one's range.
    """
    posterior = posterior_of(fitted)
    return _training_range(posterior.prior, reach_of(posterior))


def check_range(fitted: Fitted | Posterior, theta: Mapping[str, Any]) -> dict[str, float]:
    """Warn if more than 1 % of some parameter sets lie outside the emulator's training range.

    By more than a twentieth of its width: few runs leave that much of a prior empty by chance.

    Posteriors look by themselves; this is for draws from elsewhere, such as NumPyro's MCMC.

    Args:
        fitted: What `fit` returned for an `emulator`, or its posterior.
        theta: Named parameters, each of shape `(n, *shape)`; other names are passed over.

    Returns:
        Name to the largest distance from the range, in widths of the range; 0 if all are inside.

    Raises:
        ValueError: If a parameter is missing.
    """
    posterior = posterior_of(fitted)
    if missing := [name for name in posterior.prior.names if name not in theta]:
        raise ValueError(f"check_range: expected also {missing}, got only {list(theta)}.")
    return warn_outside(posterior.prior, reach_of(posterior), dict(theta))


def reach_of(posterior: Posterior) -> jax.Array:
    """Return the latent training points that are extreme in some number, `(2d, d)`."""
    reach = posterior.variables["statistics"]["reach"]
    return reach[0] if isinstance(posterior.method, Ensemble) else reach


def _predicted(fitted: Fitted | Posterior, theta: Mapping[str, Any]) -> tuple[Data, Data]:
    posterior = posterior_of(fitted)
    theta = posterior.prior.check(theta)
    if is_concrete((posterior, theta)):
        check_range(posterior, {name: a[None] for name, a in theta.items()})
    return _predict(posterior, theta)


@jax.jit
def _predict(posterior: Posterior, theta: Theta) -> tuple[Data, Data]:
    transform = emulator_of(posterior).transform
    each = members(posterior, theta)
    mean = jax.tree.map(lambda a: jnp.mean(a, 0), each)
    data = jax.vmap(lambda y: transforms.inverse(transform, y))(each)
    count = jax.tree.leaves(each)[0].shape[0]

    def deviation(a: jax.Array) -> jax.Array:
        square = jnp.abs(a - jnp.mean(a, 0, keepdims=True)) ** 2
        return jnp.sqrt(jnp.sum(square, 0) / max(count - 1, 1))

    return transforms.inverse(transform, mean), jax.tree.map(deviation, data)
