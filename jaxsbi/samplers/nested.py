"""Nested sampling by dynesty: an oracle for the evidence and for modes, not a part of any road."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from jaxsbi.base import Array, Key, check_key
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.weights import finite_log_ratio

_NOTHING = -1e300  # dynesty asks for numbers
_EDGE = 1e-7  # of the unit cube, where a float32 has no quantile


class NestedInfo(NamedTuple):
    """What nested sampling reports.

    Attributes:
        log_evidence: Log of the integral of exp(log_density).
        log_evidence_error: Its standard error, by dynesty's estimate.
        ess: Effective number of the weighted points that the draws are resampled from.
        evaluations: How often the density was evaluated.
    """

    log_evidence: float
    log_evidence_error: float
    ess: float
    evaluations: int


def nested(
    key: Key, log_density: LogDensity, dim: int, n: int, *, live: int = 500
) -> tuple[Array, NestedInfo]:
    """Draw by nested sampling from N(0, I) (Skilling 2006; dynesty, Speagle 2020, 1904.02180).

    A loop on the host, thousands of times slower than `smc`: to check a posterior or an evidence
    once, by a program that shares nothing with this package. It needs `pip install dynesty`.

    Args:
        key: A typed key; it seeds dynesty.
        log_density: An unnormalised log-density on the latent space; -inf and NaN are no density.
        dim: The number of dimensions.
        n: The number of draws.
        live: Live points: the error of the evidence is about sqrt(information / live).

    Returns:
        Draws of shape `(n, dim)`, resampled from the weighted points, and the report.

    Raises:
        ImportError: If dynesty is not installed.
        ValueError: If `live` is too small for the dimensions, or no live point has a density.
        TypeError: If the key is not typed.
    """
    check_key(key)
    if live < 2 * (dim + 1):
        raise ValueError(
            f"nested: expected live >= {2 * (dim + 1)} in {dim} dimensions, got {live}."
        )
    try:
        import dynesty
    except ImportError as error:
        raise ImportError(
            "samplers.nested needs dynesty: pip install dynesty. samplers.smc() gives the evidence "
            "without it."
        ) from error

    @jax.jit
    def log_likelihood(z: Array) -> Array:
        return finite_log_ratio(z[None], log_density(z)[None])[0]

    def evaluate(z: np.ndarray) -> float:
        return max(float(log_likelihood(z)), _NOTHING)

    def prior_transform(u: np.ndarray) -> np.ndarray:
        return ndtri(np.clip(u, _EDGE, 1.0 - _EDGE))

    key_points, key_seed = jax.random.split(key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_seed)))
    points = jax.random.normal(key_points, (live, dim))
    if not np.any(np.isfinite(jax.vmap(log_likelihood)(points))):
        raise ValueError(
            f"nested: the log-density is -inf or NaN at all {live} points drawn from N(0, I). "
            "Check the observation and the likelihood, or raise live."
        )
    sampler = dynesty.NestedSampler(
        evaluate, prior_transform, dim, nlive=live, rstate=rng, sample="rslice", bound="multi"
    )
    sampler.run_nested(print_progress=False)
    found = sampler.results
    weight = found.importance_weights()
    index = rng.choice(len(weight), size=n, p=weight / weight.sum())
    info = NestedInfo(
        log_evidence=float(found.logz[-1]),
        log_evidence_error=float(found.logzerr[-1]),
        ess=float(weight.sum() ** 2 / np.sum(weight**2)),
        evaluations=int(np.sum(found.ncall)),
    )
    return jnp.asarray(found.samples[index]), info
