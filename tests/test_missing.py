"""What a mask speaks of, and what becomes of what is under it wherever data come in."""

from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import missing
from jaxsbi.base import DataSpec
from jaxsbi.external import worker
from jaxsbi.simulate import simulate_at

MASK = np.array([[True, False], [False, False]])
BESIDE = {
    "members": ({"values": np.ones((2, 2, 3)), "mask": MASK}, [""]),
    "numbers": ({"values": np.ones((2, 2)), "mask": MASK}, [""]),
    "a part": ({"bag": {"values": np.ones((2, 2)), "mask": MASK}, "a": np.ones(2)}, ["['bag']"]),
    "edges": ({"edges": {"senders": np.ones((2, 2), int), "mask": MASK}}, ["['edges']"]),
    "another shape": ({"values": np.ones((2, 3)), "mask": MASK}, []),
    "nothing": ({"mask": MASK}, []),
    "numbers of that name": ({"values": np.ones((2, 2)), "mask": MASK.astype(float)}, []),
    "an array": (np.ones((2, 2)), []),
}


@pytest.mark.parametrize(("x", "places"), BESIDE.values(), ids=BESIDE)
def test_a_mask_speaks_of_what_is_beside_it(x, places):
    assert list(missing.masks(x)) == places


PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
THERE = np.array([True, False, True])


def hole(theta=0.0):
    """Make a data set with NaN and infinity where nothing is there, in two nested parts."""
    bag = theta + jnp.array([[1.0, 2.0], [jnp.nan, 3.0], [4.0, 5.0]])
    flux = theta + jnp.array([1.0, jnp.inf, 3.0])
    return {"bag": {"values": bag, "mask": THERE}, "flux": {"values": flux, "mask": THERE}}


def simulator(key, theta):
    del key
    return hole(theta["theta"])


def batch(n=5):
    return jax.tree.map(lambda a: np.stack([np.asarray(a)] * n), hole())


def check_cleared(x):
    for part in x.values():
        values = np.asarray(part["values"])
        assert np.all(values[~np.asarray(part["mask"])] == 0)
        assert np.all(values[np.asarray(part["mask"])] != 0)
        assert np.all(np.isfinite(values))


ENTRANCES = {
    "simulate": lambda: jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 6, progress=False),
    "simulate_at": lambda: simulate_at(
        jax.random.key(0), simulator, {"theta": jnp.arange(1.0, 4.0)}, progress=False
    ),
    "simulate_external": lambda: jaxsbi.simulate_external(
        jax.random.key(0),
        PRIOR,
        lambda seed, theta: jax.tree.map(np.asarray, hole()),
        6,
        executor=ThreadPoolExecutor(1),
        progress=False,
    )[0],
    "from_arrays": lambda: jaxsbi.from_arrays({"theta": np.ones(5)}, batch()),
}


@pytest.mark.parametrize("entrance", ENTRANCES.values(), ids=ENTRANCES)
def test_what_is_masked_may_be_anything_and_becomes_zero(entrance):
    simulations = entrance()
    assert simulations.num_valid == len(simulations)
    check_cleared(simulations.x)


def test_what_is_there_must_be_finite_all_the_same():
    x = batch()
    x["bag"]["values"][1, 0] = np.nan
    with pytest.warns(UserWarning, match="1 of 5 runs are not finite"):
        simulations = jaxsbi.from_arrays({"theta": np.ones(5)}, x)
    np.testing.assert_array_equal(simulations.weight, [1, 0, 1, 1, 1])


def test_a_stream_of_noisy_signals_may_hide_anything():
    def noise(key, theta, x):
        return x | {"flux": hole(theta["theta"] + jax.random.normal(key))["flux"]}

    signals = jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 40, progress=False)
    method = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8))
    fitted = jaxsbi.fit_online(
        jax.random.key(1),
        method,
        PRIOR,
        jaxsbi.Signals(signals, noise),
        num_steps=2,
        batch_size=8,
        progress=False,
    )
    assert fitted.history.num_invalid == 0


def test_the_tolerance_of_abc_does_not_see_what_is_hidden():
    options = {"num_simulations": 600, "particles": 50, "rounds": 2}
    draws, _ = jaxsbi.abc.smc(jax.random.key(0), PRIOR, simulator, hole(0.5), **options)
    assert abs(np.mean(draws["theta"]) - 0.5) < 0.1


def test_an_observation_may_hide_anything():
    spec = DataSpec.of(hole())
    check_cleared(spec.conform(hole()))
    check_cleared(jax.jit(spec.conform)(hole()))

    def moved(by):  # its mask is known, its values are not
        return spec.conform(hole(by))["flux"]["values"]

    np.testing.assert_array_equal(jax.jacfwd(moved)(0.0), THERE)
    x = hole()
    x["bag"]["values"] = x["bag"]["values"].at[0, 0].set(jnp.nan)
    with pytest.raises(
        ValueError, match=r"observation\['bag'\]\['values'\]: expected finite .* 1 NaN"
    ):
        spec.conform(x)


MASKED = np.ma.masked_equal(np.array([[1.0, -999.0], [2.0, 3.0]]), -999.0)
ADVICE = r'ma\.MaskedArray, .*"values": a\.filled\(0\), "mask": ~np\.ma\.getmaskarray\(a\)'


def test_masked_arrays_of_numpy_are_refused():
    theta = {"theta": np.ones(2)}
    with pytest.raises(ValueError, match=rf"from_arrays: x\['flux'\]: .*{ADVICE}"):
        jaxsbi.from_arrays(theta, {"flux": MASKED})
    rows = jaxsbi.Simulations(theta, {"flux": MASKED}, np.ones(2))
    with pytest.raises(ValueError, match=rf"simulations\.x\['flux'\]: .*{ADVICE}"):
        jaxsbi.fit(jax.random.key(0), jaxsbi.npe(), PRIOR, rows)
    with pytest.raises(ValueError, match=rf"observation: .*{ADVICE}"):
        DataSpec.of(jnp.ones(2)).conform(MASKED[0])
    with pytest.raises(ValueError, match=r"from_arrays: theta\['theta'\]: .* Leave out runs"):
        jaxsbi.from_arrays({"theta": MASKED[:, 1]}, np.ones(2))
    with pytest.raises(ValueError, match=r"pad: arrays\[0\]: .* Pad values and masks"):
        jaxsbi.networks.pad([MASKED])
    outcome = worker.attempt(cloudpickle.dumps(lambda seed, theta: MASKED), 0, 0, {}, None)
    assert outcome.status == "invalid"
    assert "MaskedArray" in outcome.message


def test_what_the_refusals_say_to_pass_is_taken():
    a, arrays = MASKED, [MASKED, MASKED[:1]]
    x = {"values": a.filled(0), "mask": ~np.ma.getmaskarray(a)}
    simulations = jaxsbi.from_arrays({"theta": np.ones(2)}, x)
    np.testing.assert_array_equal(missing.roles(simulations.x)[1].mask, [[1, 0], [1, 1]])
    padded = {
        "values": jaxsbi.networks.pad([a.filled(0) for a in arrays])["values"],
        "mask": jaxsbi.networks.pad([~np.ma.getmaskarray(a) for a in arrays])["values"],
    }
    assert padded["mask"].dtype == bool
    np.testing.assert_array_equal(padded["mask"].sum(1), [[2, 1], [1, 0]])
    # Nothing of it is masked: nothing is lost.
    whole = jaxsbi.from_arrays({"theta": np.ones(2)}, np.ma.array(np.ones((2, 3))))
    assert whole.num_valid == 2
