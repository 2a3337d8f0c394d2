"""A store holds each draw once, whoever fills it and however often they are killed."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jaxsbi
from tests.store.programs import (
    CHUNK,
    assert_same,
    done,
    fill,
    half_invalid,
    make,
    make_prior,
    outside,
    simulator,
    started,
    wait_for,
)

pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = make(tmp_path_factory.mktemp("whole") / "store")
    store.fill(simulator, 160, progress=False)
    return store


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "copy")
    return jaxsbi.Store.open(tmp_path / "copy")


def test_what_is_stored(whole):
    assert len(whole) == 160
    assert whole.status == {"ok": 160}
    simulations = whole.simulations()
    assert list(simulations.theta) == ["shift", "scale"]
    assert simulations.x["points"].shape == (160, 3, 2)
    assert simulations.x["sign"].dtype == jnp.int32
    assert simulations.num_valid == 160
    density = jax.vmap(whole.prior.log_prob)(simulations.theta)
    np.testing.assert_allclose(whole.log_proposal(), density, rtol=1e-5)
    assert np.unique(simulations.theta["scale"]).size == 160
    assert whole.record(slice(5, 30)).counts == {"ok": 25}


def test_rows_and_longer_stores_agree(whole, tmp_path):
    simulations = whole.simulations()
    assert_same(whole.simulations(slice(13, 41)), simulations[13:41])
    store = make(tmp_path / "store")
    store.fill(simulator, 20, progress=False)
    assert len(store) == 24  # whole chunks
    store.fill(simulator, 24, progress=False)
    assert_same(store.simulations(), simulations[:24])


def test_it_opens_without_being_told_what_it_is(whole):
    store = jaxsbi.Store.open(whole.path)
    assert store.chunk == CHUNK
    assert jax.tree.structure(store.prior) == jax.tree.structure(whole.prior)
    np.testing.assert_array_equal(jax.random.key_data(store.key), jax.random.key_data(whole.key))
    assert_same(store.simulations(), whole.simulations())


def test_xarray_opens_it(whole):
    xarray = pytest.importorskip("xarray")
    with xarray.open_zarr(whole.zarr, consolidated=False) as data:
        assert dict(data.sizes)["draw"] == 160
        assert data["x.points"].dims[0] == "draw"
        np.testing.assert_array_equal(data["x.points"], whole.simulations().x["points"])
        np.testing.assert_array_equal(data["theta.shift"], whole.simulations().theta["shift"])
        assert data["status"].attrs["flag_meanings"].split()[0] == "ok"
        assert data.attrs["proposal"] == "prior"
        assert data.attrs["provenance"]["versions"]["jax"] == jax.__version__


def test_chunks_say_who_made_them(whole):
    (first, *_) = done(whole.path)
    content = json.loads(first.read_text())
    assert content["pid"] == os.getpid()
    assert content["simulator"] == "simulator"
    assert {"host", "time", "command", "versions", "files"} <= content.keys()
    assert not list((whole.path / "chunks").glob("*.claim"))


def test_invalid_draws_have_weight_0(tmp_path):
    store = make(tmp_path / "store")
    store.fill(half_invalid, 40, progress=False)
    simulations = store.simulations()
    invalid = np.asarray(simulations.theta["shift"][:, 0] > 0)
    np.testing.assert_array_equal(simulations.weight, ~invalid)
    assert store.status == {"ok": int((~invalid).sum()), "invalid": int(invalid.sum())}
    assert store.record().message[int(np.flatnonzero(invalid)[0])] == "not finite"


def test_a_killed_writer_is_resumed_bit_for_bit(whole, tmp_path):
    path = tmp_path / "store"
    child = started(f"fill({str(path)!r}, 160)")
    wait_for(lambda: len(done(path)) >= 4)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = {p.name: p.read_text() for p in done(path)}
    assert 4 <= len(before) < 20
    fill(path, 160)
    store = jaxsbi.Store.open(path)
    assert_same(store.simulations(), whole.simulations())
    np.testing.assert_array_equal(store.log_proposal(), whole.log_proposal())
    after = {p.name: p.read_text() for p in done(path)}
    assert len(after) == 20
    assert before.items() <= after.items()  # nothing was made twice
    assert not list((path / "chunks").glob("*.claim"))
    assert not list(path.glob(".scratch*"))


@pytest.mark.slow
def test_killed_at_any_step_of_a_chunk(whole, tmp_path, monkeypatch):
    """Die at each renaming, linking and resizing in turn: a reader never sees half a chunk."""

    class Killed(BaseException):
        pass

    real = {name: getattr(os, name) for name in ("link",)} | {
        name: getattr(Path, name) for name in ("replace", "mkdir")
    }
    steps = 0
    for death in range(1, 200, 12):
        path, steps = tmp_path / f"store{death}", 0
        store = make(path)
        store.fill(simulator, CHUNK, progress=False)
        with monkeypatch.context() as patch:

            def dying(name, death=death):
                def call(*args, **kwargs):
                    nonlocal steps
                    steps += 1
                    if steps >= death:
                        raise Killed
                    return real[name](*args, **kwargs)

                return call

            patch.setattr(os, "link", dying("link"))
            patch.setattr(Path, "replace", dying("replace"))
            patch.setattr(Path, "mkdir", dying("mkdir"))
            try:
                store.fill(simulator, 2 * CHUNK, progress=False)
            except Killed:
                pass
            else:
                break
        n = len(store)
        assert n in (CHUNK, 2 * CHUNK)
        assert_same(store.simulations(), whole.simulations(slice(n)))
        store.fill(simulator, 3 * CHUNK, progress=False)
        assert_same(store.simulations(), whole.simulations(slice(3 * CHUNK)))
    else:
        pytest.fail("expected to come to the end of the steps")
    assert steps > 10


def test_two_writers_share_the_work(whole, tmp_path):
    path = tmp_path / "store"
    child = started(f"fill({str(path)!r}, 160)")
    wait_for(lambda: len(done(path)) >= 1)
    fill(path, 160)
    assert child.wait(60) == 0
    store = jaxsbi.Store.open(path)
    assert_same(store.simulations(), whole.simulations())
    assert {json.loads(p.read_text())["pid"] for p in done(path)} == {child.pid, os.getpid()}
    assert len(store) == 160


def test_a_file_cut_short_is_noticed_and_made_again(whole, copy):
    path = copy.zarr / "x.points/c/3/0/0"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"x.points/c/3/0/0: expected \d+ bytes.*store.fill"):
        copy.simulations()
    assert_same(copy.simulations(slice(24)), whole.simulations(slice(24)))
    with pytest.warns(UserWarning, match="made again"):
        copy.fill(simulator, 160, progress=False)
    assert_same(copy.simulations(), whole.simulations())


def test_changed_bytes_are_noticed(whole, copy):
    path = copy.zarr / "theta.scale/c/1"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="a file of this array is damaged"):
        copy.simulations()
    path.unlink()
    with pytest.warns(UserWarning, match="got no file"):
        copy.fill(simulator, 160, progress=False)
    assert_same(copy.simulations(), whole.simulations())


@pytest.mark.parametrize("name", ["theta.scale", "x.points", "weight"])
def test_damaged_metadata_are_noticed_and_written_again(whole, copy, name):
    path = copy.zarr / name / "zarr.json"
    path.write_text(path.read_text().replace('"shape"', '"shame"', 1))
    with pytest.raises(
        ValueError, match=rf"{name}/zarr.json: expected Zarr's metadata.*store.fill"
    ):
        copy.simulations()
    path.unlink()
    copy.fill(simulator, 160, progress=False)
    assert_same(copy.simulations(), whole.simulations())


def test_a_store_that_cannot_be_written_is_read(copy, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)  # a superuser may write anywhere
    monkeypatch.setattr(os, "link", refuse)
    assert len(jaxsbi.Store.open(copy.path).simulations()) == 160
    with pytest.raises(PermissionError, match="can be read"):
        copy.fill(simulator, 200, progress=False)


def test_a_newer_format_is_refused(copy):
    path = copy.zarr / "zarr.json"
    text = path.read_text()
    path.write_text(re.sub(r'("version": \[\s*)1', r"\g<1>2", text))
    assert path.read_text() != text
    with pytest.raises(ValueError, match=r"expected format 'jaxsbi store' 1, got .* 2.0. Upgrade"):
        jaxsbi.Store.open(copy.path)


def test_another_key_prior_chunk_or_structure_is_refused(copy):
    with pytest.raises(ValueError, match="key: expected that of the store"):
        make(copy.path, seed=2)
    with pytest.raises(ValueError, match="prior: expected that of the store"):
        make(copy.path, prior=make_prior(2.0))
    with pytest.raises(ValueError, match="other proposal or chunks of 8"):
        make(copy.path, chunk=16)
    with pytest.raises(TypeError, match=r"expected x as in the store, .*points.*, got float32"):
        copy.fill(half_invalid, 200, progress=False)
    with pytest.raises(ValueError, match="prior: expected that of the store"):
        jaxsbi.simulate_external(
            copy.key, make_prior(2.0), outside, 8, store=copy, workers=1, progress=False
        )


def test_what_is_no_store_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing"):
        jaxsbi.Store.open(tmp_path / "none")
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(FileExistsError, match="something else"):
            make(path)
    with pytest.raises(ValueError, match="a slice of some of the 0 draws"):
        make(tmp_path / "empty").simulations()


def test_a_proposal_has_its_density(tmp_path):
    narrow = make_prior(0.1)
    store = make(tmp_path / "store", proposal=narrow)
    store.fill(simulator, 16, progress=False)
    store = jaxsbi.Store.open(store.path)
    theta = store.simulations().theta
    assert np.abs(theta["shift"]).max() < 0.6
    np.testing.assert_allclose(store.log_proposal(), jax.vmap(narrow.log_prob)(theta), rtol=1e-5)
    with pytest.raises(ValueError, match="proposal: expected parameters"):
        make(tmp_path / "other", proposal=jaxsbi.Prior(a=dist.Normal(0.0, 1.0)))


def test_a_prior_from_a_model_is_passed_again(tmp_path):
    def model():
        width = numpyro.sample("width", dist.LogNormal(0.0, 0.5))
        numpyro.sample("shift", dist.Normal(0.0, width))

    prior = jaxsbi.Prior(model)
    make(tmp_path / "store", prior=prior).fill(
        lambda key, theta: theta["shift"] + jax.random.normal(key), 8, progress=False
    )
    with pytest.raises(ValueError, match=r"Pass it: jaxsbi.Store.open\(path, prior="):
        jaxsbi.Store.open(tmp_path / "store")
    assert len(jaxsbi.Store.open(tmp_path / "store", prior=prior).simulations()) == 8


def test_zarr_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r'pip install "jaxsbi\[store\]"'):
        make(tmp_path / "store")
