"""Warnings point at the user's line, however deep in the package they come from."""

import warnings

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.notice import warn

PRIOR = jaxsbi.Prior(mu=dist.Uniform(0.0, 1.0))
FAR = jnp.array([900.0])


def simulator(key, theta):
    return theta["mu"] + jax.random.normal(key, (1,))


@pytest.fixture(scope="module")
def posterior():
    keys = jax.random.split(jax.random.key(1))
    simulations = jaxsbi.simulate(keys[0], PRIOR, simulator, 300)
    return jaxsbi.fit(keys[1], jaxsbi.nle(), PRIOR, simulations, max_epochs=1).posterior


def wider_prior(posterior, key):
    return posterior.with_prior(jaxsbi.Prior(mu=dist.Uniform(-5.0, 5.0)))


def far_draws(posterior, key):
    return posterior.sample(key, FAR, 10)


def rejected_simulations(posterior, key):
    return jaxsbi.abc.rejection(key, PRIOR, simulator, FAR, num_simulations=500, keep=40)


PROGRAMS = (wider_prior, far_draws, rejected_simulations)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_warnings_point_here(program, posterior, key):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program(posterior, key)
    assert caught
    assert {w.filename for w in caught} == {__file__}
    assert {w.lineno for w in caught} == {program.__code__.co_firstlineno + 1}


def test_a_warning_of_a_program_is_at_its_own_line():
    with pytest.warns(UserWarning, match="look here") as caught:
        warn("look here")
    assert caught[0].filename == __file__
