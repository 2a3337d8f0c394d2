"""Rounds that were stopped, by whatever means, end in the bits of rounds that were not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import loop, sequential
from jaxsbi.base import configuration
from jaxsbi.sequential import proposal as proposal_module

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
NPE = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=4))
NLE = jaxsbi.nle(density=jaxsbi.densities.Gaussian(hidden=4))
X = {"b": jnp.zeros(1), "a": (jnp.ones(()),)}


@configuration
class Shifted:
    """A normal posterior that is nearly trained from the start: a class that no file could hold."""

    width: float = 0.3

    def init(self, key, prior, simulations):
        return {"params": {"shift": 0.1 * jax.random.normal(key)}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        shift = variables["params"]["shift"]
        return (batch.theta["theta"] - 0.9 * batch.x["b"][:, 0] - shift) ** 2

    def sample(self, variables, prior, key, x, n):
        mean = 0.9 * x["b"][0] + variables["params"]["shift"]
        return {"theta": mean + self.width * jax.random.normal(key, (n,))}, ()

    def log_prob(self, variables, prior, theta, x):
        mean = 0.9 * x["b"][0] + variables["params"]["shift"]
        return jax.scipy.stats.norm.logpdf(theta["theta"], mean, self.width)


def simulator(key, theta):
    b = theta["theta"][None] + 0.3 * jax.random.normal(key, (1,))
    return {"b": b, "a": (jnp.ones(()),)}


def run(scheme, method=None, x=X, seed=0, simulator=simulator, **options):
    part = "step" if scheme == "dynamic" else "round"
    sizes = {f"num_{part}s": 3, f"simulations_per_{part}": 60}
    options = {**sizes, "progress": False, **options}
    method = Shifted() if method is None else method
    return getattr(sequential, scheme)(jax.random.key(seed), method, PRIOR, simulator, x, **options)


def same(one, other):
    """Assert that two results are the same, but for the seconds that they took."""
    assert one.finished
    assert other.finished
    for a, b in zip(one.rounds, other.rounds, strict=True):
        for name in ("simulations", "posterior", "log_proposal", "prior_mass", "kept"):
            some, others = getattr(a, name), getattr(b, name)
            assert jax.tree.structure(some) == jax.tree.structure(others)
            for u, v in zip(*map(jax.tree.leaves, (some, others)), strict=True):
                assert type(u) is type(v)
                np.testing.assert_array_equal(u, v)
        np.testing.assert_array_equal(a.history.train_loss, b.history.train_loss)
        np.testing.assert_array_equal(a.history.validation_loss, b.history.validation_loss)
        assert a.history.num_simulations == b.history.num_simulations


@pytest.mark.parametrize("scheme", ["truncated", "dynamic"])
def test_killed_rounds_end_in_the_same_bits(scheme, killed, tmp_path, monkeypatch):
    plain = run(scheme)
    for at in (1, 3, 4):
        killed(lambda: run(scheme, checkpoint=tmp_path), at)
    resumed = run(scheme, checkpoint=str(tmp_path))
    same(resumed, plain)
    part = "step" if scheme == "dynamic" else "round"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{part}-00{i}" for i in range(3)]

    # Afterwards nothing is simulated or trained again.
    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(proposal_module, "simulate_at", never)
    monkeypatch.setattr(loop, "_run", never)
    again = run(scheme, checkpoint=tmp_path)
    same(again, plain)
    for one, other in zip(again.rounds, resumed.rounds, strict=True):
        assert one.history.run_seconds == other.history.run_seconds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "method", "options"),
    [
        ("truncated", NPE, {"region": "box"}),
        ("atomic", NPE, {}),
        ("likelihood", NLE, {}),
        ("dynamic", NPE, {"live": 100}),
    ],
)
def test_every_scheme_goes_on(scheme, method, options, killed, tmp_path):
    part = "step" if scheme == "dynamic" else "round"
    options = {f"num_{part}s": 2, "x": jnp.zeros(1), "simulator": plain_simulator, **options}
    plain = run(scheme, method, **options)
    killed(lambda: run(scheme, method, checkpoint=tmp_path, **options), 2)
    killed(lambda: run(scheme, method, checkpoint=tmp_path, **options), 3)
    same(run(scheme, method, checkpoint=tmp_path, **options), plain)


def plain_simulator(key, theta):
    return simulator(key, theta)["b"]


def test_ctrl_c_loses_nothing_that_was_simulated(tmp_path, monkeypatch):
    train, calls = loop._run, itertools.count()

    def interrupted(run, state, *rest):
        return (state, True) if next(calls) == 1 else train(run, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_run", interrupted)
        stopped = run("truncated", checkpoint=tmp_path)
    assert not stopped.finished
    assert len(stopped.rounds) == 1
    assert (tmp_path / "round-001" / "simulations.safetensors").exists()
    same(run("truncated", checkpoint=tmp_path), run("truncated"))


def test_rounds_are_added_in_the_same_folder(tmp_path):
    first = run("truncated", checkpoint=tmp_path, num_rounds=1)
    more = run("truncated", checkpoint=tmp_path, num_rounds=1, previous=first, seed=1)
    same(more, run("truncated", num_rounds=1, previous=first, seed=1))
    same(more, run("truncated", checkpoint=tmp_path, num_rounds=1, previous=first, seed=1))


def test_another_run_is_refused(tmp_path):
    run("truncated", checkpoint=tmp_path, num_rounds=1)

    def other(key, theta):
        return jax.tree.map(lambda a: a + 1e-3, simulator(key, theta))

    for options, named in (
        ({"simulator": other}, "simulator"),
        ({"x": {**X, "b": jnp.ones(1)}}, "observation"),
        ({"seed": 1}, "key"),
        ({"method": Shifted(width=0.4)}, "method"),
        ({"num_rounds": 2}, r"num_rounds \(1 there, 2 here\)"),
        ({"region": "box"}, "proposal"),
    ):
        with pytest.raises(ValueError, match=rf"what differs is {named}"):
            run("truncated", checkpoint=tmp_path, **{"num_rounds": 1, **options})
    with pytest.raises(ValueError, match="expected a folder"):
        run("truncated", checkpoint=tmp_path / "round-000" / "training.safetensors")
