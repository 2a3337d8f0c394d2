"""R-hat and effective sample size, rank-normalised, as pure functions (Vehtari et al. 2021)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, warn

MAX_R_HAT = 1.05


class ChainInfo(NamedTuple):
    """What a Markov-chain sampler reports, per latent dimension where that applies.

    Attributes:
        r_hat: Rank-normalised split R-hat, the larger of bulk and folded, shape `(d,)`.
        ess_bulk: Effective number of draws for the centre, shape `(d,)`.
        ess_tail: Effective number of draws for the 5 % and 95 % quantiles, shape `(d,)`.
        divergences: Number of divergent transitions after warm-up.
        acceptance: Mean acceptance probability.
        log_density: Log-density of each draw in the latent space, shape `(n,)`.
    """

    r_hat: Array
    ess_bulk: Array
    ess_tail: Array
    divergences: Array
    acceptance: Array
    log_density: Array

    def warn(self) -> None:
        """Warn (on the host) when the chains should not be trusted."""
        if not bool(jnp.any(jnp.isfinite(self.log_density))):
            # Chains cannot move then, and R-hat and divergences say nothing of why.
            remedy = "use jaxsbi.samplers.smc with more particles"
            warn(nowhere("MCMC", "start drawn from the prior", remedy))
            return
        worst = float(jnp.max(self.r_hat))
        if not worst <= MAX_R_HAT:
            warn(
                f"MCMC: R-hat is {worst:.3f} (expected <= {MAX_R_HAT}): chains disagree, so the "
                "draws are not the posterior's. Use more chains or a longer warm-up, or look for "
                "separated modes."
            )
        total = self.log_density.shape[-1]
        divergent = int(jnp.sum(self.divergences))
        if divergent > 0.02 * total:
            warn(
                f"MCMC: {divergent} divergent transitions for {total} draws: parts of the "
                "posterior may be missed. Raise target_acceptance."
            )


def nowhere(name: str, point: str, remedy: str) -> str:
    """Return the warning of a sampler that has met no finite log-density at any `point`."""
    return (
        f"{name}: the log-density was -inf or NaN at every {point}, so there is no posterior and "
        "the draws are the prior's. Check the observation and the likelihood; if the posterior "
        f"fills very little of the prior, {remedy}."
    )


def chain_statistics(chains: Array) -> tuple[Array, Array, Array]:
    """Return R-hat, bulk ESS and tail ESS for each dimension.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, arXiv:1903.08008.

    Args:
        chains: Draws, shape `(chains, draws, d)`.

    Returns:
        Three arrays of shape `(d,)`. Chains stuck apart give a large R-hat.
    """
    per_dimension = jnp.moveaxis(chains, -1, 0)
    return jax.vmap(_one_dimension)(per_dimension)


def _one_dimension(chains: Array) -> tuple[Array, Array, Array]:
    half = chains.shape[1] // 2
    split = jnp.concatenate([chains[:, :half], chains[:, chains.shape[1] - half :]])
    folded = jnp.abs(split - jnp.median(split))
    low, high = jnp.quantile(split, jnp.array([0.05, 0.95], split.dtype))
    ranks = jax.vmap(_rank_normalize)(jnp.stack([split, folded]))
    # Stacked, so that the sorts and transforms are compiled once.
    r_hat = jnp.max(jax.vmap(_r_hat)(ranks))
    tails = jnp.stack([split <= low, split <= high]).astype(split.dtype)
    ess = jax.vmap(_ess)(jnp.concatenate([ranks[:1], tails]))
    # A constant (stuck) dimension has no rank information: it must read as not converged.
    spread = jnp.max(split) > jnp.min(split)
    return jnp.where(spread, r_hat, jnp.inf), ess[0], jnp.minimum(ess[1], ess[2])


def _rank_normalize(draws: Array) -> Array:
    """Replace draws by normal scores of their ranks (ties share their mean rank)."""
    flat = draws.ravel()
    ordered = jnp.sort(flat)
    low = jnp.searchsorted(ordered, flat, side="left")
    high = jnp.searchsorted(ordered, flat, side="right")
    rank = 0.5 * (low + high + 1)
    normal = jax.scipy.special.ndtri((rank - 0.375) / (flat.size + 0.25))
    return jnp.reshape(normal, draws.shape).astype(draws.dtype)


def _r_hat(chains: Array) -> Array:
    n = chains.shape[1]
    within = jnp.mean(jnp.var(chains, axis=1, ddof=1))
    between = n * jnp.var(jnp.mean(chains, axis=1), ddof=1)
    return jnp.sqrt((between / jnp.where(within > 0, within, 1e-30) + n - 1.0) / n)


def _ess(chains: Array) -> Array:
    """Effective sample size of split chains by Geyer's initial monotone sequence."""
    m, n = chains.shape
    centred = chains - jnp.mean(chains, 1, keepdims=True)
    size = 2 * n
    spectrum = jnp.fft.rfft(centred, size, axis=1)
    covariance = jnp.fft.irfft(jnp.abs(spectrum) ** 2, size, axis=1)[:, :n].astype(chains.dtype) / n
    mean_covariance = jnp.mean(covariance, 0)
    within = mean_covariance[0] * n / (n - 1.0)
    plus = within * (n - 1.0) / n + jnp.var(jnp.mean(chains, 1), ddof=1)
    rho = 1.0 - (within - mean_covariance) / jnp.where(plus > 0, plus, 1.0)
    rho = rho.at[0].set(1.0)
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(1)
    # Keep pairs up to the first negative one, and make them monotone.
    kept = jnp.where(jnp.cumsum(pairs <= 0) == 0, pairs, 0.0)
    tau = -1.0 + 2.0 * jnp.sum(jax.lax.cummin(kept))
    total = m * n
    ess = total / jnp.maximum(tau, 1.0 / jnp.log10(float(total)))
    return jnp.where(plus > 0, ess, 0.0)
