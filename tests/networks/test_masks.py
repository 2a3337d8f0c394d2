"""Padding, and errors for data that a network cannot read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.networks import DeepSet, bucket, pad
from jaxsbi.networks.masks import SMALLEST, moments


def test_padding_makes_one_shape_and_a_mask():
    padded = pad([np.ones((2, 3)), np.ones((9, 3)), np.ones((0, 3))])
    assert padded["values"].shape == (3, 16, 3)
    np.testing.assert_array_equal(padded["mask"].sum(1), [2, 9, 0])
    np.testing.assert_array_equal(padded["values"].sum((1, 2)), [6, 27, 0])
    assert pad([np.ones(4)], length=5)["values"].shape == (1, 5)
    assert {bucket(n) for n in range(501)} == {8, 16, 32, 64, 128, 256, 512}


def test_padding_refuses_what_it_cannot_pad():
    with pytest.raises(ValueError, match=r"pad: expected at most length=3 members, got 4"):
        pad([np.ones((4, 2))], length=3)
    with pytest.raises(ValueError, match=r"with the same features, got \[\(2,\), \(3,\)\]"):
        pad([np.ones((4, 2)), np.ones((4, 3))])
    with pytest.raises(ValueError, match=r"with the same features, got none"):
        pad([])
    with pytest.raises(ValueError, match=r"bucket: expected a number of members, got -1"):
        bucket(-1)


def test_moments_are_those_of_the_members_there():
    values = np.random.default_rng(0).normal(3.0, 0.5, (9, 2)).astype(np.float32)
    mask = np.arange(9) < 6
    there = np.concatenate([values[:6].mean(0), np.log(np.hypot(values[:6].std(0), SMALLEST))])
    padded = jnp.where(mask[:, None], values, 1e6)
    np.testing.assert_allclose(moments(padded, jnp.array(mask)), there, rtol=1e-5)
    np.testing.assert_allclose(moments(jnp.array(values[:6]), None), there, rtol=1e-5)
    # One member, or none: finite, and so is the derivative.
    for mask in (np.arange(9) < 1, np.arange(9) < 0):
        found = moments(jnp.array(values), jnp.array(mask))
        np.testing.assert_allclose(found[2:], np.log(SMALLEST), rtol=1e-5)
        slope = jax.grad(lambda a, mask=mask: moments(a, jnp.array(mask)).sum())(jnp.array(values))
        assert np.all(np.isfinite(slope))


VALUES = jnp.ones((4, 2))
WRONG = {
    "a vector": (jnp.ones(4), ValueError, r"DeepSet: expected x of shape \(members, features\)"),
    "a batch": (VALUES[None], ValueError, r"got \(1, 4, 2\)\. Pass one data set, without a batch"),
    "other names": ({"a": VALUES}, ValueError, r"got a dict of \['a'\]"),
    "ragged": ([VALUES, VALUES[:2]], ValueError, r"got list of 2\. Pad .* jaxsbi\.networks\.pad"),
    "no room": (VALUES[:0], ValueError, r"expected room for one member at least"),
    "a float mask": (
        {"values": VALUES, "mask": jnp.ones(4)},
        TypeError,
        r'x\["mask"\]: expected booleans, .* got float32\. Convert it with mask\.astype\(bool\)',
    ),
    "a long mask": (
        {"values": VALUES, "mask": jnp.ones(5, bool)},
        ValueError,
        r"expected shape \(4,\), one per member, or \(4, 2\), one per number, got \(5,\)",
    ),
}


@pytest.mark.parametrize(("x", "error", "match"), WRONG.values(), ids=WRONG)
def test_wrong_data_are_refused(key, x, error, match):
    with pytest.raises(error, match=match):
        DeepSet().init(key, x)
