"""Whatever a file holds, reading it gives what was written or an error that says so.

`tests/saving/test_folder.py` does the same for saved runs, behind valid checksums too.
"""

import re

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxsbi
from jaxsbi import checkpoint

QUIET = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TREE = {"a": np.arange(40.0, dtype=np.float32), "b": np.int32(3)}
MARK = {"key": "sha256:1"}

edits = st.lists(
    st.tuples(
        st.floats(0.0, 1.0, exclude_max=True),  # where in the file
        st.integers(0, 40),  # how many bytes go
        st.one_of(st.binary(max_size=12), st.sampled_from([b"{", b"null", b"-1", b"1e999", b'"'])),
    ),
    min_size=1,
    max_size=3,
)


def edited(data, changes):
    for place, gone, new in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + gone :]
    return data


@QUIET
@given(edits)
def test_a_checkpoint(tmp_path, changes):
    path = tmp_path / "training.safetensors"
    path.unlink(missing_ok=True)
    checkpoint.write(path, MARK, TREE, {"epoch": 3})
    path.write_bytes(edited(path.read_bytes(), changes))
    try:
        found = checkpoint.read(path, MARK, TREE)
    except ValueError as error:
        assert re.search(r"checkpoint .*Delete", str(error)), error  # noqa: PT017
        return
    jax.tree.map(np.testing.assert_array_equal, found.tree, TREE)
    assert found.about == {"epoch": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("zarr")
    prior = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
    path = tmp_path_factory.mktemp("fuzz") / "store"
    made = jaxsbi.Store.create(path, jax.random.key(0), prior, chunk=8)
    made.fill(lambda key, theta: theta["theta"][None], 16, progress=False)
    return made


NAMES = ("x.json", "draws.zarr/zarr.json", "draws.zarr/x/zarr.json", "draws.zarr/x/c/1/0")


@QUIET
@given(st.sampled_from((*NAMES, "chunks/00000001.done")), edits)
def test_a_store(store, name, changes):
    path = store.path / name
    before, expected = path.read_bytes(), np.asarray(store.simulations().x)
    path.write_bytes(edited(before, changes))
    try:
        found = jaxsbi.Store.open(store.path).simulations()
    except (ValueError, FileNotFoundError):
        return
    finally:
        path.write_bytes(before)
    # An attribute, say, that nobody reads; or the array's metadata, of which Zarr has no checksum.
    assert name.endswith(".json") or np.array_equal(found.x, expected)
