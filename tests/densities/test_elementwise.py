"""The monotone maps under the flows: round trips, derivatives, identity and monotony."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.densities.elementwise import Affine, AffineSpline

TRANSFORMS = {
    "affine": Affine(),
    "spline": AffineSpline(),
}
COUNT = 2_000
FAR = 20.0
DIRECTIONS = ["forward", "inverse"]


class Laws(NamedTuple):
    """One direction of a map at many numbers, with autodiff's word on it."""

    out: jax.Array
    log_slope: jax.Array
    back: jax.Array
    back_log_slope: jax.Array
    slope: jax.Array
    gradients: tuple


@pytest.fixture(params=TRANSFORMS.values(), ids=TRANSFORMS)
def transform(request):
    return request.param


@functools.partial(jax.jit, static_argnums=(0, 1))
def laws(transform, direction, raw, numbers):
    """Evaluate everything at once: one compiled program for each map and direction."""
    there = getattr(transform, direction)
    back = getattr(transform, DIRECTIONS[direction == "forward"])

    def one(raw, number):
        out, log_slope = there(raw[None], number[None])
        return out[0], log_slope[0]

    def each(raw, number):
        (out, log_slope), pull = jax.vjp(one, raw, number)
        unit, zero = jnp.ones_like(out), jnp.zeros_like(out)
        gradients = pull((unit, zero)), pull((zero, unit))
        return out, log_slope, gradients[0][1], gradients

    out, log_slope, slope, gradients = jax.vmap(each)(raw, numbers)
    return Laws(out, log_slope, *back(raw, out), slope, gradients)


def drawn(transform, key, scale=3.0, dtype=None):
    """Return raw parameters N(0, scale²), shape `(n, p)`, and numbers spread over ±20."""
    raw = scale * jax.random.normal(key, (COUNT, transform.num_parameters), dtype or float)
    return raw, jnp.linspace(-FAR, FAR, COUNT, dtype=raw.dtype)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_float64_round_trip_and_derivative(transform, direction, key, x64):
    raw, numbers = drawn(transform, key)
    found = laws(transform, direction, raw, numbers)
    assert found.out.shape == found.log_slope.shape == (COUNT,)
    np.testing.assert_allclose(found.back, numbers, atol=1e-10, rtol=1e-10)
    np.testing.assert_allclose(found.back_log_slope, found.log_slope, atol=1e-9)
    # Both directions report the derivative of the forward map.
    sign = 1.0 if direction == "forward" else -1.0
    assert np.all(found.slope > 0)
    np.testing.assert_allclose(sign * jnp.log(found.slope), found.log_slope, atol=1e-9)


def test_float32_round_trip(transform, key):
    raw, z = drawn(transform, key, dtype=jnp.float32)
    found = laws(transform, "forward", raw, z)
    assert found.out.dtype == found.back.dtype == jnp.float32
    # An error is judged beside the width that the affine part gives: up to 200 for such numbers.
    width = np.maximum(1.0, np.exp(6.0 * np.tanh(raw[:, 1] / 6.0)))
    assert np.max(np.abs(found.back - z) / width) < 1e-3
    np.testing.assert_allclose(found.back_log_slope, found.log_slope, atol=5e-3)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_float32_round_trip_of_moderate_parameters(transform, scale, key):
    raw, z = drawn(transform, key, scale, jnp.float32)
    found = laws(transform, "forward", raw, z)
    np.testing.assert_allclose(found.back, z, atol=1e-3)
    np.testing.assert_allclose(found.back_log_slope, found.log_slope, atol=2e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_zero_parameters_give_the_identity(transform, direction, key):
    raw, numbers = drawn(transform, key, 0.0)
    found = laws(transform, direction, raw, numbers)
    np.testing.assert_allclose(found.out, numbers, atol=1e-5)
    np.testing.assert_allclose(found.log_slope, 0.0, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_monotone(transform, direction, key, x64):
    raw, numbers = drawn(transform, key)
    for row in raw[:5]:
        out = laws(transform, direction, jnp.broadcast_to(row, raw.shape), numbers).out
        assert np.all(np.diff(out) > 0)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("scale", [0.0, 3.0, 100.0])
def test_gradients_are_finite(transform, direction, scale, key):
    raw, numbers = drawn(transform, key, scale)
    # The knots and ends of the identity, too, where the pieces meet.
    numbers = numbers.at[:9].set(jnp.arange(-4.0, 5.0))
    found = laws(transform, direction, raw, numbers)
    assert all(np.all(np.isfinite(part)) for part in jax.tree.leaves(found))
