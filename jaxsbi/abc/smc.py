"""Sequential Monte Carlo: proposals that follow the nearest simulations, in latent space."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.abc.distances import Distance, Summary
from jaxsbi.abc.kde import covariance_root
from jaxsbi.abc.nearest import (
    Nearest,
    check_measure,
    check_problem,
    chosen_chunk,
    isolation,
    measure,
    nearest_of_prior,
    scan,
    summarize,
)
from jaxsbi.abc.rejection import check_kept, warn_of
from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulator,
    Theta,
    is_concrete,
    positive,
    warn,
)
from jaxsbi.methods.fixed import fixed
from jaxsbi.missing import cleared
from jaxsbi.priors import Prior
from jaxsbi.samplers.weights import effective_size
from jaxsbi.simulate import all_finite

LOW_ESS = 0.1
"""Effective share of the particles below which their weights are reported as degenerate."""
ROWS = 256
"""Particles whose kernels are evaluated at once."""


class SMCInfo(NamedTuple):
    """What a sequential run reports; `n` particles, `r` rounds.

    Attributes:
        weights: Normalised weight of each particle, shape `(n,)`. They belong to the draws: plain
            averages of the draws are not the posterior's.
        ess: Effective sample size of the population after each round, shape `(r,)`.
        tolerance: Largest distance in the population after each round, shape `(r,)`.
        acceptance: Share of each round's simulations that entered the population, shape `(r,)`.
        kept_fraction: Particles per simulation.
        num_simulations: The number of simulations.
        num_nonfinite: How many were NaN or infinite (or had a distance of NaN); never kept.
        distances: Distance of each particle, shape `(n,)`, increasing.
        x: The simulations of the particles, every leaf of shape `(n, *shape)`.
        distance: The distance that was used, with the scales estimated for it.
        isolation: As in `RejectionInfo`.
    """

    weights: Array
    ess: Array
    tolerance: Array
    acceptance: Array
    kept_fraction: Array
    num_simulations: Array
    num_nonfinite: Array
    distances: Array
    x: Data
    distance: Distance
    isolation: Array

    def warn(self) -> None:
        """Warn (on the host) of what rejection warns of, and of degenerate weights."""
        warn_of(self, "smc")
        effective, particles = float(self.ess[-1]), self.weights.shape[0]
        if not effective >= LOW_ESS * particles:
            warn(
                f"smc: the weights of {particles} particles are worth {effective:.1f} equal ones: "
                "take more particles or fewer rounds."
            )


class _Proposal(NamedTuple):
    """A mixture of Gaussians of one covariance, one per particle of a population."""

    centre: Array  # whitened, (n, d)
    log_weight: Array  # (n,)
    factor: Array  # (d, d)
    inverse: Array  # (d, d)


def smc(
    key: Key,
    prior: Prior,
    simulator: Simulator,
    x_observed: Data,
    *,
    num_simulations: int,
    particles: int = 1_000,
    rounds: int = 10,
    quantile: float = 0.2,
    distance: Distance | None = None,
    summary: Summary | None = None,
    chunk_size: int | None = None,
) -> tuple[Theta, SMCInfo]:
    """Spend a budget of simulations in rounds, each proposed around the nearest ones so far.

    Population Monte Carlo (Toni et al. 2009, arXiv:0901.1925; Beaumont et al. 2009,
    arXiv:0805.2256) with adaptive tolerances (Del Moral, Doucet & Jasra 2012, Stat. Comput. 22,
    1009) and, so that no simulation is lost and no loop is unbounded, rounds of fixed size that
    keep the nearest of all simulations so far (Lenormand, Jabot & Deffuant 2013, arXiv:1111.1308).
    A simulation that survives was proposed in any of the rounds: its weight is the prior over the
    mixture of all proposals, the prior of the first round included, which bounds the weights
    (Cornuet et al. 2012, arXiv:0907.1254). Proposals are made in the latent space z, in which
    nothing leaves the prior's support.

    Args:
        key: A typed key.
        prior: The prior over named parameters.
        simulator: `simulator(key, theta) -> x` for one parameter set; pure JAX code.
        x_observed: One data set, as the simulator returns it.
        num_simulations: The number of simulations in all, spread evenly over the rounds.
        particles: The number of draws returned: the nearest simulations.
        rounds: The number of rounds; the first one draws from the prior.
        quantile: The population that proposals follow is the nearest `particles` so far, but at
            most this share of the simulations so far: the quantile that sets the tolerance.
        distance: As in `rejection`.
        summary: As in `rejection`.
        chunk_size: Simulations at once; chosen from the size of `x` if not given.

    Returns:
        Named draws of shape `(particles, *shape)`, nearest first, to be used with `info.weights`
        (`jaxsbi.abc.kde(prior, draws, weights=info.weights)` makes equally weighted draws); and a
        report.

    Raises:
        TypeError: As `rejection`.
        ValueError: If a number is out of range, a distance is not a scalar, or negative, or there
            are fewer finite simulations than particles.
    """
    x_observed, shape = check_problem(key, prior, simulator, x_observed)
    check_measure(distance, summary, shape)
    n = positive("num_simulations", num_simulations)
    _check_sizes(n, particles, rounds, quantile)
    z, info = _smc(
        simulator, prior, fixed(distance), fixed(summary), key, x_observed,
        jnp.asarray(quantile), n=n, particles=int(particles), rounds=int(rounds),
        size=chosen_chunk(shape, n, chunk_size),
    )  # fmt: skip
    draws = jax.vmap(prior.from_latent)(z)
    if is_concrete(info):
        check_kept(info, "smc")
        info.warn()
    return {name: draws[name] for name in prior.names}, info


def _check_sizes(n: int, particles: Any, rounds: Any, quantile: float) -> None:
    positive("particles", particles)
    if positive("rounds", rounds) > n:
        raise ValueError(f"rounds: expected at most num_simulations={n}, got {rounds}.")
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile: expected a number in (0, 1], got {quantile!r}.")
    if particles > quantile * n:
        raise ValueError(
            f"particles: expected at most quantile * num_simulations = {quantile * n:g}, got "
            f"{particles}. Simulate more, or take fewer particles."
        )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("n", "particles", "rounds", "size"))
def _smc(
    simulator: Simulator,
    prior: Prior,
    distance: Distance | None,
    summary: Summary | None,
    key: Key,
    x_observed: Data,
    quantile: Array,
    *,
    n: int,
    particles: int,
    rounds: int,
    size: int,
) -> tuple[Array, SMCInfo]:
    per_round = n // rounds
    first = n - (rounds - 1) * per_round
    key_first, key_rounds = jax.random.split(key)
    kept, distance = nearest_of_prior(
        simulator, prior, distance, summary, jax.random.split(key_first, first), x_observed,
        particles, size,
    )  # fmt: skip
    theta, x = kept.draw
    # Where there is no draw yet, z may be anything: a weight of 0 does not cancel NaN.
    z = jnp.where(jnp.isfinite(kept.distance)[:, None], jax.vmap(prior.to_latent)(theta), 0.0)
    kept = kept._replace(draw=(z, x, jnp.zeros(particles, jnp.int32)))
    one = _simulation(simulator, prior, distance, summary, summarize(summary, x_observed))

    def step(carry: tuple[Nearest, _Proposal], inputs: tuple[Array, Key]) -> Any:
        kept, proposals = carry
        round_, key = inputs
        so_far = first + (round_ - 1) * per_round
        log_weight = _weights(prior, proposals, kept, round_, first, per_round, quantile, so_far)
        proposal = _around(kept.draw[0], log_weight)
        proposals = jax.tree.map(lambda a, b: a.at[round_ - 1].set(b), proposals, proposal)
        key_z, key_x = jax.random.split(key)
        z = jax.vmap(lambda k: _propose(proposal, kept.draw[0], k))(
            jax.random.split(key_z, per_round)
        )
        keys = jax.random.split(key_x, per_round)
        kept = scan(one, (z, keys, jnp.full(per_round, round_)), kept, size)
        inside = _population(kept, quantile, so_far + per_round)
        accepted = jnp.sum(inside & (kept.draw[2] == round_)) / per_round
        report = effective_size(log_weight), _largest(kept, inside), accepted
        return (kept, proposals), report

    d, made = z.shape[1], max(rounds - 1, 1)
    empty = _Proposal(
        jnp.zeros((made, particles, d)), jnp.zeros((made, particles)), *jnp.zeros((2, made, d, d))
    )
    inside = _population(kept, quantile, first)
    start = _largest(kept, inside), jnp.sum(inside) / first
    (kept, proposals), (ess, tolerance, accepted) = jax.lax.scan(
        step, (kept, empty), (jnp.arange(1, rounds), jax.random.split(key_rounds, rounds - 1))
    )
    log_weight = _weights(prior, proposals, kept, rounds, first, per_round, quantile, n)
    return kept.draw[0], _report(
        log_weight, jnp.append(ess, effective_size(log_weight)), (start, tolerance, accepted),
        kept, n, distance, summary,
    )  # fmt: skip


def _simulation(
    simulator: Simulator, prior: Prior, distance: Distance, summary: Summary | None, observed: Any
) -> Callable[[tuple[Array, Key, Array]], tuple[Any, Array]]:
    """Return the function from a proposed point (z, key, round) to what is kept, and how far."""

    def one(proposed: tuple[Array, Key, Array]) -> tuple[Any, Array]:
        z, key, round_ = proposed
        theta = prior.from_latent(z)
        x = cleared(simulator(key, theta))
        valid = all_finite((z, theta, x))
        return (z, x, round_), measure(distance, summary, x, observed, valid)

    return one


def _report(
    log_weight: Array,
    ess: Array,
    rounds: tuple[tuple[Array, Array], Array, Array],
    kept: Nearest,
    n: int,
    distance: Distance,
    summary: Summary | None,
) -> SMCInfo:
    start, tolerance, accepted = rounds
    x = kept.draw[1]
    return SMCInfo(
        weights=jnp.exp(log_weight),
        ess=ess,
        tolerance=jnp.concatenate([start[0][None], tolerance]),
        acceptance=jnp.concatenate([start[1][None], accepted]),
        kept_fraction=jnp.array(log_weight.size / n),
        num_simulations=jnp.array(n),
        num_nonfinite=kept.num_nonfinite,
        distances=kept.distance,
        x=x,
        distance=distance,
        isolation=isolation(distance, summary, x, kept.distance),
    )


def _population(kept: Nearest, quantile: Array, so_far: Array | int) -> Array:
    """Return which of the nearest simulations proposals follow: a share of those so far."""
    most = jnp.ceil(quantile * so_far - 1e-3)
    return (jnp.arange(kept.distance.size) < most) & jnp.isfinite(kept.distance)


def _largest(kept: Nearest, inside: Array) -> Array:
    return jnp.max(jnp.where(inside, kept.distance, -jnp.inf))


def _weights(
    prior: Prior,
    proposals: _Proposal,
    kept: Nearest,
    rounds: Array | int,
    first: int,
    per_round: int,
    quantile: Array,
    so_far: Array | int,
) -> Array:
    """Return normalised log weights of the population: prior over the mixture of all proposals."""
    z = kept.draw[0]
    target = jax.vmap(prior.latent_log_prob)(z)

    def include(i: Array, mixture: Array) -> Array:
        proposal = jax.tree.map(lambda a: a[i], proposals)
        new = jax.lax.map(lambda z: _log_density(proposal, z), z, batch_size=ROWS)
        return jnp.logaddexp(mixture, new + jnp.log(float(per_round)))

    mixture = jax.lax.fori_loop(0, rounds - 1, include, target + jnp.log(float(first)))
    inside = _population(kept, quantile, so_far)
    return jax.nn.log_softmax(jnp.where(inside, target - mixture, -jnp.inf))


def _around(z: Array, log_weight: Array) -> _Proposal:
    """Return a Gaussian kernel around each particle, as wide as a density estimate wants it.

    Twice the covariance, as in Beaumont et al., joins separate modes to one; weights that the
    prior's share of the mixture bounds do not need it.
    """
    d = z.shape[1]
    width = (4.0 / ((d + 2.0) * effective_size(log_weight))) ** (1.0 / (d + 4.0))
    root, inverse = covariance_root(z, log_weight)
    factor, inverse = width * root, inverse / width
    return _Proposal(z @ inverse.T, log_weight, factor, inverse)


def _propose(proposal: _Proposal, z: Array, key: Key) -> Array:
    key_particle, key_move = jax.random.split(key)
    # Inversion instead of `categorical`, which would draw a number for every particle.
    total = jnp.cumsum(jnp.exp(proposal.log_weight))
    centre = z[jnp.searchsorted(total, total[-1] * jax.random.uniform(key_particle))]
    return centre + proposal.factor @ jax.random.normal(key_move, (z.shape[1],))


def _log_density(proposal: _Proposal, z: Array) -> Array:
    """Return the log density of the mixture at one point."""
    normal = -0.5 * jnp.sum(((proposal.inverse @ z)[None] - proposal.centre) ** 2, axis=1)
    volume = jnp.sum(jnp.log(jnp.diagonal(proposal.inverse))) - 0.5 * z.size * math.log(2 * math.pi)
    return jax.nn.logsumexp(proposal.log_weight + normal) + volume
