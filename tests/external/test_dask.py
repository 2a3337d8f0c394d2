"""Simulations on a real Dask cluster of several processes, some of which are killed."""

import os
import signal
import threading
import time

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Dask's own, about workers that were killed
]
PRIOR = jaxsbi.Prior(at=dist.Uniform(0.0, 1.0))
KEY, N = jax.random.key(0), 60


def function(seed, theta):
    time.sleep(0.05)
    return np.random.default_rng(seed).normal(theta["at"], 1.0, 3)


@pytest.fixture(scope="module")
def client():
    import dask

    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.comm.timeouts.connect": "5s",  # how long it waits for one that is dead
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def simulate(client, function, n=N, **options):
    return jaxsbi.simulate_external(
        KEY, PRIOR, function, n, executor=client.get_executor(), progress=False, **options
    )


@pytest.fixture(scope="module")
def expected():
    return jaxsbi.simulate_external(KEY, PRIOR, function, N, workers=2, progress=False)[0]


@pytest.mark.parametrize("stored", [False, True])
def test_a_killed_worker_changes_nothing(client, expected, stored, tmp_path):
    client.wait_for_workers(2, timeout=60)
    pids = client.run(os.getpid)
    assert len(set(pids.values())) == 2
    victim = next(iter(pids.values()))
    killer = threading.Timer(0.7, os.kill, (victim, signal.SIGKILL))
    killer.start()
    store = None
    if stored:
        store = jaxsbi.Store.create(tmp_path / "store", KEY, PRIOR, chunk=8)
    simulations, record = simulate(client, function, store=store, retries=2)
    killer.join()
    client.wait_for_workers(2, timeout=60)
    assert victim not in client.run(os.getpid).values()
    assert record.counts == {"ok": N}
    jax.tree.map(np.testing.assert_array_equal, simulations, expected)


def test_failures_are_recorded(client):
    def wild(seed, theta):
        if theta["at"] < 0.08:
            os._exit(1)  # Dask starts it again on the next worker, and gives up after two
        if theta["at"] < 0.2:
            while True:
                time.sleep(0.01)
        if theta["at"] < 0.43:
            raise ValueError("too low")
        return np.zeros(1)

    simulations, record = simulate(client, wild, 16, timeout=1.0, workers=1)
    at = np.asarray(simulations.theta["at"])
    expected = np.select([at < 0.08, at < 0.2, at < 0.43], ["crashed", "timeout", "error"], "ok")
    assert set(expected) == {"crashed", "timeout", "error", "ok"}
    np.testing.assert_array_equal(record.status, expected)
    assert "KilledWorker" in record.message[int(np.argmin(at))]


def test_a_program_that_hangs_is_killed(client):
    with pytest.raises(ValueError, match="'timeout': 4"):
        simulate(client, jaxsbi.command(["sleep", "60"]), 4, timeout=0.5)
