"""Forms of outputs: there and back, their blocks, and what they cannot be of."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsbi
from jaxsbi import transforms
from jaxsbi.networks import flatten

TIMES = jnp.linspace(0.1, 1.0, 40)
CHIRP = jnp.exp(-TIMES) * jnp.exp(30j * TIMES**2)
X = {"power": jnp.array([1e-3, 1.0, 1e3]), "strain": CHIRP, "shift": jnp.array([-1.0, 2.0])}
FORMS = transforms.transform_of({"power": "log", "strain": "amplitude_phase"})


def test_there_and_back():
    y = transforms.forward(FORMS, X)
    np.testing.assert_allclose(y["power"], np.log([1e-3, 1.0, 1e3]), rtol=1e-6)
    np.testing.assert_allclose(y["strain"][0], -TIMES, atol=1e-6)
    # The phase has no jumps, though it turns more than four times.
    np.testing.assert_allclose(y["strain"][1], 30 * TIMES**2, atol=1e-4)
    np.testing.assert_array_equal(y["shift"], X["shift"])
    back = transforms.inverse(FORMS, y)
    for name, a in X.items():
        assert back[name].dtype == a.dtype
        np.testing.assert_allclose(back[name], a, rtol=1e-5)


def test_amplitudes_and_phases_have_blocks_of_their_own():
    y = transforms.forward(FORMS, X)
    shared, amplitude, phase = transforms.blocks(FORMS, y)
    flat = flatten(y)
    # Dicts are in the order of their names: power, shift, strain.
    np.testing.assert_array_equal(flat[shared], np.concatenate([y["power"], y["shift"]]))
    np.testing.assert_array_equal(flat[amplitude], y["strain"][0])
    np.testing.assert_array_equal(flat[phase], y["strain"][1])
    assert len(transforms.blocks("log", jnp.ones((3, 2)))) == 1


def test_phases_are_known_up_to_whole_turns():
    y = transforms.forward("amplitude_phase", CHIRP)
    moved = y.at[1].add(3 * 2 * np.pi + 0.1)
    found = transforms.align("amplitude_phase", moved, y)
    np.testing.assert_allclose(found[1] - y[1], 0.1, atol=1e-4)
    np.testing.assert_array_equal(found[0], y[0])


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("log", r"x\['power'\]: transform 'log' needs positive numbers, got 1 others among 6"),
        ({"strain": "none"}, r"x\['strain'\]: transform 'none' is of real arrays, got complex64"),
        (
            {"power": "amplitude_phase", "strain": "amplitude_phase"},
            r"x\['power'\]: .* complex arrays, got float32",
        ),
        ({"strian": "log"}, r"expected names among \['power', 'strain'\], got \['strian'\]"),
    ],
)
def test_what_a_form_cannot_be_of(transform, message):
    x = {"power": jnp.ones((2, 3)).at[0, 0].set(0.0), "strain": jnp.ones((2, 3), jnp.complex64)}
    with pytest.raises(ValueError, match=message):
        transforms.check(transforms.transform_of(transform), x)


def test_amplitudes_of_zero_are_refused():
    with pytest.raises(ValueError, match="x: .* complex numbers other than 0, got 2 others"):
        transforms.check("amplitude_phase", jnp.ones((2, 3), jnp.complex64).at[:, 0].set(0.0))


@pytest.mark.parametrize("transform", ["lgo", {"power": "lgo"}])
def test_unknown_forms(transform):
    with pytest.raises(ValueError, match=r"transform: expected one of .*'log'.*got 'lgo'"):
        jaxsbi.emulator(transform=transform)
