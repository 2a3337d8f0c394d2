"""Programs that need several devices or processes, for `test_devices.py` to start.

`python -m tests.device_programs devices` uses the devices of one process, `… processes FOLDER i
PORT` is process i of two.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxsbi
from jaxsbi import checkpoint, loop
from jaxsbi.base import configuration

if __name__ == "__main__" and sys.argv[1] == "processes":  # before anything is computed
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{sys.argv[4]}", 2, int(sys.argv[3]))

PRIOR = jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
NPE = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16))
NRE = jaxsbi.nre(classifier=jaxsbi.networks.MLP(16))
SEEN: dict[str, set[str]] = {}


def simulator(key, theta):
    return theta["theta"] + 0.5 * jax.random.normal(key, (2,))


SIMULATIONS = jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 280, progress=False)


@configuration
class Split:
    """NPE that notes, where it is compiled, how the rows of a step are split."""

    name: str
    latent = True

    def init(self, key, prior, simulations):
        return NPE.init(key, prior, simulations)

    def loss(self, variables, prior, key, batch):
        note = SEEN.setdefault(self.name, set()).add
        jax.debug.inspect_array_sharding(
            batch.x, callback=lambda s: note(str(s.shard_shape(SHAPE)))
        )
        return NPE.loss(variables, prior, key, batch)

    def sample(self, variables, prior, key, x, n):
        return NPE.sample(variables, prior, key, x, n)

    def log_prob(self, variables, prior, theta, x):
        return NPE.log_prob(variables, prior, theta, x)


SHAPE = (248, 2)


def fit(method=NPE, seed=1, **options):
    """Train for 100 epochs of one step each, too few for a plateau."""
    options = {"batch_size": 248, "max_epochs": 100, "patience": 1000, **options}
    return jaxsbi.fit(jax.random.key(seed), method, PRIOR, SIMULATIONS, progress=False, **options)


def online(method=NPE, **options):
    options = {"num_steps": 100, "batch_size": 248, **options}
    return jaxsbi.fit_online(jax.random.key(1), method, PRIOR, simulator, progress=False, **options)


def close(one, other):
    """Assert that two trainings agree to rounding in every epoch."""
    for name in ("train_loss", "validation_loss"):
        a, b = (getattr(f.history, name) for f in (one, other))
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.posterior, other.posterior)
    np.testing.assert_array_equal(one.history.train_loss, other.history.train_loss)


def devices(folder):
    """Eight devices do what one does."""
    mesh = Mesh(jax.devices(), ("batch",))
    assert mesh.size == 8
    single = fit()
    close(fit(mesh=mesh), single)
    close(fit(mesh=jax.make_mesh((8,), ("batch",))), single)  # of whatever kind of axes
    close(fit(NRE, mesh=mesh), fit(NRE))
    close(online(mesh=mesh), online())
    both = Mesh(np.array(jax.devices()).reshape(2, 4), ("ensemble", "batch"))
    members = fit(ensemble=4)
    close(fit(ensemble=4, mesh=both), members)
    for wrong in ({"batch_size": 100}, {"ensemble": 3, "mesh": both}):
        refused("a multiple of the mesh's", **{"mesh": mesh, **wrong})

    for name, run in (("stored", fit), ("online", online)):
        run(Split(name=name), mesh=mesh)
        assert str((31, 2)) in SEEN[name], SEEN

    # Observations that are split are drawn for where they are.
    split = NamedSharding(mesh, PartitionSpec("batch"))
    xs = np.asarray(SIMULATIONS.x[:16])
    keys = jax.random.split(jax.random.key(5), 16)
    draw = jax.vmap(lambda k, x: fit_posterior.sample(k, x, 100)["theta"])
    fit_posterior = members.posterior
    draws = draw(jax.device_put(keys, split), jax.device_put(xs, split))
    assert draws.sharding.shard_shape(draws.shape) == (2, 100, 2)
    np.testing.assert_allclose(draws, draw(keys, xs), atol=1e-5)

    interrupted(folder, mesh, 0)
    refused("what differs is mesh", checkpoint=folder)


def refused(message, **options):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def interrupted(folder, mesh, process):
    """Press Ctrl-C in one process, go on, and come to the same bits."""
    plain = fit(mesh=mesh)
    run, seconds = loop._run, loop.CHUNK_SECONDS
    loop.CHUNK_SECONDS = 0.0

    def pressing(*args):
        if jax.process_index() == process:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
        return run(*args)

    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    loop._run = pressing
    stopped = fit(mesh=mesh, checkpoint=folder)
    loop._run, loop.CHUNK_SECONDS = run, seconds
    assert stopped.history.stopped == "interrupted", stopped.history
    assert 0 < stopped.history.epochs < 100
    same(fit(mesh=mesh, checkpoint=folder), plain)


def processes(folder, index, _port):
    """Two processes of two devices each do what one device does."""
    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    mesh = Mesh(jax.devices(), ("batch",))
    single = fit()
    shared = fit(mesh=mesh)
    close(shared, single)
    close(online(mesh=mesh), online())
    draws = shared.posterior.sample(jax.random.key(2), SIMULATIONS.x[0], 10)  # by each on its own
    assert draws["theta"].shape == (10, 2)
    interrupted(folder, mesh, 1)

    write, calls = checkpoint.write, []
    checkpoint.write = lambda *args: calls.append(args) or write(*args)
    fit(mesh=mesh, checkpoint=Path(folder, "other"), max_epochs=2)
    assert len(calls) == (jax.process_index() == 0)
    checkpoint.write = write
    own = {"mesh": mesh, "checkpoint": Path(folder, index), "max_epochs": 2}
    fit(**own)
    refused("a folder that all processes of the mesh see", **own)
    refused("expected the same key", mesh=mesh, seed=jax.process_index())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("fine")
