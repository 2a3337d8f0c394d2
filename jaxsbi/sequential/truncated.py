"""Truncated rounds: the prior, cut to the region that the last posterior does not rule out."""

from __future__ import annotations

import functools
import os
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import Array, Data, Key, Method, Posterior, Simulator, Theta
from jaxsbi.boxed import Boxed, boxed
from jaxsbi.methods.likelihood import is_learned_by
from jaxsbi.priors import Prior
from jaxsbi.recentred import Recentred, latents
from jaxsbi.samplers.slice import ellipse
from jaxsbi.samplers.student import fit_to
from jaxsbi.sequential.proposal import Proposal, Propose
from jaxsbi.sequential.rounds import Result, run

DRAWS = 10_000
"""Draws of the posterior that the region is made from: its edge is their least likely one, so that
about 1e-4 of the posterior lies outside."""
CANDIDATES, MAX_BATCHES = 4096, 100
STEPS = 40
"""Moves that spread draws of the posterior over the region, where few draws of the prior hit it."""
SHRINKS = 40


def truncated(
    key: Key,
    method: Method,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    *,
    num_rounds: int,
    simulations_per_round: int,
    region: Literal["density", "box"] = "density",
    previous: Result | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Result:
    """Learn a posterior from rounds of simulations from an ever smaller part of the prior.

    Within the region a proposal is the prior, so that nothing needs to be corrected (TSNPE,
    Deistler et al. 2022, arXiv:2210.04815). The box is that of TMNRE (Miller et al. 2021,
    arXiv:2107.01214), around a posterior of all parameters: `sequential.marginals` does without.

    Args:
        key: A typed key.
        method: Any method; with `region="density"` one with a `log_prob`.
        prior: The prior; the first round is simulated from it.
        simulator: `simulator(key, theta) -> x`.
        x: The observation; the result holds for it alone.
        num_rounds: How many rounds to run.
        simulations_per_round: Simulations of each; those of all rounds that lie in the region are
            trained on.
        region: "density": where posterior / prior exceeds its value at the least likely of 10,000
            draws. "box": between the smallest and the largest draw of each latent coordinate.
        previous: What an earlier call returned: its rounds are kept, and these are added. They are
            the prior's or a part's that was chosen for this observation, unless the method
            learns a likelihood or a ratio: then any under the same prior.
        checkpoint: A folder in which every round is written down: its simulations when they are
            made, and its training as by `fit`. The same call goes on from there after Ctrl-C or a
            killed process, and ends in the same bits as if nothing had happened. With other
            `num_rounds` it is another run: add rounds with `previous`, and the same folder.
        progress: Show progress bars.

    Returns:
        Every round, and the last posterior. Ctrl-C loses the round that is being run.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If a number is out of range, `previous` cannot be used here, a box is asked for
            under a prior without latent coordinates that are N(0, I), the region is empty (a
            posterior that is NaN everywhere), or the checkpoint is damaged or of another call.
    """
    return run(
        key,
        method,
        prior,
        simulator,
        x,
        within(region, prior),
        num_rounds=num_rounds,
        simulations_per_round=simulations_per_round,
        previous=previous,
        checkpoint=checkpoint,
        progress=progress,
    )


def within(region: str, prior: Prior) -> Propose:
    """Return how to propose the prior cut to a region.

    Raises:
        ValueError: If there is no such region, or none under this prior.
    """
    proposals: dict[str, Propose] = {"density": _by_density, "box": _by_box}
    if region not in proposals:
        raise ValueError(f'region: expected "density" or "box", got {region!r}.')
    if region == "box" and not all(prior.exact.values()):
        names = [name for name, exact in prior.exact.items() if not exact]
        why = "lie in a box already" if isinstance(prior, Boxed) else "are mapped by their support"
        raise ValueError(
            f"region: a box needs parameters whose latent coordinates are N(0, I), and {names} "
            f'{why}. Use region="density".'
        )
    return proposals[region]


class _Region(NamedTuple):
    """Draws of the posterior, their log posterior / prior, and what it is at the region's edge.

    And the log of what the posterior integrates to: 0 for densities, of learned likelihoods and
    ratios the evidence that their sampler reports, NaN if it does not.
    """

    z: Array
    log_ratio: Array
    threshold: Array
    log_norm: Array


def _by_density(key: Key, posterior: Posterior, centred: Recentred, x: Data, n: int) -> Proposal:
    key_region, key_direct, key_spread = jax.random.split(key, 3)
    x = posterior.conform(x)
    found = _region(key_region, posterior, x)
    if not np.isfinite(float(found.threshold)):
        raise ValueError(
            "sequential.truncated: the region is empty, for the last posterior's density is not a "
            "number at any of its own draws. Train on more simulations a round."
        )
    z, count, total = _from_prior(key_direct, posterior, x, found.threshold, n)
    mass = float(count / jnp.maximum(total, 1))
    if int(count) < n:
        z, estimate = _spread(key_spread, posterior, x, found, n)
        mass = float(estimate) if np.isfinite(float(estimate)) else mass
    theta = jax.vmap(centred.prior.from_latent)(z)
    log_prob = jax.vmap(centred.prior.log_prob)(theta) - np.log(max(mass, 1e-30))

    def keeps(theta: Theta) -> np.ndarray:
        return np.asarray(_inside(posterior, x, found.threshold, theta))

    return Proposal(theta, log_prob, mass, keeps)


def _log_ratio(posterior: Posterior, x: Data, z: Array) -> Array:
    """Return log posterior / prior at a latent point of the *first* prior; -inf for NaN."""
    base = posterior.prior.prior  # type: ignore[attr-defined]
    theta = base.from_latent(z)
    value = posterior.method.log_prob(posterior.variables, posterior.prior, theta, x)
    ratio = value - base.log_prob(theta)
    return jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)


