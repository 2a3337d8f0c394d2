"""Adaptive tempered sequential Monte Carlo, from the latent prior to the posterior."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Key, configuration, warn
from jaxsbi.samplers import lanes
from jaxsbi.samplers.bridge import log_evidence, more_exact, two_errors
from jaxsbi.samplers.chains import LogDensity, traced_once
from jaxsbi.samplers.convergence import MAX_R_HAT, chain_statistics, nowhere
from jaxsbi.samplers.evolution import Evolution
from jaxsbi.samplers.moves import Cloud, Hamiltonian
from jaxsbi.samplers.weights import (
    effective_size,
    finite_log_ratio,
    log_mean_and_error,
    spread,
    systematic,
)

_SMALLEST, _HALVINGS = 1e-12, 14  # of the search for the next temperature, on a log scale
MAX_EVIDENCE_ERROR = 0.5  # nats
# Accepted moves of a particle, at least: at a temperature, between its draws (after 1, 6 % equal).
_ACCEPTED, _APART = 1.0, 2.0
_FORGOTTEN = 0.2  # correlation at which particles have moved enough
MIN_ROUNDS = 2  # of draws of each particle
# As many states are kept for each draw: a population of twice the others' evidence has a state for
# each of its draws. Equal draws would read as a wrong posterior in a classifier's eyes.
SPARE = 2
MANY_DIMENSIONS = 10  # in more, gradients are worth their price
Kernel = Evolution | Hamiltonian


class SMCInfo(NamedTuple):
    """What sequential Monte Carlo reports.

    The populations share no ancestors. R-hat compares them, and the halves of each: particles lie
    in the order of their ancestors, so that a mode reached by few ancestors shows as disagreement,
    and relatives count as the neighbours in a chain that they are.

    Attributes:
        r_hat: Rank-normalised split R-hat over the populations, shape `(d,)`; infinite if one
            with any evidence has not arrived at the posterior.
        ess_bulk: Effective number of draws for the centre, shape `(d,)`.
        ess_tail: Effective number of draws for the 5 % and 95 % quantiles, shape `(d,)`.
        divergences: How many of the particles' last moves had an energy error above 1,000 (or NaN).
        acceptance: Mean acceptance probability of the last moves.
        log_density: Log-density of each draw in the latent space, shape `(n,)`.
        log_evidence: Log of the integral of exp(log_density), from the steps in temperature or by
            a bridge to a Student t, whichever the populations agree on better.
        log_evidence_error: Its standard error, from the spread over the populations; so much wider
            for their small number that two errors hold 95 %.
        temperature: The inverse temperature that was reached, 1 for the posterior.
        temperatures: How many steps it took.
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
            warn(nowhere("SMC", "particle drawn from the prior", "raise particles"))
            return
        reached = float(self.temperature)
        if reached < 1.0:
            warn(
                f"SMC: the particles ended at inverse temperature {reached:.2g}, not at the "
                "posterior (1). Raise max_temperatures."
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
    cloud: Cloud  # particles, (populations, particles, …)
    before: Array  # their log-ratios to the prior before the moves of this stage
    tuning: Any  # what the kernel knows of the particles
    moves: Array  # how many there were in this stage
    accepted: Array  # sum of their acceptances
    due: Array  # whether the stage has ended
    temperature: Array  # of the stage; the populations share it
    stages: Array
    log_evidence: Array  # (populations,)
    acceptance: Array
    divergences: Array
    kept: Array  # how many rounds of draws there are
    z: Array  # draws, (rounds, populations, particles, d)
    log_density: Array
    turns: Array


@configuration
class SMC:
    """Tempered sequential Monte Carlo (Del Moral, Doucet & Jasra 2006; Dai et al. 2020).

    Particles start at N(0, I) and follow N(z; 0, I)^(1 - t) exp(t log_density(z)) as t rises from 0
    to 1, in steps that keep a given share of effective particles (arXiv:2007.11936). Between
    steps a kernel moves them until they have forgotten where they were. Modes get their weights
    while they are still connected, however far apart they end. At t = 1 the particles go on as
    chains until there are as many draws as asked for.

    Attributes:
        particles: Particles of each population, at most; half as many if `n` is small.
        populations: Runs without common ancestors; their spread gives R-hat and an error.
        moves: Moves of each particle at each temperature, at most: they end when the particles'
            log-density has forgotten where they were.
        ess: Share of effective particles that a step in temperature keeps.
        max_temperatures: Steps in temperature, at most.
        kernel: How particles move: `Evolution()` without gradients, `Hamiltonian()` with them. By
            default the first up to 10 dimensions, the second in more.
    """

    particles: int = 128
    populations: int = 8
    moves: int = 30
    ess: float = 0.5
    max_temperatures: int = 100
    kernel: Kernel | None = None

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            TypeError: If the kernel is none.
            ValueError: If a number is out of its range.
        """
        if isinstance(self.kernel, type) or not hasattr(self.kernel or Evolution(), "move"):
            raise TypeError(
                "kernel: expected samplers.Evolution() or samplers.Hamiltonian(), got "
                f"{getattr(self.kernel, '__name__', None) or repr(self.kernel)}. Pass one of them, "
                "called, or leave it out."
            )
        if self.particles < 40 or self.particles % 4 or self.populations < 2:
            raise ValueError(
                "smc: expected particles >= 40, a multiple of 4, and populations >= 2, got "
                f"particles={self.particles}, populations={self.populations}."
            )
        if min(self.moves, self.max_temperatures) < 1 or not 0.0 < self.ess < 1.0:
            raise ValueError(
                "smc: expected moves and max_temperatures >= 1 and ess between 0 and 1, got "
                f"moves={self.moves}, max_temperatures={self.max_temperatures}, ess={self.ess}."
            )

    def __call__(
        self, key: Key, log_density: LogDensity, dim: int, n: int
    ) -> tuple[Array, SMCInfo]:
        """Draw `n` points from a density on R^dim.

        Args:
            key: A typed key.
            log_density: An unnormalised log-density on the latent space, in which the prior is
                close to N(0, I); differentiable for `Hamiltonian`.
            dim: The number of dimensions.
            n: The number of draws; resampled from all that were kept in proportion to the evidence
                of their population.

        Returns:
            Draws of shape `(n, dim)`, and the report with the evidence.
        """
        key_run, key_pick, key_order, key_bridge = jax.random.split(key, 4)
        log_density = traced_once(log_density)
        run = self._run(key_run, log_density, dim, n)
        alive = jnp.any(jnp.isfinite(run.log_evidence))
        # Of one particle after another, each with its rounds: neighbours are relatives.
        z, value = (jnp.moveaxis(a, 0, 2) for a in (run.z, run.log_density))
        # Where the temperatures did not suffice: the particles, as far as they came.
        late = alive & (run.temperature < 1.0)
        z = jnp.where(late, run.cloud.z[:, :, None], z)
        value = jnp.where(late, run.cloud.log_density[:, :, None], value)
        size = z.shape[1] * z.shape[2]
        z, value = z.reshape(self.populations, size, dim), value.reshape(self.populations, size)
        arrived = alive & (run.temperature >= 1.0)
        bridge = log_evidence(key_bridge, log_density, z, value)
        evidence, error = more_exact(run.log_evidence, jnp.where(arrived, bridge, -jnp.inf))
        share = jnp.where(alive, jax.nn.softmax(run.log_evidence), 1.0 / self.populations)
        picked = systematic(key_pick, jnp.repeat(share / size, size), n)
        picked = jax.random.permutation(key_order, picked)
        r_hat, bulk, tail = chain_statistics(z)
        # Populations of unequal evidence count for less than their number.
        counted = effective_size(jnp.log(share)) / self.populations
        info = SMCInfo(
            r_hat=jnp.where(arrived, r_hat, jnp.inf),
            ess_bulk=jnp.where(arrived, bulk * counted, 0.0),
            ess_tail=jnp.where(arrived, tail * counted, 0.0),
            divergences=run.divergences,
            acceptance=run.acceptance,
            log_density=value.ravel()[picked],
            log_evidence=evidence,
            log_evidence_error=two_errors(self.populations) * error,
            temperature=run.temperature,
            temperatures=run.stages,
        )
        return z.reshape(-1, dim)[picked], info

    def _sizes(self, n: int) -> tuple[int, int]:
        """Return particles per population, and how often each is kept."""
        wanted = -(-n // self.populations)
        size = self.particles if wanted >= 2 * self.particles else self.particles // 2
        return size, max(-(-wanted // size), MIN_ROUNDS) * SPARE

    def _run(self, key: Key, log_density: LogDensity, dim: int, n: int) -> _State:
        """Bring all populations to the posterior, and keep their draws there.

        One loop, whose turns are moves; before some of them a stage ends. So the density is
        compiled once, and observations sampled side by side need not end their stages together.
        """
        kernel = self.kernel or (Evolution() if dim <= MANY_DIMENSIONS else Hamiltonian())
        size, rounds = self._sizes(n)
        key_start, key_turns = jax.random.split(key)

        def start() -> _State:
            z = jax.random.normal(key_start, (self.populations, size, dim))
            cloud = jax.vmap(lambda z: kernel.cloud(log_density, z))(z)
            zero, none = jnp.zeros((), z.dtype), jnp.array(0)
            return _State(
                cloud=cloud,
                before=finite_log_ratio(z, cloud.log_density),
                tuning=kernel.tune(z.reshape(-1, dim)),
                moves=none,
                accepted=zero,
                due=jnp.array(True),
                temperature=zero,
                stages=none,
                log_evidence=jnp.zeros(self.populations, z.dtype),
                acceptance=zero,
                divergences=none,
                kept=none,
                # Without a finite particle there is nowhere to go: the prior's draws stay.
                z=jnp.repeat(z[None], rounds, 0),
                log_density=jnp.repeat(cloud.log_density[None], rounds, 0),
                turns=none,
            )

        def unfinished(state: _State) -> Array:
            alive = jnp.any(jnp.isfinite(state.log_evidence))
            tempering = (state.stages < self.max_temperatures) | ~state.due
            return alive & jnp.where(state.temperature < 1.0, tempering, state.kept < rounds)

        def turn(state: _State) -> _State:
            key_stage, key_move = jax.random.split(jax.random.fold_in(key_turns, state.turns))
            # A number, not a key: JAX's checker takes a key in a branch for reuse.
            offset = jax.random.uniform(key_stage, (self.populations,), state.log_evidence.dtype)
            state = jax.lax.cond(
                state.due, lambda s: self._next_stage(offset, kernel, s), lambda s: s, state
            )
            return self._move(key_move, log_density, kernel, state)

        end: _State = lanes.run(start, unfinished, turn)
        return end

    def _next_stage(self, offset: Array, kernel: Kernel, state: _State) -> _State:
        """Keep the particles if they have arrived; else raise the temperature and resample.

        At temperature 1 there is nothing to raise and all weights are equal: resampling keeps all.
        """
        arrived = state.temperature >= 1.0
        row = jnp.where(arrived, state.kept, state.z.shape[0])
        ratio = finite_log_ratio(state.cloud.z, state.cloud.log_density)
        temperature = next_temperature(ratio.ravel(), state.temperature, self.ess)
        log_weight = jnp.where(arrived, 0.0, (temperature - state.temperature) * ratio)
        gain, _ = jax.vmap(log_mean_and_error)(log_weight)
        alive = jnp.isfinite(gain)[:, None]
        weight = jnp.where(alive, jax.nn.softmax(log_weight), 1.0 / ratio.shape[1])
        index = jax.vmap(lambda u, w: spread(u, w, w.shape[0]))(offset, weight)
        picked: Cloud = jax.tree.map(lambda a: jax.vmap(lambda a, i: a[i])(a, index), state.cloud)
        return state._replace(
            cloud=picked,
            before=finite_log_ratio(picked.z, picked.log_density),
            tuning=kernel.tune(picked.z.reshape(-1, picked.z.shape[-1]), state.tuning),
            moves=jnp.zeros_like(state.moves),
            accepted=jnp.zeros_like(state.accepted),
            temperature=temperature,
            stages=state.stages + ~arrived,
            log_evidence=state.log_evidence + gain,
            kept=state.kept + arrived,
            z=state.z.at[row].set(state.cloud.z, mode="drop"),
            log_density=state.log_density.at[row].set(state.cloud.log_density, mode="drop"),
        )

    def _move(self, key: Key, log_density: LogDensity, kernel: Kernel, state: _State) -> _State:
        """Move all particles once, and see whether they have forgotten where they were."""
        # Of all populations at once: what a kernel learns of where particles are, it learns of all.
        shape = state.cloud.z.shape[:2]
        together = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), state.cloud)
        moved = kernel.move(key, log_density, together, state.temperature, state.tuning)
        cloud = jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), moved.cloud)
        moves, accepted = state.moves + 1, state.accepted + moved.acceptance
        memory = _memory(state.before, finite_log_ratio(cloud.z, cloud.log_density))
        mixed = (accepted >= _ACCEPTED) & (memory <= _FORGOTTEN)
        return state._replace(
            cloud=cloud,
            tuning=moved.tuning,
            moves=moves,
            accepted=accepted,
            due=jnp.where(state.kept > 0, accepted >= _APART, mixed) | (moves >= self.moves),
            acceptance=moved.acceptance,
            divergences=moved.diverging,
            turns=state.turns + 1,
        )


def _memory(before: Array, after: Array) -> Array:
    """Return the correlation of the log-ratios to the prior before and after the moves.

    The ratio decides on the weights, and does not see in which of several modes a particle is.
    """
    finite = jnp.isfinite(before) & jnp.isfinite(after)
    x, y = (jnp.where(finite, a, 0.0) for a in (before, after))
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
    particles: int = 128,
    populations: int = 8,
    moves: int = 30,
    ess: float = 0.5,
    max_temperatures: int = 100,
    kernel: Kernel | None = None,
) -> SMC:
    """Return the configuration of tempered sequential Monte Carlo.

    It finds separated modes with their weights, and gives the evidence.

    Args:
        particles: Particles of each population, at most; half as many if few draws are asked for.
        populations: Runs without common ancestors; their spread is the error of the evidence.
        moves: Moves of each particle at each temperature, at most.
        ess: Share of effective particles that a step in temperature keeps.
        max_temperatures: Steps in temperature, at most.
        kernel: `samplers.Evolution()` or `samplers.Hamiltonian()`; chosen by the number of
            dimensions by default.

    Raises:
        TypeError: If the kernel is none.
        ValueError: If a number is out of its range.
    """
    return SMC(
        particles=particles,
        populations=populations,
        moves=moves,
        ess=ess,
        max_temperatures=max_temperatures,
        kernel=kernel,
    )
