"""Data sets of which nothing is there: an inverted mask is told, a missing part is not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec
from jaxsbi.splitting import check_there

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
ROWS = 8


def part(there):
    """Return a masked part of a batch with something there in these of its rows."""
    mask = np.zeros((ROWS, 3), bool)
    mask[: len(there), 0] = there
    return {"values": np.ones((ROWS, 3, 1), np.float32), "mask": mask}


def rows(x):
    return jaxsbi.Simulations({"theta": np.linspace(-1, 1, ROWS)}, x, np.ones(ROWS))


SOME, ALL, NONE = [True] * (ROWS - 2), [True] * ROWS, []
INVERTED = {
    "x": (part(NONE), ""),
    "a part": ({"bag": part(ALL), "flux": part(NONE)}, r"\['flux'\]"),
    "a part beside numbers": ({"bag": part(NONE), "a": np.ones(ROWS)}, r"\['bag'\]"),
}
SILENT = {
    "everything is there": part(ALL),
    "one of two parts": {"bag": part(SOME), "flux": part(ALL)},
    "each part in turn": {"bag": part(SOME), "flux": part([False] * (ROWS - 2) + [True] * 2)},
    "a part beside numbers": {"bag": part(SOME), "a": np.ones(ROWS)},
    "numbers without a mask": np.ones((ROWS, 2)),
}
BARE = {"x": part(SOME), "both parts": {"bag": part(SOME), "flux": part(SOME[:-1])}}


@pytest.mark.parametrize(("x", "place"), INVERTED.values(), ids=INVERTED)
def test_a_part_that_is_never_there_is_an_error(x, place):
    message = rf"simulations\.x{place}: .* false in all 8 examples\. True means present"
    with pytest.raises(ValueError, match=message):
        jaxsbi.fit(jax.random.key(0), jaxsbi.npe(), PRIOR, rows(x))


def test_so_it_is_in_a_stream_and_in_a_store(tmp_path):
    def simulator(key, theta):
        del key
        return {"values": theta["theta"] * jnp.ones((3, 1)), "mask": jnp.zeros(3, bool)}

    with pytest.raises(ValueError, match="false in all 4096 examples"):
        jaxsbi.fit_online(jax.random.key(0), jaxsbi.npe(), PRIOR, simulator, num_steps=1)
    pytest.importorskip("zarr")
    store = jaxsbi.Store.create(tmp_path / "store", jax.random.key(3), PRIOR, chunk=16)
    store.fill(simulator, 64, progress=False)
    with pytest.raises(ValueError, match="false in all 48 examples"):
        jaxsbi.fit(jax.random.key(0), jaxsbi.npe(), PRIOR, store, batch_size=8)


@pytest.mark.parametrize(("x", "count"), [(BARE["x"], 2), (BARE["both parts"], 2)], ids=list(BARE))
def test_examples_of_which_nothing_is_there_are_counted(x, count):
    with pytest.warns(UserWarning, match=rf"of {count} of 8 examples nothing is there"):
        check_there(rows(x))


@pytest.mark.parametrize("x", SILENT.values(), ids=SILENT)
def test_what_masks_are_for_is_no_matter(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_there(rows(x))
        DataSpec.of(x, batched=True).conform(jax.tree.map(lambda a: a[-1], x))


@pytest.mark.parametrize("x", BARE.values(), ids=BARE)
def test_an_observation_of_which_nothing_is_there_is_told(x):
    spec, last = DataSpec.of(x, batched=True), jax.tree.map(lambda a: a[-1], x)
    with pytest.warns(UserWarning, match="observation: nothing is there"):
        spec.conform(last)
    found = jax.jit(spec.conform)(last)  # traced, nothing can be told
    assert all(np.all(np.asarray(a) == 0) for a in jax.tree.leaves(found))