@jax.jit
def _region(key: Key, posterior: Posterior, x: Data) -> _Region:
    """Return the region outside which about one in `DRAWS` of the posterior lies."""
    base = posterior.prior.prior  # type: ignore[attr-defined]
    theta, info = posterior.method.sample(posterior.variables, posterior.prior, key, x, DRAWS)
    z = jax.vmap(base.to_latent)(theta)
    ratio = jax.lax.map(lambda z: _log_ratio(posterior, x, z), z, batch_size=1024)
    threshold = jnp.min(jnp.where(jnp.isfinite(ratio), ratio, jnp.inf))
    log_norm = jnp.zeros(())
    if is_learned_by(posterior.method):
        log_norm = jnp.asarray(getattr(info, "log_evidence", jnp.nan))
        log_norm = log_norm if log_norm.ndim == 0 else jnp.full((), jnp.nan)  # of several members
    return _Region(z, ratio, threshold, log_norm)


@functools.partial(jax.jit, static_argnames="n")
def _from_prior(
    key: Key, posterior: Posterior, x: Data, threshold: Array, n: int
) -> tuple[Array, Array, Array]:
    """Return prior draws in the region `(n, d)`, how many were found, and among how many.

    It gives up, with fewer than `n`, once the rate of hits shows that `MAX_BATCHES` batches will
    not do.
    """
    base = posterior.prior.prior  # type: ignore[attr-defined]

    def more(state: tuple[Array, Array, Array]) -> Array:
        _, count, batch = state
        hopeful = (batch < 3) | (count * MAX_BATCHES >= n * batch)
        return (count < n) & (batch < MAX_BATCHES) & hopeful

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        buffer, count, batch = state
        keys = jax.random.split(jax.random.fold_in(key, batch), CANDIDATES)
        z = jax.vmap(lambda k: base.to_latent(base.sample(k)))(keys)
        hit = jax.vmap(lambda z: _log_ratio(posterior, x, z))(z) >= threshold
        # Hits first; what follows them in the buffer is overwritten by the next batch.
        z = z[jnp.argsort(~hit, stable=True)]
        at = jnp.minimum(count, n)
        buffer = jax.lax.dynamic_update_slice(buffer, z, (at, jnp.zeros_like(at)))
        return buffer, count + jnp.sum(hit), batch + 1

    buffer = jnp.zeros((n + CANDIDATES, base.dim))
    none = jnp.array(0)  # a whole number of the precision that is enabled, as sums of hits are
    buffer, count, batch = jax.lax.while_loop(more, step, (buffer, none, none))
    return buffer[:n], count, batch * CANDIDATES


