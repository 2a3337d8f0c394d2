"""Data with a mask: a road never looks under it, or says that it cannot be trained on them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import compression, methods

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
THETA = {"theta": jnp.array(0.3)}
X = {"values": jnp.ones((4, 1)), "mask": jnp.array([True, False, True, False])}
ROWS, ROOM = 64, 4
GAUSSIAN = jaxsbi.densities.Gaussian(hidden=8)
SOLVER = jaxsbi.fields.ode(steps=4)

READ = {
    "npe": jaxsbi.npe(density=GAUSSIAN),
    "npe with a summary": jaxsbi.npe(density=GAUSSIAN, summary=jaxsbi.networks.DeepSet(hidden=8)),
    "nre": jaxsbi.nre(),
    "fmpe": jaxsbi.fmpe(sampler=SOLVER),
    "npse": jaxsbi.npse(sampler=SOLVER),
    "joint": jaxsbi.joint(sampler=SOLVER, noises=1),
}
REFUSE = {
    "nle": jaxsbi.nle(),
    "nle of independent draws": jaxsbi.nle(iid=True),
    "emulator": jaxsbi.emulator(),
    "emulator of an approximation": jaxsbi.emulator(approximation=lambda theta: theta["theta"]),
    "emulator of logarithms": jaxsbi.emulator(transform="log"),
    "nle of a summary with a mask": compression.frozen(jaxsbi.nle(), lambda x: x),
}
NO_ROADS = {"conditional", "conditional_log_prob", "normalization", "sample_iid", "trajectories"}
refused = pytest.mark.parametrize("name", REFUSE)


def simulator(key, theta):
    values = theta["theta"] + jax.random.normal(key, (ROOM, 1))
    there = jnp.arange(ROOM) < 1 + jax.random.randint(jax.random.fold_in(key, 1), (), 0, ROOM)
    return {"values": values, "mask": there}


def filled(x, by):
    return x | {"values": jnp.where(x["mask"][..., None], x["values"], by)}


@pytest.fixture(scope="module")
def rows():
    return jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, ROWS, progress=False)


def fit(method, rows):
    return jaxsbi.fit(jax.random.key(1), method, PRIOR, rows, max_epochs=1, progress=False)


def densities(fitted):
    """Return the density of one data set as the method itself has it, for two fillings."""
    posterior = fitted.posterior
    method, variables = posterior.method, posterior.variables
    log_prob = jax.jit(lambda x: method.log_prob(variables, PRIOR, THETA, x))
    return [float(log_prob(filled(X, by))) for by in (0.0, 50.0)]


def test_every_road_is_here():
    roads = {name for name in methods.__all__ if name.islower()} - NO_ROADS
    assert roads == {name.split()[0] for name in READ | REFUSE}


@pytest.mark.parametrize("name", READ)
def test_what_is_masked_changes_no_bit(name, rows):
    one, other = densities(fit(READ[name], rows))
    assert np.isfinite(one)
    assert one == other


@refused
def test_a_law_of_the_data_refuses_a_mask(name, rows):
    with pytest.raises(ValueError, match=r"expected x without a mask, got one in x\. .*frozen\("):
        fit(REFUSE[name], rows)


def test_a_law_of_the_data_refuses_a_mask_wherever_it_is_trained():
    for name in ("nle", "emulator"):
        with pytest.raises(ValueError, match=rf"{name}: expected x without a mask"):
            jaxsbi.fit_online(
                jax.random.key(0), REFUSE[name], PRIOR, simulator, num_steps=1, progress=False
            )
    part = {"bag": {"values": jnp.ones((8, 3, 1)), "mask": jnp.ones((8, 3), bool)}}
    edges = {"edges": {"senders": jnp.ones((8, 3), int), "mask": jnp.ones((8, 3), bool)}}
    for x, place in ((part, "bag"), (edges, "edges")):
        with pytest.raises(ValueError, match=rf"mask, got one in x\['{place}'\]"):
            fit(jaxsbi.nle(), jaxsbi.Simulations({"theta": jnp.ones(8)}, x, jnp.ones(8)))


def mean(x):
    there = x["mask"][:, None]
    return jnp.sum(jnp.where(there, x["values"], 0.0), 0) / jnp.sum(there)


def test_the_law_of_a_summary_is_learned_in_its_place(rows):
    one, other = densities(fit(compression.frozen(jaxsbi.nle(), mean), rows))
    assert np.isfinite(one)
    assert one == other
