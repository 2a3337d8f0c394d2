"""Training on a store, which stays on disk."""

import itertools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import checkpoint, windows
from tests.test_checkpoint import killed, same  # noqa: F401

pytest.importorskip("zarr")

PRIOR = jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
METHOD = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16))
N, CHUNK = 3008, 32


def simulator(key, theta):
    return theta["theta"] + 0.5 * jax.random.normal(key, (2,))


def fails(key, theta):
    return jnp.where(theta["theta"][0] > 1.0, jnp.nan, simulator(key, theta))


def filled(path, what=simulator, n=N, prior=PRIOR):
    store = jaxsbi.Store.create(path, jax.random.key(3), prior, chunk=CHUNK)
    store.fill(what, n, progress=False)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("windows") / "store")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Windows of at most 512 rows, so that a pass has several."""
    monkeypatch.setattr(windows, "WINDOW_ROWS", 512)
    monkeypatch.setattr(windows, "UNIT_ROWS", 64)


def fit(simulations, seed=1, method=METHOD, prior=PRIOR, **options):
    options = {"batch_size": 64, "max_epochs": 3, "progress": False, **options}
    return jaxsbi.fit(jax.random.key(seed), method, prior, simulations, **options)


def numbers(rows):
    """Return what tells draws apart."""
    return np.asarray(rows.x[:, 0]).tolist()


def test_a_pass_sees_every_draw_once_in_an_order_of_its_own(store):
    parts = windows.Windows(store, METHOD, PRIOR, jax.random.key(0), 2700, 16)
    # 84 whole chunks are 42 units of 64 rows, which make 6 windows of 7 units, 448 rows.
    assert (parts.rows, parts.in_a_pass) == (448, 6)
    first, second = ([numbers(parts.read(turn * 6 + i)) for i in range(6)] for turn in range(2))
    drawn = numbers(store.simulations(slice(2688)))
    for turn in (first, second):
        assert sorted(itertools.chain(*turn)) == sorted(drawn)
    assert set(first[0]) != set(second[0])
    again = windows.Windows(store, METHOD, PRIOR, jax.random.key(0), 2700, 16)
    assert numbers(again.read(7)) == second[1]
    other = windows.Windows(store, METHOD, PRIOR, jax.random.key(1), 2700, 16)
    assert numbers(other.read(7)) != second[1]
    large = windows.Windows(store, METHOD, PRIOR, jax.random.key(0), 2700, windows.WINDOW_BYTES)
    assert large.rows == 64  # whatever fits


def test_windows_are_read_ahead_and_no_further(store, monkeypatch):
    parts = windows.Windows(store, METHOD, PRIOR, jax.random.key(0), 2700, 16)
    read, threads = [], set()
    reading = windows.Windows.read

    def noted(self, number):
        read.append(number)
        threads.add(threading.current_thread())
        return reading(self, number)

    monkeypatch.setattr(windows.Windows, "read", noted)
    with parts:
        for number in range(3, 6):
            rows = parts.at(number, 7, None)
            assert numbers(rows) == numbers(reading(parts, number))
            last = min(number + windows.AHEAD, 6)
            while len(read) < last - 2:
                time.sleep(0.01)
            time.sleep(0.05)
            assert read == list(range(3, last + 1))
    assert threading.main_thread() not in threads


def test_it_learns_what_fit_learns_in_memory(store):
    streamed = fit(store, max_epochs=20)
    whole = fit(store.simulations(), max_epochs=20)
    # 10 per cent of the draws, the last ones, validate in both. The rest of the loss is noise of
    # optimisation: a hundredth of a nat.
    assert streamed.history.num_simulations == whole.history.num_simulations == (2707, 301)
    assert abs(streamed.history.best_loss - whole.history.best_loss) < 0.01
    assert streamed.history.validation_loss.shape == (20 * 6,)
    assert streamed.history.best_loss < 2.1  # untrained, a regression: it begins there


@pytest.mark.parametrize("options", [{}, {"ensemble": 2}])
def test_a_killed_training_ends_in_the_same_bits(options, store, killed, tmp_path, monkeypatch):  # noqa: F811
    plain = fit(store, **options)
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    for at in (1, 5, 4):
        killed(lambda: fit(store, checkpoint=tmp_path, **options), at)
    monkeypatch.setattr(windows, "AHEAD", 0)
    same(fit(store, checkpoint=tmp_path, **options), plain)


def test_a_store_that_has_grown_is_refused(tmp_path):
    store = filled(tmp_path / "store", n=1024)
    fit(store, checkpoint=tmp_path / "run")
    store.fill(simulator, 1056, progress=False)
    with pytest.raises(ValueError, match="what differs is simulations, source"):
        fit(store, checkpoint=tmp_path / "run")


def test_invalid_draws_are_left_out_and_counted(tmp_path):
    store = filled(tmp_path / "store", fails)
    fitted = fit(store)
    assert fitted.history.num_invalid == store.status["invalid"] > 300
    assert np.all(np.isfinite(fitted.history.train_loss))
    assert abs(fitted.history.best_loss - fit(store.simulations()).history.best_loss) < 0.02
    alone = filled(tmp_path / "other", lambda key, theta: jnp.nan * simulator(key, theta), 128)
    with pytest.raises(ValueError, match="at least 2 finite ones of 20 in the store, got 0"):
        fit(alone)


def test_a_damaged_chunk_is_told(tmp_path):
    store = filled(tmp_path / "store", n=1024)
    path = store.zarr / "x/c/5/0"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"x/c/5/0: expected \d+ bytes.*store.fill"):
        fit(store)
    assert not [t for t in threading.enumerate() if t.name.startswith("windows")]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"refit": True}, ValueError, "refit, capacity: expected simulations in memory"),
        ({"capacity": 5000}, ValueError, "refit, capacity: expected simulations in memory"),
        ({"validation_fraction": 1.5}, ValueError, "expected between 0 and 1"),
        ({"validation_fraction": 0.995}, ValueError, "a store of at least one chunk"),
        ({"batch_size": 1000}, ValueError, "batch_size: expected between 2 and 448"),
        (
            {"prior": jaxsbi.Prior(theta=dist.Normal(jnp.ones(2), 1.0).to_event(1))},
            ValueError,
            "expected the law that the store's parameters were drawn from",
        ),
        ({"simulations": "store"}, TypeError, "or a jaxsbi.Store, got str"),
    ],
)
def test_bad_input(options, error, message, store):
    with pytest.raises(error, match=message):
        fit(**{"simulations": store, **options})
