"""A run that was stopped, by whatever means, ends in the bits of one that was not."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxsbi
from jaxsbi import checkpoint, loop
from jaxsbi.base import configuration

BACKEND = "cpu" if jax.default_backend() == "cpu" else "accelerator"


def of_theta(law):
    """Return a prior; NumPyro lists what a Uniform is made of in another order in each process."""
    return jaxsbi.Prior(theta=law, other=dist.Uniform(-1.0, 1.0))


PRIOR = of_theta(dist.Normal(0.0, 1.0))
ADAM = optax.adam(0.02)


@configuration
class Line:
    """Least squares of theta on x, with noise of its own in every step."""

    width: float = 0.1

    def init(self, key, prior, simulations):
        slope = -0.3 * jax.random.uniform(key)
        statistics = {"mean": jnp.mean(simulations.x), "half": jnp.bfloat16(0.5)}
        return {"params": {"slope": slope, "shift": jnp.zeros(2)}, "statistics": statistics}

    def loss(self, variables, prior, key, batch):
        params = variables["params"]
        centred = batch.x - variables["statistics"]["mean"]
        centred = centred + self.width * jax.random.normal(key, centred.shape)
        theta = batch.theta["theta"]
        return (theta - params["slope"] * centred - jnp.sum(params["shift"])) ** 2

    def sample(self, variables, prior, key, x, n):
        return jax.vmap(prior.sample)(jax.random.split(key, n)), ()

    def log_prob(self, variables, prior, theta, x):
        raise NotImplementedError("Line has no density.")


def simulator(key, theta):
    return theta["theta"] + 0.5 * jax.random.normal(key) + 2.0


SIMULATIONS = jaxsbi.simulate(jax.random.key(3), PRIOR, simulator, 200, progress=False)


def fit(simulations=SIMULATIONS, seed=1, prior=PRIOR, method=None, **options):
    options = {"batch_size": 20, "max_epochs": 12, "progress": False, **options}
    method = Line() if method is None else method
    return jaxsbi.fit(jax.random.key(seed), method, prior, simulations, **options)


def online(seed=1, simulator=simulator, **options):
    options = {"num_steps": 1200, "batch_size": 20, "progress": False, **options}
    return jaxsbi.fit_online(jax.random.key(seed), Line(), PRIOR, simulator, **options)


def noise(key, theta, x):
    return x + 0.5 * jax.random.normal(key)


def bits(a):
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a = jax.random.key_data(a)
    return str(a.dtype), a.shape, np.asarray(a).tobytes()


def same(one, other):
    """Assert that two fits are the same, but for the seconds that they took."""
    assert jax.tree.structure(one.posterior) == jax.tree.structure(other.posterior)
    for a, b in zip(*map(jax.tree.leaves, (one.posterior, other.posterior)), strict=True):
        assert getattr(a, "weak_type", None) == getattr(b, "weak_type", None)
        assert bits(jnp.asarray(a)) == bits(jnp.asarray(b))
    for field in dataclasses.fields(one.history):
        if not field.name.endswith("seconds"):
            a, b = getattr(one.history, field.name), getattr(other.history, field.name)
            np.testing.assert_array_equal(a, b)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def killed(monkeypatch):
    """Return a function that runs another, and ends it at the given write to the disk.

    Every chunk is one epoch, and every epoch is written down.
    """
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    write = checkpoint.write

    def run(function, at):
        calls = []

        def dying(*args):
            write(*args)
            calls.append(1)
            if len(calls) == at:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write", dying)
            with pytest.raises(Killed):
                function()

    return run


RUNS = {
    "fit": fit,
    "user's optimizer": lambda **o: fit(optimizer=ADAM, **o),
    # Its hyperparameters are arrays in its state.
    "hyperparameters": lambda **o: fit(optimizer=HYPER, **o),
    "ensemble": lambda **o: fit(ensemble=2, **o),
    "initial": lambda **o: fit(initial=fit(seed=5, max_epochs=1).posterior, **o),
    "refit": lambda **o: fit(refit=True, **o),
    "online": online,
    "signals": lambda **o: online(simulator=jaxsbi.Signals(SIMULATIONS, noise), **o),
}
HYPER = optax.inject_hyperparams(optax.adam)(learning_rate=0.02)


# The checker refuses random losses under vmap over members, with a checkpoint or without.
LOOSE = {"ensemble": pytest.mark.key_reuse}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=LOOSE.get(k, ())) for k in RUNS])
def test_a_killed_run_ends_in_the_same_bits(kind, killed, tmp_path):
    run = RUNS[kind]
    plain = run()
    size = loop.PROGRAMS[BACKEND][1]._cache_size
    compiled = size()
    for at in (1, 4, 3):
        killed(lambda: run(checkpoint=tmp_path / "run"), at)
    resumed = run(checkpoint=tmp_path / "run")
    same(resumed, plain)
    assert size() == compiled  # what comes back from a file is what the loop was compiled for


def test_a_killed_refit_goes_on(killed, tmp_path):
    killed(lambda: fit(refit=True, checkpoint=tmp_path), 14)  # twelve epochs end in 12 writes
    assert (tmp_path / "refit.safetensors").exists()
    same(fit(refit=True, checkpoint=tmp_path), fit(refit=True))


def test_after_its_end_a_run_returns_at_once(tmp_path, monkeypatch):
    first = fit(checkpoint=str(tmp_path / "new" / "run"))
    same(first, fit())
    monkeypatch.setitem(loop.PROGRAMS, BACKEND, (loop.PROGRAMS[BACKEND][0], print))
    again = fit(checkpoint=tmp_path / "new" / "run")
    same(again, first)
    assert again.history.run_seconds == first.history.run_seconds
    assert again.history.compile_seconds == first.history.compile_seconds


def test_seconds_add_up(killed, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "tqdm", lambda **options: Slow())
    killed(lambda: fit(checkpoint=tmp_path), 6)
    assert fit(checkpoint=tmp_path).history.run_seconds > 12 * Slow.SECONDS


class Slow:
    """A progress bar that takes its time."""

    SECONDS = 0.05

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, ran):
        time.sleep(self.SECONDS)

    def set_postfix(self, **_):
        pass


def test_ctrl_c_returns_what_there_is_and_writes_it_down(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)

    class Pressing(Slow):
        def update(self, ran):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "tqdm", lambda **options: Pressing())
        stopped = fit(checkpoint=tmp_path)
    assert stopped.history.stopped == "interrupted"
    assert stopped.history.epochs == 1
    same(fit(checkpoint=tmp_path), fit())


def other_simulations():
    return dataclasses.replace(SIMULATIONS, x=SIMULATIONS.x.at[7].add(1e-6))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 2}, "key"),
        ({"method": Line(width=0.2)}, "method"),
        ({"prior": of_theta(dist.Normal(0.0, 1.5))}, "prior"),
        ({"prior": of_theta(dist.Laplace(0.0, 1.0))}, "prior"),
        ({"simulations": other_simulations()}, "simulations"),
        ({"validation_fraction": 0.2}, "simulations"),
        ({"batch_size": 30}, r"batch \(20 there, 30 here\)"),
        ({"patience": 3}, r"patience \(24 there, 3 here\)"),
        ({"optimizer": ADAM}, "optimizer"),
        ({"ensemble": 2}, "key"),
        ({"initial": True}, "initial"),
    ],
)
def test_another_run_is_refused(options, named, tmp_path):
    fit(checkpoint=tmp_path, max_epochs=2)
    before = (tmp_path / "training.safetensors").read_bytes()
    if "initial" in options:
        options = {"initial": fit(max_epochs=2).posterior}
    with pytest.raises(ValueError, match=rf"what differs is .*{named}.*another path, or delete"):
        fit(checkpoint=tmp_path, **{"max_epochs": 2, **options})
    assert (tmp_path / "training.safetensors").read_bytes() == before


def test_another_optimizer_or_simulator_is_refused(tmp_path):
    fit(checkpoint=tmp_path / "a", optimizer=ADAM)
    with pytest.raises(ValueError, match="what differs is optimizer"):
        fit(checkpoint=tmp_path / "a", optimizer=optax.adam(0.03))
    same(fit(checkpoint=tmp_path / "a", optimizer=optax.adam(0.02)), fit(optimizer=ADAM))
    online(checkpoint=tmp_path / "b", num_steps=100)
    with pytest.raises(ValueError, match="what differs is simulations"):
        online(checkpoint=tmp_path / "b", num_steps=100, simulator=lambda k, t: simulator(k, t) + 1)


def test_other_versions_are_refused(tmp_path, monkeypatch):
    fit(checkpoint=tmp_path, max_epochs=1)
    now = checkpoint.machine()
    monkeypatch.setattr(checkpoint, "machine", lambda: now | {"jax": "0.1"})
    with pytest.raises(ValueError, match=rf"what differs is jax \({now['jax']} there, 0.1 here\)"):
        fit(checkpoint=tmp_path, max_epochs=1)


@pytest.mark.parametrize("how", ["cut", "empty", "bit", "header", "another"])
def test_a_damaged_file_is_refused(how, tmp_path):
    fit(checkpoint=tmp_path, max_epochs=1)
    path = tmp_path / "training.safetensors"
    raw = bytearray(path.read_bytes())
    if how == "bit":
        raw[-3] ^= 1
    elif how == "header":
        raw = raw.replace(b"run_seconds", b"run_secondz")
    path.write_bytes({"cut": raw[: len(raw) // 2], "empty": b"", "another": b"{}"}.get(how, raw))
    with pytest.raises(ValueError, match=r"checkpoint .*training.safetensors: expected .*Delete"):
        fit(checkpoint=tmp_path, max_epochs=1)


def test_another_safetensors_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "training.safetensors")
    with pytest.raises(ValueError, match="expected 'jaxsbi checkpoint', version 1, got None"):
        fit(checkpoint=tmp_path)


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"expected a folder.*thesis.tex, which is a file"):
        fit(checkpoint=tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_write_that_fails_leaves_the_older_file(tmp_path, monkeypatch):
    fit(checkpoint=tmp_path, max_epochs=1)
    path = tmp_path / "training.safetensors"
    before = path.read_bytes()

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.write(path, {}, {"a": np.zeros(3)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_write_left_is_removed(tmp_path):
    fit(checkpoint=tmp_path, max_epochs=1)
    (tmp_path / ".training.safetensors-0123").write_bytes(b"half")
    (tmp_path / "notes").write_text("mine")
    fit(checkpoint=tmp_path, max_epochs=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "training.safetensors"]


def test_a_failed_training_is_not_gone_on_with(tmp_path):
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        fit(checkpoint=tmp_path, optimizer=optax.sgd(1e30))
    assert fit(checkpoint=tmp_path, optimizer=ADAM).history.stopped == "max_epochs"


def test_in_float64(x64, killed, tmp_path):
    simulations = jax.tree.map(lambda a: a.astype(float), SIMULATIONS)
    killed(lambda: fit(simulations, checkpoint=tmp_path), 3)
    resumed = fit(simulations, checkpoint=tmp_path)
    assert resumed.history.train_loss.dtype == np.float64
    same(resumed, fit(simulations))


PROGRAM = """
import sys
from tests.test_checkpoint import bits, checkpoint, fit, jax, jnp, loop

