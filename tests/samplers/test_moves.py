"""What every kernel of sequential Monte Carlo must do. A new one enters `KERNELS`."""

from __future__ import annotations

import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.samplers import Evolution, Hamiltonian
from jaxsbi.samplers.smc import Kernel

KERNELS = {"evolution": Evolution(), "hamiltonian": Hamiltonian()}
DIM, N, MOVES, LARGEST = 3, 8_000, 30, 4.0
MEAN = jnp.array([0.5, -1.0, 0.0])
FACTOR = jnp.array([[0.5, 0.0, 0.0], [0.4, 0.3, 0.0], [0.0, -0.2, 1.5]])


def test_every_kernel_is_here():
    assert {type(kernel) for kernel in KERNELS.values()} == set(get_args(Kernel))


def gaussian(z):
    """Return log N(z; MEAN, FACTOR FACTOR^T), up to a constant."""
    return -0.5 * jnp.sum(jnp.linalg.solve(FACTOR, z - MEAN) ** 2)


def ring(z):
    """Return the density of a ring around the origin: far from any Student t."""
    return -0.5 * ((jnp.linalg.norm(z) - 2.0) / 0.2) ** 2


def moved(kernel, log_density, z, temperature):
    """Return particles after many moves, and their mean acceptance."""

    @jax.jit
    def run(z):
        def one(carry, i):
            particles, tuning = carry
            moved = kernel.move(
                jax.random.fold_in(jax.random.key(1), i),
                log_density,
                particles,
                jnp.asarray(temperature),
                kernel.tune(z, tuning),
            )
            return (moved.cloud, moved.tuning), moved.acceptance

        start = (kernel.cloud(log_density, z), kernel.tune(z))
        (particles, _), rate = jax.lax.scan(one, start, jnp.arange(MOVES))
        return particles, jnp.mean(rate)

    return run(z)


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_leaves_the_tempered_density_as_it_is(name, temperature, key):
    precision = np.linalg.inv(np.asarray(FACTOR @ FACTOR.T, np.float64))
    covariance = np.linalg.inv(temperature * precision + (1.0 - temperature) * np.eye(DIM))
    mean = covariance @ (temperature * precision @ np.asarray(MEAN))
    factor = np.linalg.cholesky(covariance)
    z = mean + np.asarray(jax.random.normal(key, (N, DIM))) @ factor.T
    start = jnp.asarray(z, jnp.float32)
    particles, rate = moved(KERNELS[name], gaussian, start, temperature)
    assert 0.2 < float(rate) < 1.0
    white = np.linalg.solve(factor, (np.asarray(particles.z) - mean).T).T
    assert np.abs(white.mean(0)).max() < LARGEST / math.sqrt(N)
    second = white.T @ white / N
    # Entries of a covariance of normals have variance 2 / n on the diagonal and 1 / n beside it.
    assert np.abs(second - np.eye(DIM)).max() < LARGEST * math.sqrt(2.0 / N)
    np.testing.assert_allclose(particles.log_density, jax.vmap(gaussian)(particles.z), atol=1e-3)
    assert float(np.abs(np.corrcoef(z[:, 0], particles.z[:, 0])[0, 1])) < 0.2  # they did move


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_leaves_a_ring_as_it_is(name, key):
    # The radius has density r^2 times a normal: rejection from a wider normal is exact.
    key_radius, key_take, key_direction = jax.random.split(key, 3)
    radius = 2.0 + 0.2 * jax.random.normal(key_radius, (4 * N,))
    taken = jax.random.uniform(key_take, (4 * N,)) < radius**2 / 3.5**2
    radius = radius[taken][:N]
    direction = jax.random.normal(key_direction, (N, DIM))
    direction = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
    particles, rate = moved(KERNELS[name], ring, radius[:, None] * direction, 1.0)
    assert float(rate) > 0.05
    after = jnp.linalg.norm(particles.z, axis=1)
    error = math.sqrt(2.0 / N) * float(jnp.std(radius))
    assert abs(float(jnp.mean(after) - jnp.mean(radius))) < LARGEST * error
    assert abs(float(jnp.std(after) / jnp.std(radius)) - 1.0) < LARGEST / math.sqrt(N)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_never_enters_where_there_is_no_density(name, key):
    def half(z):
        return jnp.where(z[0] > 0.0, -0.5 * z @ z, jnp.where(z[1] > 0.0, jnp.nan, -jnp.inf))

    z = jnp.abs(jax.random.normal(key, (400, DIM)))
    particles, _ = moved(KERNELS[name], half, z, 1.0)
    assert float(jnp.min(particles.z[:, 0])) > 0.0
    assert bool(jnp.all(jnp.isfinite(particles.log_density)))
