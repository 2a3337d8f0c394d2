"""NumPyro's Hamiltonian kernels in many vectorised chains: what `nuts` and `hmc` share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer.hmc import hmc as kernels

from jaxsbi.base import Array, Key
from jaxsbi.samplers.chains import LogDensity, kept_steps, report, resampled_start, traced_once
from jaxsbi.samplers.convergence import ChainInfo


def check_chains(name: str, chains: int, warmup: int) -> None:
    """Raise unless there are chains to compare and a warm-up to adapt in.

    Raises:
        ValueError: If there are fewer than 2 chains, or the warm-up is too short to adapt.
    """
    if chains < 2 or warmup < 20:
        raise ValueError(
            f"{name}: expected chains >= 2 and warmup >= 20, got chains={chains}, warmup={warmup}."
        )


def run(
    key: Key,
    log_density: LogDensity,
    dim: int,
    n: int,
    *,
    algorithm: str,
    chains: int,
    warmup: int,
    candidates: int,
    leapfrog_steps: int = 1,
    **options: Any,
) -> tuple[Array, ChainInfo]:
    """Draw `n` points with `chains` chains of NumPyro's "NUTS" or "HMC"; options are its own.

    HMC's trajectories take 1 to `leapfrog_steps` steps, a number drawn anew for each transition and
    the same in all chains: of one length, they would bring whole orbits of a Gaussian back to their
    start, and of lengths of their own, all chains would wait for the longest.
    """
    log_density = traced_once(log_density)
    key, key_lengths = jax.random.split(key) if algorithm == "HMC" else (key, None)
    key_start, key_chains, key_order = jax.random.split(key, 3)
    start = resampled_start(key_start, log_density, dim, chains, candidates)
    steps = kept_steps(chains, n)
    lengths = jnp.ones(warmup + steps, int)
    if key_lengths is not None:
        lengths = jax.random.randint(key_lengths, lengths.shape, 1, leapfrog_steps + 1)

    def one(key: Key, z0: Array) -> Any:
        init, kernel = kernels(potential_fn=lambda z: -log_density(z), algo=algorithm)
        state = init(z0, warmup, step_size=0.5, rng_key=_raw(key), **options)

        def step(state: Any, length: Array) -> tuple[Any, Any]:
            if key_lengths is not None:  # NumPyro rounds the quotient of length and step down
                length = (length + 1e-3) * state.adapt_state.step_size
                state = state._replace(trajectory_length=length)
            state = kernel(state)
            return state, (state.z, state.accept_prob, state.diverging, state.potential_energy)

        # One loop for warm-up and sampling: the kernel is compiled once, not twice.
        _, kept = jax.lax.scan(step, state, lengths)
        return jax.tree.map(lambda a: a[warmup:], kept)

    keys = jax.random.split(key_chains, chains)
    z, accept, diverging, energy = jax.vmap(one)(keys, start)
    return report(
        key_order, z, -energy, n, divergences=jnp.sum(diverging), acceptance=jnp.mean(accept)
    )


def _raw(key: Key) -> Array:
    """Return a key as NumPyro takes it: it uses a typed one twice, and raw ones as JAX's default.

    A user's key may be of another kind (`jax.random.key(0, impl="rbg")`).
    """
    default = jax.random.key(0)
    if jax.random.key_impl(key) == jax.random.key_impl(default):
        return jax.random.key_data(key)
    return jax.random.bits(key, jax.random.key_data(default).shape, "uint32")