checkpoint.EVERY_SECONDS, loop.CHUNK_SECONDS = 0.0, 0.01
folder, result = sys.argv[1] or None, sys.argv[2]
print("begin", flush=True)
fitted = fit(max_epochs=3000, patience=3000, checkpoint=folder)
leaves = [*jax.tree.leaves(fitted.posterior), fitted.history.train_loss, fitted.history.best_epoch]
open(result, "w").write(repr([bits(jnp.asarray(a)) for a in leaves]))
"""


@pytest.mark.slow
def test_sigkill_at_any_moment(tmp_path):
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": f"{root}"}

    def start(folder, result):
        command = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / result)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=root)

    def written():
        return file.stat().st_mtime_ns if file.exists() else 0

    chance = random.Random(0)
    file = tmp_path / "run" / "training.safetensors"
    with start("", "plain") as plain:
        for _ in range(3):
            with start(tmp_path / "run", "resumed") as process:
                assert process.stdout.readline() == b"begin\n"
                before = written()
                while process.poll() is None and written() == before:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0.0, 0.1))
                process.kill()
            assert process.returncode == -signal.SIGKILL
        with start(tmp_path / "run", "resumed") as process:
            assert process.wait(100) == 0
        assert plain.wait(100) == 0
    assert (tmp_path / "resumed").read_text() == (tmp_path / "plain").read_text()
