"""Draws for other libraries: ArviZ of either major version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxsbi.base import Data, Theta

DRAWN = ("posterior", "posterior_predictive", "log_likelihood", "prior", "prior_predictive")


def to_arviz(
    draws: Theta,
    *,
    posterior_predictive: Data = None,
    log_likelihood: Data = None,
    prior: Theta | None = None,
    prior_predictive: Data = None,
    observed: Data = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
) -> Any:
    """Return draws as ArviZ reads them, so that all of its tables and plots work.

    Plain named arrays serve everyone else: draws are a dict of arrays. Weighted draws are resampled
    first (`weighted.resample`). ArviZ's own R-hat and effective sample size need chains, which
    draws no longer have; `posterior.sample_with_info` reports them.

    Args:
        draws: Named draws, each of shape `(n, *shape)`.
        posterior_predictive: Data simulated at these draws, leaves of shape `(n, *shape)`.
        log_likelihood: Log-likelihood of each datum at each draw, leaves of shape `(n, *shape)`.
        prior: Named draws of the prior.
        prior_predictive: Data simulated at them.
        observed: The observation.
        coords: Passed on to ArviZ: the labels of named dimensions.
        dims: Passed on to ArviZ: the dimensions of each variable.

    Returns:
        An `arviz.InferenceData` (ArviZ 0.x) or an `xarray.DataTree` (ArviZ 1), with one chain.
        Data that are no dict are called "x", leaves of nested ones by their path.

    Raises:
        ImportError: If ArviZ is not installed.
        ValueError: If a group's arrays have different numbers of draws, or none.
    """
    try:
        import arviz
    except ImportError as error:
        raise ImportError("jaxsbi.to_arviz needs ArviZ: pip install arviz.") from error
    given = {
        "posterior": draws,
        "posterior_predictive": posterior_predictive,
        "log_likelihood": log_likelihood,
        "prior": prior,
        "prior_predictive": prior_predictive,
        "observed_data": observed,
    }
    groups = {name: _named(value) for name, value in given.items() if value is not None}
    for name in DRAWN:
        if name in groups:
            groups[name] = _one_chain(name, groups[name])
    from_dict: Any = arviz.from_dict
    if int(arviz.__version__.split(".")[0]) >= 1:
        return from_dict(groups, coords=coords, dims=dims)
    return from_dict(**groups, coords=coords, dims=dims)


def _named(value: Data) -> dict[str, np.ndarray]:
    """Return the leaves of a pytree by name."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        name = ".".join(jax.tree_util.keystr((part,), simple=True) for part in path)
        found[name or "x"] = np.asarray(leaf)
    return found


def _one_chain(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays with an axis of one chain."""
    counts = {key: array.shape[0] if array.ndim else 0 for key, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(
            f"to_arviz: {name}: expected arrays with one leading axis of draws, got {counts}. "
            "Every leaf is of shape (n, *shape)."
        )
    return {key: array[None] for key, array in arrays.items()}
