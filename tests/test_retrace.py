"""Nothing is compiled twice: not for new data, new variables, or an equal configuration."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import _log_prob, draw_program
from jaxsbi.training import PROGRAMS

pytestmark = [
    pytest.mark.rank_promotion,  # NumPyro's kernel promotes ranks
    pytest.mark.filterwarnings("ignore:MCMC"),  # chains this short do not converge
]

INITIAL, CHUNK = PROGRAMS["cpu" if jax.default_backend() == "cpu" else "accelerator"]
COUNTED = (INITIAL, CHUNK, draw_program(jaxsbi.npe()), _log_prob)


def simulator(key, theta):
    return theta["theta"][None] + jax.random.normal(key, (2,))


def gaussian():
    return jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8))


def likelihood():
    return jaxsbi.nle(
        density=jaxsbi.densities.MaskedAutoregressive(layers=1, hidden=8),
        sampler=jaxsbi.samplers.nuts(chains=4, warmup=20),
    )


def emulator(variance=1.0):
    return jaxsbi.emulator(
        network=jaxsbi.networks.MLP(8),
        noise=jaxsbi.noise.gaussian(variance * jnp.ones(2)),
        sampler=jaxsbi.samplers.nuts(chains=4, warmup=20),
    )


# How a program may come by a method that it has used before.
COPIES = (
    lambda method: method,
    copy.deepcopy,
    lambda method: pickle.loads(pickle.dumps(method)),
    lambda method: jax.tree.map(lambda a: a + 0.0, method),
)


def use(method, seed, **options):
    """Fit to new values under a new prior, draw, and ask for densities."""
    prior = jaxsbi.Prior(theta=dist.Normal(0.1 * seed, 1.0 + 0.1 * seed))
    simulations = jaxsbi.simulate(jax.random.key(seed), prior, simulator, 64, progress=False)
    options = {"max_epochs": 2, "progress": False, **options}
    posterior = jaxsbi.fit(jax.random.key(seed), method, prior, simulations, **options).posterior
    for value in (0.0, 1.0):
        x = jnp.full(2, value)
        posterior.sample(jax.random.key(seed), x, 20)
        posterior.log_prob({"theta": jnp.array(value)}, x)
    return posterior


class Count:
    """The programs traced inside a `with` block."""

    def __enter__(self):
        self._before = [f._cache_size() for f in COUNTED]
        return self

    def __exit__(self, *_):
        self.traced = [f._cache_size() - n for f, n in zip(COUNTED, self._before, strict=True)]


@pytest.mark.parametrize("make", [gaussian, pytest.param(likelihood, marks=pytest.mark.slow)])
def test_four_fits_with_new_values_trace_once(make):
    with Count() as count:
        for seed, copied in enumerate(COPIES):
            use(copied(make()), seed)
    assert count.traced == [1, 1, 1, 1]


@pytest.mark.slow
def test_another_covariance_is_another_value():
    with Count() as count:
        for seed in range(2):
            use(emulator(1.0 + seed), seed)
    assert count.traced == [1, 1, 1, 1]


@pytest.mark.slow
def test_ensembles_of_one_size_share_a_program():
    with Count() as count:
        for seed in range(2):
            use(gaussian(), seed, ensemble=2)
    assert count.traced == [1, 1, 1, 1]


@pytest.mark.slow
def test_another_prior_traces_once_more():
    posterior = use(likelihood(), 0)
    with Count() as count:
        for loc in (0.0, 1.0, 2.0):
            moved = posterior.with_prior(jaxsbi.Prior(theta=dist.Normal(loc, 1.0)))
            moved.sample(jax.random.key(1), jnp.ones(2), 20)
            moved.log_prob({"theta": jnp.array(0.3)}, jnp.ones(2))
    assert count.traced == [0, 0, 1, 1]


def test_kinds_of_arrays_are_no_new_programs():
    """NumPy or JAX, float64 or float32: an observation is converted before it is traced."""
    posterior = use(gaussian(), 0)
    with Count() as count:
        for x in (jnp.ones(2), np.ones(2, np.float32), np.ones(2)):
            posterior.sample(jax.random.key(1), x, 20)
            posterior.log_prob({"theta": jnp.array(0.3)}, x)
    assert count.traced == [0, 0, 0, 0]
