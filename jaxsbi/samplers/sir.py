"""Sampling-importance-resampling from the latent prior."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration, warn
from jaxsbi.batching import over_draws
from jaxsbi.samplers.chains import LogDensity
from jaxsbi.samplers.convergence import chain_statistics, nowhere
from jaxsbi.samplers.weights import (
    effective_size,
    finite_log_ratio,
    log_mean_and_error,
    normalized,
    systematic,
)

MIN_SIZE, MAX_COPIES = 100, 20  # effective candidates; draws for each of them
_GROUPS, _PER_GROUP = 4, 100


class SIRInfo(NamedTuple):
    """What sampling-importance-resampling reports.

    Attributes:
        r_hat: Rank-normalised split R-hat over four groups of candidates, each resampled by its own
            weights, shape `(d,)`: large where a few candidates carry all the weight.
        ess_bulk: Effective number of independent draws among those returned, shape `(d,)`.
        ess_tail: The same number.
        divergences: 0, there are no transitions.
        acceptance: Share of the candidates that is effective, `ess / candidates`.
        log_density: Log-density of each draw in the latent space, shape `(n,)`.
        log_evidence: Log of the integral of exp(log_density).
        log_evidence_error: Its standard error, from the weights.
        ess: Kish's effective number of candidates.
    """

    r_hat: Array
    ess_bulk: Array
    ess_tail: Array
    divergences: Array
    acceptance: Array
    log_density: Array
    log_evidence: Array
    log_evidence_error: Array
    ess: Array

    def warn(self) -> None:
        """Warn (on the host) when the draws should not be trusted."""
        if not bool(jnp.isfinite(self.log_evidence)):
            warn(nowhere("SIR", "candidate drawn from the prior", "raise candidates"))
            return
        n = self.log_density.shape[-1]
        expected = max(MIN_SIZE, n / MAX_COPIES)
        if not float(self.ess) >= expected:
            warn(
                f"SIR: {float(self.ess):.0f} of the candidates are effective (expected >= "
                f"{expected:.0f} for {n} draws): many draws are the same point. Raise candidates, "
                "or use jaxsbi.samplers.smc()."
            )


@configuration
class SIR:
    """Sampling-importance-resampling from N(0, I) (Rubin 1988; its ESS: arXiv:1809.04129).

    No gradients and no tuning: right where the posterior fills more than a thousandth of the prior,
    in a few dimensions.

    Attributes:
        candidates: Latent prior draws, at least; more if `n` asks for them.
        multiple: Candidates for each draw asked for, at least.
    """

    candidates: int = 100_000
    multiple: int = 10

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If there are too few candidates.
        """
        if self.candidates < _GROUPS * _PER_GROUP or self.multiple < 1:
            raise ValueError(
                f"sir: expected candidates >= {_GROUPS * _PER_GROUP} and multiple >= 1, got "
                f"candidates={self.candidates}, multiple={self.multiple}."
            )

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, SIRInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised log-density on the latent space.
            dim: The number of dimensions.
            n: The number of draws, resampled from `max(candidates, multiple * n)` prior draws.

        Returns:
            Draws of shape `(n, dim)`, and the report with the evidence.
        """
        key_draw, key_pick, key_order, key_groups = jax.random.split(key, 4)
        size = -(-max(self.candidates, self.multiple * n) // _GROUPS)
        z = jax.random.normal(key_draw, (_GROUPS * size, dim))
        value = over_draws(log_density, z)
        log_weight = finite_log_ratio(z, value)
        evidence, error = log_mean_and_error(log_weight)
        alive = jnp.isfinite(evidence)
        picked = systematic(key_pick, normalized(log_weight), n)
        picked = jax.random.permutation(key_order, picked)
        ess = effective_size(log_weight)
        independent = jnp.broadcast_to(ess * n / (ess + n), (dim,))
        info = SIRInfo(
            r_hat=jnp.where(alive, _r_hat(key_groups, z, log_weight), jnp.inf),
            ess_bulk=independent,
            ess_tail=independent,
            divergences=jnp.array(0),
            acceptance=ess / z.shape[0],
            log_density=value[picked],
            log_evidence=evidence,
            log_evidence_error=error,
            ess=ess,
        )
        return z[picked], info


def _r_hat(key: Key, z: Array, log_weight: Array) -> Array:
    """Return R-hat over groups of candidates that have nothing to do with each other."""

    def group(key: Key, z: Array, log_weight: Array) -> Array:
        return z[systematic(key, normalized(log_weight), _PER_GROUP)]

    keys = jax.random.split(key, _GROUPS)
    z, log_weight = z.reshape(_GROUPS, -1, z.shape[-1]), log_weight.reshape(_GROUPS, -1)
    return chain_statistics(jax.vmap(group)(keys, z, log_weight))[0]


def sir(*, candidates: int = 100_000, multiple: int = 10) -> SIR:
    """Return the configuration of sampling-importance-resampling.

    Args:
        candidates: Latent prior draws, at least.
        multiple: Candidates for each draw asked for, at least.

    Raises:
        ValueError: If there are too few candidates.
    """
    return SIR(candidates=candidates, multiple=multiple)
