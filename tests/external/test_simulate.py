"""Simulators outside JAX, in processes and threads, and when they crash, hang, raise or err."""

import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.draws import parameters, seeds

PRIOR = jaxsbi.Prior(
    shift=dist.Normal(jnp.zeros(2), 1.0).to_event(1), width=dist.LogNormal(0.0, 0.5)
)
N = 24


def simulate(function, n=N, seed=1, prior=PRIOR, **options):
    options = {"workers": 2, "progress": False, **options}
    return jaxsbi.simulate_external(jax.random.key(seed), prior, function, n, **options)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def points(seed, theta):
    noise = np.random.default_rng(seed).normal(size=(3, 2))
    return {"points": theta["shift"] + theta["width"] * noise, "seed": np.int32(seed)}


def test_shapes_names_seeds_and_weights():
    simulations, record = simulate(points)
    assert len(simulations) == simulations.num_valid == len(record) == N
    assert list(simulations.theta) == ["shift", "width"]
    assert simulations.theta["shift"].shape == (N, 2)
    assert simulations.x["points"].shape == (N, 3, 2)
    assert record.counts == {"ok": N}
    assert set(record.attempts) == {1}
    assert set(record.message) == {""}
    assert np.unique(simulations.x["seed"]).size == N
    for i in range(N):  # each x belongs to its theta
        theta = {name: np.asarray(a[i]) for name, a in simulations.theta.items()}
        again = points(int(simulations.x["seed"][i]), theta)
        np.testing.assert_array_equal(simulations.x["points"][i], again["points"].astype("f4"))


def test_the_executor_does_not_change_the_simulations(threads):
    ours, _ = simulate(points)
    others, _ = simulate(points, executor=threads)
    jax.tree.map(np.testing.assert_array_equal, ours, others)
    more, _ = simulate(points, 300, executor=threads)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:N]), ours, more)
    jax.tree.map(lambda a: np.testing.assert_equal(len(np.unique(a, axis=0)), 300), more.theta)


def test_theta_is_that_of_the_draws_number():
    key = jax.random.key(3)
    theta, density = parameters(PRIOR, key, jnp.arange(5, dtype=jnp.uint32))
    some, _ = parameters(PRIOR, jax.random.key(3), jnp.array([4, 1], jnp.uint32))
    np.testing.assert_array_equal(some["shift"], theta["shift"][jnp.array([4, 1])])
    np.testing.assert_allclose(density, jax.vmap(PRIOR.log_prob)(theta), rtol=1e-6)


def test_no_two_draws_of_a_key_share_a_seed():
    found = seeds(jax.random.key(0), np.arange(300_000))
    assert np.unique(found).size == 300_000
    assert found.min() >= 0
    assert found.max() < 2**31
    # Uniform: the mean of n has a standard error of 2³¹ / sqrt(12 n) = 0.00053 · 2³¹.
    assert abs(found.mean() / 2**31 - 0.5) < 0.0021
    assert not np.isin(seeds(jax.random.key(1), np.arange(100)), found[:1000]).all()


def wild(seed, theta):
    """Fail in a way that depends on theta."""
    at = float(theta["at"])
    if at < 0.1:
        os._exit(7)
    if at < 0.2:
        while True:
            time.sleep(0.01)
    if at < 0.3:
        raise KeyError("no such table")
    if at < 0.4:
        return np.array([np.nan, at])
    if at < 0.45:
        return np.zeros(3)
    if at < 0.5:
        return np.zeros(2, np.int64)
    if at < 0.55:
        return None
    if at < 0.6:
        return ["one", "two"]
    return np.array([seed % 1000, at], float)


LINE = jaxsbi.Prior(at=dist.Uniform(0.0, 1.0))


def expected_status(at):
    bins = [(0.1, "crashed"), (0.2, "timeout"), (0.3, "error"), (0.6, "invalid"), (2.0, "ok")]
    return next(status for edge, status in bins if at < edge)


def test_each_failure_is_recorded_for_its_draw_and_the_others_go_on():
    with pytest.warns(UserWarning, match=r"wild: \d+ of 40 draws failed: .*'crashed'"):
        simulations, record = simulate(wild, 40, prior=LINE, timeout=0.6, retries=1)
    at = np.asarray(simulations.theta["at"])
    expected = np.array([expected_status(a) for a in at])
    np.testing.assert_array_equal(record.status, expected)
    assert set(expected) == {"ok", "crashed", "timeout", "error", "invalid"}
    np.testing.assert_array_equal(simulations.weight, expected == "ok")
    # A second attempt for what it may mend.
    again = np.isin(expected, ["crashed", "timeout", "error"])
    np.testing.assert_array_equal(record.attempts, 1 + again)
    assert np.all(record.seconds[expected == "timeout"] >= 1.2)
    for status, words in (("error", "KeyError: 'no such table'"), ("crashed", "process ended")):
        assert all(words in record.message[i] for i in np.flatnonzero(expected == status))
    ok = np.asarray(simulations.weight) > 0
    np.testing.assert_array_equal(simulations.x[ok, 1], at[ok])
    assert np.all(np.isnan(simulations.x[~ok & ~((at > 0.3) & (at < 0.4))]))


def test_other_structures_are_told(threads):
    with pytest.warns(UserWarning, match="draws failed"):
        simulations, record = simulate(
            lambda seed, theta: wild(seed, {"at": max(theta["at"], 0.4)}),
            40,
            prior=LINE,
            executor=threads,
        )
    at = np.asarray(simulations.theta["at"])

    def message(low, high):
        return record.message[int(np.flatnonzero((at > low) & (at < high))[0])]

    assert "float64[2] as in other draws, got float64[3]" in message(0.4, 0.45)
    assert "float64[2] as in other draws, got int64[2]" in message(0.45, 0.5)
    assert "expected a pytree of arrays of numbers, got None" in message(0.5, 0.55)
    assert "got dtype <U3" in message(0.55, 0.6)


