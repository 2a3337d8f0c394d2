"""Adaptive tempered sequential Monte Carlo, from the latent prior to the posterior."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration, warn
from jaxsbi.samplers.chains import LogDensity, traced_once
from jaxsbi.samplers.convergence import MAX_R_HAT, chain_statistics
from jaxsbi.samplers.moves import Cloud, cloud, move
from jaxsbi.samplers.weights import (
    covariance_factor,
    effective_size,
    finite_log_ratio,
    log_mean_and_error,
    systematic,
)

_SMALLEST, _HALVINGS = 1e-12, 40  # of the search for the next temperature, on a log scale
MAX_EVIDENCE_ERROR = 0.5  # nats
_FORGOTTEN = 0.1  # correlation at which particles have moved enough


class SMCInfo(NamedTuple):
    """What sequential Monte Carlo reports.

    The populations are independent runs. R-hat compares them, and the halves of each: particles lie
    in the order of their ancestors, so that a mode reached by few ancestors shows as disagreement,
    and relatives count as the neighbours in a chain that they are.

    Attributes:
        r_hat: Rank-normalised split R-hat over the populations, shape `(d,)`; infinite if one
            with any evidence has not arrived at the posterior.
        ess_bulk: Effective number of draws for the centre, shape `(d,)`.
        ess_tail: Effective number of draws for the 5 % and 95 % quantiles, shape `(d,)`.
        divergences: Moves at the last temperature with an energy error above 1,000 (or NaN).
        acceptance: Mean acceptance probability at the last temperature.
        log_density: Log-density of each draw in the latent space, shape `(n,)`.
        log_evidence: Log of the integral of exp(log_density).
        log_evidence_error: Its standard error, from the spread over the populations.
        temperature: The inverse temperature each population reached, 1 for the posterior,
            shape `(populations,)`.
        temperatures: How many steps it took each of them, shape `(populations,)`.
    """

    r_hat: Array
    ess_bulk: Array
    ess_tail: Array
    divergences: Array
    acceptance: Array
    log_density: Array
    log_evidence: Array
    log_evidence_error: Array
    temperature: Array
    temperatures: Array

    def warn(self) -> None:
        """Warn (on the host) when the draws should not be trusted."""
        if not bool(jnp.isfinite(self.log_evidence)):
            warn(
                "SMC: the log-density was -inf or NaN at every particle drawn from the prior, so "
                "there is no posterior and the draws are the prior's. Check the observation and "
                "the likelihood; if the posterior fills very little of the prior, raise particles."
            )
            return
        reached = float(jnp.min(self.temperature))
        if reached < 1.0:
            warn(
                f"SMC: a population ended at inverse temperature {reached:.2g}, not at the "
                "posterior (1). Raise max_temperatures, or particles if it is 0."
            )
            return
        worst, error = float(jnp.max(self.r_hat)), float(self.log_evidence_error)
        if not worst <= MAX_R_HAT or not error <= MAX_EVIDENCE_ERROR:
            warn(
                f"SMC: R-hat over the populations is {worst:.3f} (expected <= {MAX_R_HAT}) and "
                f"the log-evidence is known to {error:.2f} (expected <= {MAX_EVIDENCE_ERROR}): "
                "populations disagree. Raise particles, moves or ess."
            )


class _State(NamedTuple):
    cloud: Cloud  # particles
    temperature: Array
    log_evidence: Array
    log_step: Array
    acceptance: Array
    divergences: Array
    steps: Array


class _Mixed(NamedTuple):
    cloud: Cloud
    log_step: Array
    acceptance: Array
    divergences: Array
    memory: Array
    moves: Array


@configuration
class SMC:
    """Tempered sequential Monte Carlo (Del Moral, Doucet & Jasra 2006; Dai et al. 2020).

    Particles start at N(0, I) and follow N(z; 0, I)^(1 - t) exp(t log_density(z)) as t rises from 0
    to 1, in steps that keep a given share of effective particles (arXiv:2007.11936). Between
    steps Hamiltonian moves, scaled by the particles' covariance, spread them again. Modes get their
    weights while they are still connected, however far apart they end.

    Attributes:
        particles: Particles of each population, at least; more if `n` asks for them.
        populations: Independent runs; their spread gives R-hat and the error of the evidence.
        moves: Hamiltonian moves of each particle at each temperature, at most: they end when the
            particles' log-density has forgotten where they were.
        leapfrog_steps: Gradients per move.
        ess: Share of effective particles that a step in temperature keeps.
        target_acceptance: Acceptance probability the step size is adapted to.
        max_temperatures: Steps in temperature, at most.
    """

    particles: int = 500
    populations: int = 8
    moves: int = 50
    leapfrog_steps: int = 3
    ess: float = 0.7
    target_acceptance: float = 0.8
    max_temperatures: int = 100

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If a number is out of its range.
        """
        counts = (self.moves, self.leapfrog_steps, self.max_temperatures)
        shares = (self.ess, self.target_acceptance)
        if self.particles < 20 or self.populations < 2 or min(counts) < 1:
            raise ValueError(
                "smc: expected particles >= 20, populations >= 2, and moves, leapfrog_steps and "
                f"max_temperatures >= 1, got particles={self.particles}, "
                f"populations={self.populations}, moves={self.moves}, "
                f"leapfrog_steps={self.leapfrog_steps}, max_temperatures={self.max_temperatures}."
            )
        if not all(0.0 < share < 1.0 for share in shares):
            raise ValueError(
                "smc: expected ess and target_acceptance between 0 and 1, got "
                f"ess={self.ess}, target_acceptance={self.target_acceptance}."
            )

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, SMCInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised, differentiable log-density on the latent space.
            dim: The number of dimensions.
            n: The number of draws; resampled from `max(n, populations * particles)` particles in
                proportion to the evidence of their population.

        Returns:
            Draws of shape `(n, dim)`, and the report with the evidence.
        """
        log_density = traced_once(log_density)
        size = max(self.particles, -(-n // self.populations))
        key_runs, key_pick, key_order = jax.random.split(key, 3)
        runs = jax.vmap(lambda k: self._population(k, log_density, dim, size))(
            jax.random.split(key_runs, self.populations)
        )
        evidence, error = log_mean_and_error(runs.log_evidence)
        alive = jnp.isfinite(evidence)
        share = jnp.where(alive, jax.nn.softmax(runs.log_evidence), 1.0 / self.populations)
        picked = systematic(key_pick, jnp.repeat(share / size, size), n)
        picked = jax.random.permutation(key_order, picked)
        z = runs.cloud.z
        r_hat, bulk, tail = chain_statistics(z)
        # Populations of unequal evidence count for less than their number.
        counted = effective_size(jnp.log(share)) / self.populations
        lost = ~jnp.isfinite(runs.log_evidence)
        arrived = alive & jnp.all((runs.temperature >= 1.0) | lost)
        info = SMCInfo(
            r_hat=jnp.where(arrived, r_hat, jnp.inf),
            ess_bulk=jnp.where(arrived, bulk * counted, 0.0),
            ess_tail=jnp.where(arrived, tail * counted, 0.0),
            divergences=jnp.sum(runs.divergences),
            acceptance=jnp.mean(runs.acceptance),
            log_density=runs.cloud.log_density.reshape(-1)[picked],
            log_evidence=evidence,
            log_evidence_error=error,
            temperature=runs.temperature,
            temperatures=runs.steps,
        )
        return z.reshape(-1, dim)[picked], info

    def _population(self, key: Key, log_density: LogDensity, dim: int, size: int) -> _State:
        """Run one population to the posterior, or as far as it comes."""
        key_start, key_steps = jax.random.split(key)
        start = cloud(log_density, jax.random.normal(key_start, (size, dim)))
        zero = jnp.zeros((), start.z.dtype)
        state = _State(start, zero, zero, jnp.log(zero + 0.5), zero, jnp.array(0), jnp.array(0))

        def unfinished(state: _State) -> Array:
            alive = jnp.isfinite(state.log_evidence)
            return alive & (state.temperature < 1.0) & (state.steps < self.max_temperatures)

        def step(state: _State) -> _State:
            return self._step(jax.random.fold_in(key_steps, state.steps), log_density, state)

        return jax.lax.while_loop(unfinished, step, state)

    def _step(self, key: Key, log_density: LogDensity, state: _State) -> _State:
        """Raise the temperature, resample and move."""
        key_pick, key_move = jax.random.split(key)
        ratio = finite_log_ratio(state.cloud.z, state.cloud.log_density)
        temperature = next_temperature(ratio, state.temperature, self.ess)
        log_weight = (temperature - state.temperature) * ratio
        gain, _ = log_mean_and_error(log_weight)
        alive = jnp.isfinite(gain)
        weight = jnp.where(alive, jax.nn.softmax(log_weight), 1.0 / ratio.shape[0])
        index = systematic(key_pick, weight, ratio.shape[0])
        particles: Cloud = jax.tree.map(lambda a: a[index], state.cloud)
        mixed = self._mix(key_move, log_density, particles, temperature, state.log_step)
        moved = _State(
            cloud=mixed.cloud,
            temperature=temperature,
            log_evidence=state.log_evidence + gain,
            log_step=mixed.log_step,
            acceptance=mixed.acceptance,
            divergences=mixed.divergences,
            steps=state.steps + 1,
        )
        # Without a finite particle there is nowhere to go: the prior's draws stay as they are.
        return jax.tree.map(lambda a, b: jnp.where(alive, a, b), moved, state)._replace(
            log_evidence=moved.log_evidence, steps=moved.steps
        )

    def _mix(
        self,
        key: Key,
        log_density: LogDensity,
        start: Cloud,
        temperature: Array,
        log_step: Array,
    ) -> _Mixed:
        """Move the particles until their log-density has forgotten where they were."""
        factor = covariance_factor(start.z)

        def unmixed(state: _Mixed) -> Array:
            return (state.moves < self.moves) & (state.memory > _FORGOTTEN)

        def again(state: _Mixed) -> _Mixed:
            particles, accept, diverging = move(
                jax.random.fold_in(key, state.moves),
                log_density,
                state.cloud,
                temperature,
                factor,
                jnp.exp(state.log_step),
                self.leapfrog_steps,
            )
            rate = jnp.mean(accept)
            return _Mixed(
                cloud=particles,
                # One number for all particles has little noise: the steps towards it are large.
                log_step=state.log_step + (rate - self.target_acceptance),
                acceptance=rate,
                divergences=jnp.sum(diverging),
                memory=_memory(start, particles),
                moves=state.moves + 1,
            )

        zero = jnp.zeros((), start.z.dtype)
        first = _Mixed(start, log_step, zero, jnp.array(0), zero + 1.0, jnp.array(0))
        return jax.lax.while_loop(unmixed, again, first)


def _memory(before: Cloud, after: Cloud) -> Array:
    """Return the correlation of the log-ratio to the prior before and after the moves.

    The ratio decides on the weights, and does not see in which of several modes a particle is.
    """
    x = finite_log_ratio(before.z, before.log_density)
    y = finite_log_ratio(after.z, after.log_density)
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    return jnp.mean(x * y) / jnp.sqrt(jnp.mean(x * x) * jnp.mean(y * y) + 1e-30)


def next_temperature(ratio: Array, temperature: Array, ess: float) -> Array:
    """Return the next inverse temperature, at which a share `ess` of the particles is effective.

    The share is of the particles whose ratio is finite: the others are lost at once, whatever the
    temperature.
    """
    finite = jnp.sum(jnp.isfinite(ratio))
    left = 1.0 - temperature

    def enough(increment: Array) -> Array:
        return effective_size(increment * ratio) >= ess * finite

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        fine = enough(jnp.exp(middle))
        return jnp.where(fine, middle, low), jnp.where(fine, high, middle)

    low = jnp.log(jnp.asarray(_SMALLEST, ratio.dtype))
    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (low, jnp.log(left)))
    # At least the next number: rounding must not stop the rise.
    raised = jnp.maximum(temperature + jnp.exp(low), jnp.nextafter(temperature, 1.0))
    return jnp.where(enough(left), 1.0, jnp.minimum(raised, 1.0))


def smc(
    *,
    particles: int = 500,
    populations: int = 8,
    moves: int = 50,
    ess: float = 0.7,
    max_temperatures: int = 100,
) -> SMC:
    """Return the configuration of tempered sequential Monte Carlo.

    It finds separated modes with their weights, and gives the evidence.

    Args:
        particles: Particles of each population, at least.
        populations: Independent runs, whose spread is the error of the evidence.
        moves: Moves of each particle at each temperature, at most.
        ess: Share of effective particles that a step in temperature keeps.
        max_temperatures: Steps in temperature, at most.

    Raises:
        ValueError: If a number is out of its range.
    """
    return SMC(
        particles=particles,
        populations=populations,
        moves=moves,
        ess=ess,
        max_temperatures=max_temperatures,
    )
