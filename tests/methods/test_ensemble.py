"""An ensemble is an equal mixture of posteriors, or an average of likelihoods."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec, configuration
from jaxsbi.fields import FieldInfo
from jaxsbi.methods import Ensemble
from jaxsbi.methods.npe import DirectInfo

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 3.0))
MEANS = np.array([-4.0, 0.0, 5.0], np.float32)
X = jnp.zeros(())


@configuration
class Shifted:
    """A posterior N(mean, 1), whose mean is its only variable."""

    def init(self, key, prior, simulations):
        return {"params": {"mean": jax.random.normal(key)}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return (batch.theta["theta"] - variables["params"]["mean"]) ** 2

    def sample(self, variables, prior, key, x, n):
        z = jax.random.normal(key, (n,))
        theta = variables["params"]["mean"] + z
        return {"theta": theta}, DirectInfo(jax.scipy.stats.norm.logpdf(z))

    def log_prob(self, variables, prior, theta, x):
        return jax.scipy.stats.norm.logpdf(theta["theta"] - variables["params"]["mean"])


@configuration
class ShiftedLikelihood(Shifted):
    """A likelihood N(theta - x; mean, 1)."""

    target: jaxsbi.Prior | None = None

    def log_likelihood(self, variables, prior, z, x):
        theta = prior.from_latent(z)["theta"]
        return jax.scipy.stats.norm.logpdf(theta - x - variables["params"]["mean"])

    def with_prior(self, new):
        return dataclasses.replace(self, target=new)


def make(method):
    variables = {"params": {"mean": jnp.asarray(MEANS)}, "statistics": {}}
    ensemble = Ensemble(method=method, size=3)
    return jaxsbi.Posterior(variables, PRIOR, ensemble, DataSpec.of(X))


def mixture(theta):
    return np.logaddexp.reduce(-0.5 * (theta - MEANS) ** 2) - np.log(3) - 0.5 * np.log(2 * np.pi)


@configuration
class ShiftedField(Shifted):
    """A posterior whose density is costly, drawn from by a solver that may give up."""

    def sample(self, variables, prior, key, x, n):
        draws, _ = super().sample(variables, prior, key, x, n)
        return draws, FieldInfo(jnp.int32(10), variables["params"]["mean"] > 4.0)

    def log_prob(self, variables, prior, theta, x):
        raise AssertionError("nobody asked for a density")


@pytest.mark.parametrize("theta", [-4.5, 1.0, 30.0])
def test_the_density_is_the_mixtures(theta):
    value = make(Shifted()).log_prob({"theta": jnp.array(theta)}, X)
    np.testing.assert_allclose(value, mixture(theta), rtol=1e-5)


def test_draws_come_from_all_members_in_equal_shares(key):
    draws, info = make(Shifted()).sample_with_info(key, X, 6_000)
    member = np.argmin(np.abs(np.asarray(draws["theta"])[:, None] - MEANS), axis=1)
    share = np.bincount(member) / 6_000
    # Multinomial: four standard errors of a share are 4 * sqrt(2/9 / 6000) = 0.024.
    np.testing.assert_allclose(share, 1 / 3, atol=0.024)
    assert np.unique(np.diff(member)).size > 3  # and not in blocks
    np.testing.assert_allclose(
        info.log_prob[:20], [mixture(t) for t in draws["theta"][:20]], rtol=1e-4
    )
    for k in range(3):
        inside = np.asarray(draws["theta"])[member == k]
        # The members overlap little: within four standard errors, 1 / sqrt(2000) each.
        assert np.mean(inside) == pytest.approx(float(MEANS[k]), abs=0.12)


def test_a_costly_density_is_not_computed_and_the_members_reports_are_kept(key):
    with pytest.warns(UserWarning, match="the solver gave up"):
        draws, info = make(ShiftedField()).sample_with_info(key, X, 300)
    assert draws["theta"].shape == (300,)
    np.testing.assert_array_equal(info.failed, [False, False, True])
    np.testing.assert_array_equal(info.num_steps, [10, 10, 10])


def test_likelihoods_are_averaged():
    posterior = make(ShiftedLikelihood())
    for theta in (-3.0, 2.0):
        expected = mixture(theta) + float(PRIOR.log_prob({"theta": jnp.array(theta)}))
        np.testing.assert_allclose(
            posterior.log_prob({"theta": jnp.array(theta)}, X), expected, rtol=1e-5
        )


def test_another_prior_is_offered_where_the_members_offer_it():
    new = jaxsbi.Prior(theta=dist.Normal(1.0, 0.5))
    moved = make(ShiftedLikelihood()).with_prior(new)
    expected = mixture(0.5) + float(new.log_prob({"theta": jnp.array(0.5)}))
    np.testing.assert_allclose(moved.log_prob({"theta": jnp.array(0.5)}, X), expected, rtol=1e-5)
    with pytest.raises(NotImplementedError, match="importance"):
        make(Shifted()).with_prior(new)


def test_an_ensemble_is_a_method():
    ensemble = Ensemble(method=Shifted(), size=3)
    assert isinstance(ensemble, jaxsbi.Method)
    rows = jaxsbi.Simulations({"theta": jnp.arange(4.0)}, jnp.zeros(4), jnp.ones(4))
    variables = ensemble.init(jax.random.key(0), PRIOR, rows)
    assert np.unique(variables["params"]["mean"]).size == 3
    loss = ensemble.loss(variables, PRIOR, jax.random.key(0), rows)
    assert loss.shape == (4,)