@functools.partial(jax.jit, static_argnames="n")
def _spread(key: Key, posterior: Posterior, x: Data, found: _Region, n: int) -> tuple[Array, Array]:
    """Return `n` points of the prior within the region, `(n, d)`, and the share of it there.

    Each is the end of a Markov chain: draws of the posterior, resampled to the prior, are moved by
    elliptical slice sampling (`jaxsbi.samplers.slice`), whose target is the prior cut to the region
    and whose ellipses are fitted to these draws. The mean of posterior / prior over these points is
    the posterior's share of the region, next to 1, over the prior's.
    """
    base = posterior.prior.prior  # type: ignore[attr-defined]
    key_start, key_steps = jax.random.split(key)
    # A draw without a density has no place in the region.
    log_weight = jnp.where(jnp.isfinite(found.log_ratio), -found.log_ratio, -jnp.inf)
    start = found.z[jax.random.categorical(key_start, log_weight, shape=(n,))]
    fit = fit_to(found.z)

    def log_target(z: Array) -> Array:
        inside = _log_ratio(posterior, x, z) >= found.threshold
        return jnp.where(inside, base.latent_log_prob(z), -jnp.inf)

    def move(state: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], None]:
        def one(key: Key, z: Array, value: Array) -> tuple[Array, Array]:
            z, value, _ = ellipse(key, log_target, z, value, fit, SHRINKS)
            return z, value

        return jax.vmap(one)(jax.random.split(key, n), *state), None

    state = (start, jax.vmap(log_target)(start))
    (z, _), _ = jax.lax.scan(move, state, jax.random.split(key_steps, STEPS))
    ratio = jax.vmap(lambda z: _log_ratio(posterior, x, z))(z) - found.log_norm
    return z, jnp.minimum(jnp.exp(jnp.log(n) - jax.nn.logsumexp(ratio)), 1.0)


@jax.jit
def _inside(posterior: Posterior, x: Data, threshold: Array, theta: Theta) -> Array:
    base = posterior.prior.prior  # type: ignore[attr-defined]

    def one(theta: Theta) -> Array:
        return _log_ratio(posterior, x, base.to_latent(theta)) >= threshold

    n = next(iter(theta.values())).shape[0]
    return jax.lax.map(one, theta, batch_size=min(1024, n))


def _by_box(key: Key, posterior: Posterior, centred: Recentred, x: Data, n: int) -> Proposal:
    key_draws, key_box = jax.random.split(key)
    prior = centred.prior
    z = latents(prior, posterior.sample(key_draws, x, DRAWS))
    low, high = jnp.min(z, 0), jnp.max(z, 0)
    return in_box(key_box, boxed(prior, low, high), n)


def in_box(key: Key, box: Boxed, n: int) -> Proposal:
    """Propose `n` draws of the prior within a box."""
    theta = _from_box(key, box, n)
    log_prob = jax.vmap(box.log_prob)(theta)
    mass = float(jnp.exp(box.log_mass))
    return Proposal(theta, log_prob, mass, lambda theta: np.asarray(holds(box, theta)))


@functools.partial(jax.jit, static_argnames="n")
def _from_box(key: Key, box: Boxed, n: int) -> Theta:
    # Not by jax.random.truncated_normal: in the tails of float32 that has ten values, or one.
    return jax.vmap(box.at)(jax.random.normal(key, (n, box.dim)))


@jax.jit
def holds(box: Boxed, theta: Theta) -> Array:
    """Return which of many parameter sets lie in a box, shape `(n,)`."""
    return jax.vmap(box.holds)(theta)
