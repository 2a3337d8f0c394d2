"""The closed-form derivatives of a spline, beside autodiff of the plain formulas."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.base import ONCE_OPTIONS
from jaxsbi.densities import elementwise, quadratic
from jaxsbi.densities.elementwise import AffineSpline
from jaxsbi.densities.quadratic import Bin

COUNT = 200
SPLINE = AffineSpline(knots=4)
DIRECTIONS = ["forward", "inverse"]


def a_bin(key):
    """Return bins with sides between a tenth and ten, and a share of each."""
    keys = jax.random.split(key, 7)
    x0, y0, w, h, raw0, raw1 = (2.0 * jax.random.normal(k, (COUNT,)) for k in keys[:6])
    share = jax.random.uniform(keys[6], (COUNT,), minval=0.01, maxval=0.99)
    return Bin(x0, y0, jnp.exp(0.5 * w), jnp.exp(0.5 * h), raw0, raw1), share


@functools.partial(jax.jit, static_argnums=0, compiler_options=ONCE_OPTIONS)
def orders(function, position, bins):
    """Return values, first derivatives in both modes, and second ones, at every position."""

    def each(*primals):
        second = jax.jacfwd(jax.jacrev(function, (0, 1)), (0, 1))
        modes = (jax.jacfwd(function, (0, 1)), jax.jacrev(function, (0, 1)), second)
        return function(*primals), [mode(*primals) for mode in modes]

    return jax.vmap(each)(position, bins)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_bin_is_differentiated_as_its_formula(direction, key, x64):
    bins, share = a_bin(key)
    start, size = (bins.x0, bins.w) if direction == "forward" else (bins.y0, bins.h)
    rule = getattr(quadratic, direction)
    found, expected = (orders(f, start + share * size, bins) for f in (rule, rule.fun))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * (1 + np.max(np.abs(b))))


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=ONCE_OPTIONS)
def derivatives(direction, _, raw, numbers):
    """Return first derivatives in both modes, and a second one, by raw parameters and number."""

    def one(raw, number):
        return tuple(a[0] for a in getattr(SPLINE, direction)(raw[None], number[None]))

    def squares(raw, number):
        gradients = jax.jacrev(one, (0, 1))(raw, number)
        return sum(jnp.sum(a * a) for a in jax.tree.leaves(gradients))

    def each(raw, number):
        modes = (jax.jacfwd(one, (0, 1)), jax.jacrev(one, (0, 1)), jax.grad(squares, (0, 1)))
        return [mode(raw, number) for mode in modes]

    return jax.vmap(each)(raw, numbers)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_spline_is_differentiated_as_its_formula(direction, key, x64):
    # Numbers inside and outside of the interval; some logits lie beyond where they are cut.
    raw = jax.random.normal(key, (COUNT, SPLINE.num_parameters))
    raw = raw.at[::10, 3].set(40.0)
    numbers = jnp.linspace(-6.0, 6.0, COUNT)
    found = derivatives(direction, "rule", raw, numbers)
    with (
        mock.patch.object(quadratic, direction, getattr(quadratic, direction).fun),
        mock.patch.object(elementwise, "_shares", elementwise._shares.fun),
    ):
        expected = derivatives(direction, "plain", raw, numbers)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * (1 + np.max(np.abs(b))))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_slope_at_a_knot_is_that_of_the_map(direction, x64):
    # Two pieces meet there with one slope, where a plain formula's share of the bin is cut off.
    knots = jnp.arange(-3.0, 4.0)
    spline = AffineSpline(knots=8)
    raw = jnp.zeros((knots.size, spline.num_parameters))
    function = getattr(spline, direction)
    (_, log_slope), (slope, _) = jax.jvp(
        lambda z: function(raw, z), (knots,), (jnp.ones_like(knots),)
    )
    sign = 1.0 if direction == "forward" else -1.0
    np.testing.assert_allclose(slope, jnp.exp(sign * log_slope), rtol=1e-12)
    np.testing.assert_allclose(slope, 1.0, rtol=1e-12)
