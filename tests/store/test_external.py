"""Stores filled by simulators outside JAX."""

import os
import signal

import jax
import numpy as np
import pytest

import jaxsbi
from tests.store.programs import (
    CHUNK,
    assert_same,
    done,
    fill_outside,
    make,
    make_prior,
    outside,
    started,
    wait_for,
)

pytest.importorskip("zarr")


def test_external_draws_are_those_without_a_store(tmp_path):
    store, key, prior = make(tmp_path / "store"), jax.random.key(1), make_prior()
    options = {"workers": 2, "progress": False}
    one, record = jaxsbi.simulate_external(key, prior, outside, 20, store=store, **options)
    other, _ = jaxsbi.simulate_external(key, prior, outside, 20, **options)
    assert_same(one, other)
    assert record.counts == {"ok": 20}
    assert len(store) == 24


def test_a_killed_external_run_is_resumed(tmp_path):
    path, calls = tmp_path / "store", tmp_path / "calls"
    child = started(f"fill_outside({str(path)!r}, {str(calls)!r}, 160)")
    wait_for(lambda: len(done(path)) >= 3)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = {int(p.stem) for p in done(path)}
    assert 3 <= len(kept) < 20
    simulations, _ = fill_outside(path, calls, 160)
    plain, _ = jaxsbi.simulate_external(
        jax.random.key(1), make_prior(), outside, 160, workers=2, progress=False
    )
    assert_same(simulations, plain)
    called = [int(line) for line in calls.read_text().split()]
    seeds = jaxsbi.draws.seeds(jax.random.key(1), np.arange(160))
    assert set(called) == set(seeds.tolist())  # none was left out
    for number in kept:  # and none that was written was made again
        for seed in seeds[number * CHUNK : (number + 1) * CHUNK]:
            assert called.count(seed) == 1


def fails_first(seed, theta):
    if theta["scale"] > 1.0:
        raise ValueError("too wide")
    return outside(seed, theta)


def test_failures_are_in_the_record_also_where_a_whole_chunk_fails(tmp_path):
    store, key, prior = make(tmp_path / "store", chunk=2), jax.random.key(1), make_prior()
    with pytest.warns(UserWarning, match="fails_first"):
        simulations, record = jaxsbi.simulate_external(
            key, prior, fails_first, 30, store=store, workers=2, progress=False
        )
    wide = np.asarray(simulations.theta["scale"] > 1.0)
    assert np.any(wide.reshape(-1, 2).all(1))
    np.testing.assert_array_equal(record.status == "error", wide)
    np.testing.assert_array_equal(np.isnan(simulations.x).all(1), wide)
    again = jaxsbi.Store.open(store.path)
    assert again.record().message == record.message
    assert again.status == record.counts


def test_another_dtype_of_a_second_program_is_invalid(tmp_path):
    store, key, prior = make(tmp_path / "store"), jax.random.key(1), make_prior()
    options = {"store": store, "workers": 1, "progress": False}
    jaxsbi.simulate_external(key, prior, outside, 8, **options)
    with pytest.warns(UserWarning, match=r"expected float64\[2\].*got float32\[2\]"):
        _, record = jaxsbi.simulate_external(
            key, prior, lambda seed, theta: outside(seed, theta).astype("f4"), 16, **options
        )
    assert record.counts == {"ok": 8, "invalid": 8}


def test_only_failures_are_an_error_and_kept(tmp_path):
    store, key, prior = make(tmp_path / "store"), jax.random.key(1), make_prior()
    with pytest.raises(ValueError, match=r"none in 8 draws: {'error': 8}.*ZeroDivisionError"):
        jaxsbi.simulate_external(
            key, prior, lambda s, t: 1 / 0, 8, store=store, workers=1, progress=False
        )
    assert store.status == {"error": 8}
