"""NLE on booleans, counts and mixed data, against conjugate posteriors and quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi import densities

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel

CHANCE = jaxsbi.Prior(chance=dist.Beta(2.0, 3.0))
RATE = jaxsbi.Prior(rate=dist.Gamma(3.0, 0.5))
EFFECT = jaxsbi.Prior(effect=dist.Normal(0.0, 1.0))


def flips(key, theta):
    return jax.random.bernoulli(key, theta["chance"], (6,))


def counts(key, theta):
    return jax.random.poisson(key, theta["rate"], (3,))


def spike_and_value(key, theta):
    key_spike, key_value = jax.random.split(key)
    spike = jax.random.bernoulli(key_spike, jax.nn.sigmoid(2.0 * theta["effect"]))
    value = theta["effect"] + spike + 0.5 * jax.random.normal(key_value)
    return {"spike": spike, "value": value}


def fitted(method, prior, simulator, n=4_000, **options):
    simulations = jaxsbi.simulate(jax.random.key(1), prior, simulator, n, progress=False)
    options = {"max_epochs": 20, "progress": False, **options}
    return jaxsbi.fit(jax.random.key(2), method, prior, simulations, **options).posterior


def distance(posterior, name, grid, x, exact):
    """Return the total variation between the learned posterior and an exact density on a grid."""
    value = jax.vmap(lambda t: posterior.log_prob({name: t}, x))(jnp.asarray(grid, jnp.float32))
    density = np.exp(np.asarray(value - value.max(), float))
    return 0.5 * np.abs(density / density.sum() - exact / exact.sum()).sum()


@functools.cache
def coin():
    return fitted(jaxsbi.nle(), CHANCE, flips)


def test_booleans_give_the_beta_posterior():
    posterior = coin()
    assert posterior.data.leaves[0][2] == "bool"
    grid = np.linspace(0.005, 0.995, 199)
    for hits in (0, 2, 5):
        x = jnp.arange(6) < hits
        exact = scipy.stats.beta.pdf(grid, 2 + hits, 9 - hits)
        # Six regressions from 4,000 simulations: each log-odds to about 0.07.
        assert distance(posterior, "chance", grid, x, exact) < 0.08
    # Normalised over all data sets, in float32.
    everything = jnp.asarray([[i >> j & 1 for j in range(6)] for i in range(64)], bool)
    theta = {"chance": jnp.array(0.3)}
    total = jax.vmap(lambda x: posterior.log_prob(theta, x) - CHANCE.log_prob(theta))(everything)
    assert float(jnp.exp(total).sum()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
def test_draws_for_many_observations_follow_the_beta_posterior():
    posterior = coin()
    xs = jnp.arange(6)[None] < jnp.array([1, 4])[:, None]
    keys = jax.random.split(jax.random.key(3), 2)
    draws = jax.vmap(lambda k, x: posterior.sample(k, x, 2_000))(keys, xs)["chance"]
    for row, hits in zip(draws, (1, 4), strict=True):
        exact = scipy.stats.beta(2 + hits, 9 - hits)
        assert abs(float(row.mean()) - exact.mean()) < 0.15 * exact.std()
        assert float(row.std()) == pytest.approx(exact.std(), rel=0.1)


@pytest.mark.slow
def test_counts_give_the_gamma_posterior():
    posterior = fitted(jaxsbi.nle(), RATE, counts, max_epochs=60)
    grid = np.linspace(0.1, 25.0, 250)
    for x in ([0, 1, 0], [4, 6, 5], [9, 14, 12]):
        exact = scipy.stats.gamma.pdf(grid, 3 + sum(x), scale=1 / 3.5)
        assert distance(posterior, "rate", grid, jnp.array(x), exact) < 0.1


@pytest.mark.slow
def test_binomial_counts_give_the_beta_posterior():
    method = jaxsbi.nle(density=densities.MaskedBinomial(total=20))
    posterior = fitted(
        method,
        CHANCE,
        lambda key, theta: flips_of(key, theta).astype(jnp.uint8),
    )
    grid = np.linspace(0.005, 0.995, 199)
    for x in ([3, 2], [10, 12]):
        exact = scipy.stats.beta.pdf(grid, 2 + sum(x), 43 - sum(x))
        assert distance(posterior, "chance", grid, jnp.array(x, jnp.uint8), exact) < 0.1


def flips_of(key, theta):
    return jnp.sum(jax.random.bernoulli(key, theta["chance"], (2, 20)), 1)


@pytest.mark.slow
def test_mixed_data_against_quadrature():
    posterior = fitted(jaxsbi.nle(), EFFECT, spike_and_value, max_epochs=40)
    grid = np.linspace(-4.0, 4.0, 321)
    for spike, value in ((True, 1.5), (False, 0.5), (False, -1.0)):
        chance = 1 / (1 + np.exp(-2 * grid))
        exact = scipy.stats.norm.pdf(grid) * (chance if spike else 1 - chance)
        exact = exact * scipy.stats.norm.pdf(value, grid + spike, 0.5)
        x = {"spike": jnp.array(spike), "value": jnp.array(value)}
        assert distance(posterior, "effect", grid, x, exact) < 0.08


def test_a_density_for_what_the_data_do_not_have():
    simulations = jaxsbi.simulate(jax.random.key(1), CHANCE, flips, 20, progress=False)
    for density in (densities.MaskedBinomial(total=6), densities.MaskedAutoregressive(layers=2)):
        with pytest.raises(TypeError, match=r"nle: Masked.* and x has none, only {'binary': 6}"):
            jaxsbi.nle(density=density).init(jax.random.key(0), CHANCE, simulations)


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (densities.MaskedBinomial(total=8), r"numbers 0 … 8 with total=8, got x with 0 … 10\."),
        (densities.MaskedCategorical(classes=10), r"0 … 9 with classes=10, got x with 0 … 10\."),
    ],
)
def test_a_declared_range_smaller_than_the_datas(density, message):
    chance = {"chance": jnp.linspace(0.1, 0.9, 22)}
    counts = jnp.arange(22)[:, None] % 11
    rows = jaxsbi.Simulations(chance, counts, jnp.ones(22))
    with pytest.raises(ValueError, match=message):
        jaxsbi.fit(jax.random.key(1), jaxsbi.nle(density=density), CHANCE, rows, progress=False)
    jaxsbi.nle(density=densities.MaskedBinomial(total=10)).check(rows)
    # A row without weight is not seen.
    some = jaxsbi.Simulations(chance, counts, jnp.float32(counts[:, 0] < 8))
    jaxsbi.nle(density=density).check(some)


def test_floats_that_often_are_the_same_are_warned_of():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=200)
    # Counts of 3 and of 1,000, normal and clipped numbers, a constant.
    columns = [rng.poisson(3.0, 200), rng.poisson(1e3, 200), normal, np.maximum(normal, 0.0)]
    x = np.stack([*columns, np.full(200, 2.0)], 1).astype(np.float32)
    rows = jaxsbi.Simulations({"rate": jnp.ones(200)}, {"counts": x}, jnp.ones(200))
    with pytest.warns(UserWarning, match=r"x\['counts'\]: 2 of 5 floats are one.*astype\(int\)"):
        jaxsbi.nle().check(rows)
    for few in (0, 1, 4):
        jaxsbi.nle().check(rows[:few])


def test_counts_that_would_wrap_are_refused():
    x = np.array([2, 3_000_000_000] * 20, np.uint32)[:, None]
    rows = jaxsbi.Simulations({"rate": jnp.ones(40)}, x, jnp.ones(40))
    with pytest.raises(ValueError, match=r"as int32 holds, got 3000000000\. Return"):
        jaxsbi.nle().check(rows)


def test_a_density_takes_its_place():
    flow, bits = densities.SplineAutoregressive(), densities.MaskedBernoulli(hidden=8)
    assert jaxsbi.nle(density=flow).density == densities.Mixed(continuous=flow)
    assert jaxsbi.nle(density=bits).density == densities.Mixed(binary=bits)
    assert jaxsbi.nle(density=densities.Mixed()) == jaxsbi.nle()


def bits_and_count(key, theta):
    key_bits, key_count = jax.random.split(key)
    bits = jax.random.bernoulli(key_bits, theta["chance"], (3,))
    return {"bits": bits, "count": jax.random.binomial(key_count, 9, theta["chance"]).astype(int)}


OTHER_ROADS = {
    "npe": lambda: jaxsbi.npe(density=densities.Gaussian(hidden=8)),
    "emulator": lambda: jaxsbi.emulator(
        network=jaxsbi.networks.MLP(8), sampler=jaxsbi.samplers.nuts(chains=4, warmup=20)
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:MCMC")  # chains this short do not converge
@pytest.mark.parametrize("name", OTHER_ROADS)
def test_other_roads_read_booleans_and_counts_as_numbers(name):
    posterior = fitted(OTHER_ROADS[name](), CHANCE, bits_and_count, 1_000, max_epochs=10)
    low, high = (
        posterior.sample(
            jax.random.key(3),
            {"bits": jnp.full(3, count > 4), "count": jnp.array(count)},
            200,
        )["chance"]
        for count in (0, 9)
    )
    assert np.isfinite(low).all()
    assert float(low.mean()) < 0.35 < float(high.mean())
    with pytest.raises(TypeError, match=r"expected dtype int32, got float32.*x.astype\('int32'\)"):
        posterior.sample(
            jax.random.key(4), {"bits": jnp.ones(3, bool), "count": jnp.array(4.0)}, 10
        )
