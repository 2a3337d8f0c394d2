"""A prior cut to a box: its law, its coordinates, and that it goes where a prior goes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi.boxed import boxed, whole
from jaxsbi.emulators.model import sample_sites

PRIOR = jaxsbi.Prior(
    a=dist.Normal(1.0, 2.0),
    b=dist.Uniform(jnp.array([-1.0, 0.0]), 3.0),
    c=dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.5], [0.5, 1.0]])),
    d=dist.Gamma(2.0),
)
LOW = jnp.array([-0.5, -2.0, 0.1, -1.0, 0.0, 1.0])
HIGH = jnp.array([0.5, 1.0, 0.11, 3.0, 0.5, 4.0])
BOX = boxed(PRIOR, LOW, HIGH)


def test_parameters_have_the_law_of_the_prior_in_the_box() -> None:
    theta = jax.vmap(BOX.sample)(jax.random.split(jax.random.key(0), 4_000))
    t = np.asarray(jax.vmap(PRIOR.to_latent)(theta), float)
    for i, (low, high) in enumerate(zip(LOW, HIGH, strict=True)):
        law = scipy.stats.truncnorm(float(low), float(high))
        assert scipy.stats.kstest(t[:, i], law.cdf).pvalue > 1e-3, i
    correlation = np.corrcoef(t, rowvar=False)
    # Of independent numbers, 1 / sqrt(4,000) each.
    np.testing.assert_allclose(correlation, np.eye(6), atol=4 / 4_000**0.5)


def test_the_density_is_that_of_the_prior_over_its_share() -> None:
    share = np.prod(np.diff(scipy.stats.norm.cdf([LOW, HIGH]), axis=0))
    assert float(BOX.log_mass) == pytest.approx(np.log(share), abs=1e-4)
    theta = jax.vmap(BOX.sample)(jax.random.split(jax.random.key(0), 100))
    expected = jax.vmap(PRIOR.log_prob)(theta) - np.log(share)
    np.testing.assert_allclose(jax.vmap(BOX.log_prob)(theta), expected, atol=1e-4)
    outside = {**BOX.sample(jax.random.key(1)), "a": 2.1}  # z = 0.55
    assert BOX.log_prob(outside) == -jnp.inf
    assert not BOX.holds(outside)
    # By the change of variables, at any z.
    z = 0.5 * jax.random.normal(jax.random.key(2), (6,))
    value = BOX.log_prob(BOX.from_latent(z)) + BOX.log_abs_det_jacobian(z)
    assert float(value) == pytest.approx(float(BOX.latent_log_prob(z)), abs=1e-4)


@pytest.mark.parametrize("box", [BOX, whole(PRIOR)])
def test_coordinates_have_unit_scale_and_come_back(box) -> None:
    theta = jax.vmap(box.sample)(jax.random.split(jax.random.key(0), 4_000))
    z = jax.vmap(box.to_latent)(theta)
    # 4,000 draws have means within 1 / sqrt(4,000); 64 quantiles miss 1 % of a normal's variance.
    np.testing.assert_allclose(np.mean(z, 0), 0.0, atol=4 / 4_000**0.5)
    np.testing.assert_allclose(np.std(z, 0), 1.0, atol=0.05)
    back = jax.vmap(box.from_latent)(z)
    for name, value in theta.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-4, atol=1e-5)
    assert np.all(np.isfinite(jax.vmap(box.latent_log_prob)(z)))


def test_faces_belong_to_the_box_and_nothing_beyond() -> None:
    for corner in (LOW, HIGH):
        face = PRIOR.from_latent(corner)
        assert BOX.holds(face)
        assert jnp.isfinite(BOX.log_prob(face))
        beyond = PRIOR.from_latent(corner + jnp.where(corner == LOW, -1e-3, 1e-3))
        assert not BOX.holds(beyond)
        assert BOX.latent_log_prob(BOX.to_latent(beyond)) == -jnp.inf


def test_a_box_of_all_is_the_prior() -> None:
    theta = PRIOR.sample(jax.random.key(0))
    assert float(whole(PRIOR).log_mass) == pytest.approx(0.0, abs=1e-6)
    expected = float(PRIOR.log_prob(theta))
    assert float(whole(PRIOR).log_prob(theta)) == pytest.approx(expected, abs=1e-5)
    # Its coordinates are the prior's, within what 64 quantiles know of the scale.
    np.testing.assert_allclose(whole(PRIOR).mean, 0.0, atol=1e-5)
    np.testing.assert_allclose(whole(PRIOR).scale, 1.0, atol=0.02)


def test_the_law_of_some_parameters_is_cut_as_they_were() -> None:
    some = BOX.marginal("d", "b")
    assert some.names == ("d", "b")
    np.testing.assert_array_equal(some.low, LOW[jnp.array([5, 1, 2])])
    np.testing.assert_array_equal(some.high, HIGH[jnp.array([5, 1, 2])])
    theta = BOX.sample(jax.random.key(0))
    part = {name: theta[name] for name in some.names}
    expected = BOX.to_latent(theta)[jnp.array([5, 1, 2])]
    np.testing.assert_allclose(some.to_latent(part), expected, rtol=1e-5)


def test_a_part_mapped_by_its_support_cannot_be_cut() -> None:
    prior = jaxsbi.Prior(a=dist.Normal(), angle=dist.VonMises(0.0, 1.0))
    with pytest.raises(ValueError, match=r"\['angle'\] are mapped by their support"):
        whole(prior)


@pytest.mark.rank_promotion  # NumPyro's handlers
def test_its_parameters_are_sites_of_a_model() -> None:
    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
        theta = sample_sites(BOX)
    assert list(trace) == ["_normal", *PRIOR.names]
    assert BOX.holds(theta)