def test_a_lone_nan_does_not_set_the_structure(threads):
    def nan_first(seed, theta):
        return np.nan if theta["at"] < 0.5 else np.array([1.0, 2.0])

    with pytest.warns(UserWarning, match="draws failed"):
        simulations, record = simulate(nan_first, 40, prior=LINE, executor=threads)
    np.testing.assert_array_equal(record.status == "ok", simulations.theta["at"] >= 0.5)


def test_what_jax_cannot_hold_is_invalid(threads):
    def large(seed, theta):
        return {"float": np.float64(1e300 if theta["at"] < 0.3 else 1), "count": np.int64(1)}

    with pytest.warns(UserWarning, match=r"x\['float'\]: 1 of 1 numbers are not finite"):
        _, record = simulate(large, prior=LINE, executor=threads)
    assert record.counts.keys() == {"ok", "invalid"}
    with pytest.raises(ValueError, match="int64 does not fit int32; set jax_enable_x64"):
        simulate(lambda seed, theta: np.int64(2**40), prior=LINE, executor=threads)


class Flaky:
    """Fail once per seed, and leave a mark in a folder."""

    def __init__(self, folder, crash):
        self.folder, self.crash = folder, crash

    def __call__(self, seed, theta):
        try:
            (self.folder / str(seed)).touch(exist_ok=False)
        except FileExistsError:
            return np.float32(seed % 4096)
        if self.crash:
            os._exit(1)
        raise OSError("try again")


@pytest.mark.parametrize("crash", [True, False])
def test_a_retry_has_the_same_seed(tmp_path, crash):
    simulations, record = simulate(Flaky(tmp_path, crash), 6, retries=2)
    assert record.counts == {"ok": 6}
    assert set(record.attempts) == {2}
    marks = sorted(int(path.name) % 4096 for path in tmp_path.iterdir())
    assert marks == sorted(np.asarray(simulations.x).astype(int).tolist())  # six seeds in all


def stubborn(seed, theta):
    if theta["at"] < 0.5:
        while True:  # swallows every exception that can be caught by its class
            try:
                time.sleep(0.01)
            except Exception:
                continue
    return np.zeros(1)


def deaf(seed, theta):
    """Hang as compiled code does, where no signal handler of Python's runs."""
    import signal

    if theta["at"] < 0.15:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(60)
    return np.zeros(1)


@pytest.mark.parametrize("where", ["processes", "threads"])
def test_the_time_limit_is_kept(where, threads):
    with pytest.warns(UserWarning, match="not done after 0.2 s"):
        simulations, record = simulate(
            stubborn, 10, prior=LINE, timeout=0.2, executor=threads if where == "threads" else None
        )
    expected = np.where(simulations.theta["at"] < 0.5, "timeout", "ok")
    np.testing.assert_array_equal(record.status, expected)


def test_a_process_that_does_not_react_is_ended():
    began = time.monotonic()
    with pytest.warns(UserWarning, match="was ended"):
        simulations, record = simulate(deaf, 16, prior=LINE, timeout=0.3)
    expected = np.where(simulations.theta["at"] < 0.15, "timeout", "ok")
    assert 0 < np.sum(expected == "timeout") <= 4
    np.testing.assert_array_equal(record.status, expected)
    assert time.monotonic() - began < 40


def test_the_time_limit_is_of_one_attempt_not_of_the_wait(threads):
    def slow(seed, theta):
        time.sleep(0.1)
        return np.zeros(1)

    _, record = simulate(slow, 30, timeout=1.0, executor=threads, workers=30)  # 1.5 s in all
    assert record.counts == {"ok": 30}


def test_only_failures_are_an_error(threads):
    with pytest.raises(ValueError, match=r"none in 24 draws.*'error': 24.*ZeroDivisionError"):
        simulate(lambda seed, theta: 1 / 0, executor=threads)


def test_a_given_executor_that_breaks_is_told():
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    with (
        ProcessPoolExecutor(1, mp_context=context) as executor,
        pytest.raises(RuntimeError, match=r"executor: ProcessPoolExecutor is broken.*run again"),
    ):
        simulate(lambda seed, theta: os._exit(1), executor=executor)


def test_a_program_without_a_guard_is_told(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "unguarded.py"
    path.write_text(
        "import jax, numpyro.distributions as dist, jaxsbi\n"
        "prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))\n"
        "jaxsbi.simulate_external(jax.random.key(0), prior, lambda s, t: t['a'], 4, workers=1)\n"
    )
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "n: expected a positive integer"),
        ({"workers": 0}, ValueError, "workers: expected a positive integer"),
        ({"retries": -1}, ValueError, "retries and timeout: expected"),
        ({"timeout": 0.0}, ValueError, "retries and timeout: expected"),
        ({"function": "./sim"}, TypeError, r"jaxsbi.command\(\[...\]\)"),
        ({"executor": "dask"}, TypeError, r"client.get_executor\(\)"),
    ],
)
def test_wrong_arguments_are_told(options, error, message):
    with pytest.raises(error, match=message):
        simulate(**{"function": points, **options})


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_when_wanted(progress, threads, capsys):
    simulate(points, 5, executor=threads, progress=progress)
    assert ("simulate" in capsys.readouterr().err) == progress
