"""Normal scores: monotone, close to normal, and only where a number has heavy tails."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import jaxsbi
from jaxsbi.base import DataSpec
from jaxsbi.methods import conditional, conditional_log_prob
from jaxsbi.methods.features import init_context, read_context
from jaxsbi.methods.scores import (
    EDGE,
    HEAVY_LAW,
    NEIGHBOURS,
    fit_law_scores,
    fit_scores,
    gather,
    spread,
    tame,
)

N = 4_000


def heavy(key, power=1.5):
    """Log-normal draws, standardised: kurtosis in the hundreds."""
    x = jnp.exp(power * jax.random.normal(key, (N, 1)))
    return (x - jnp.mean(x)) / jnp.std(x)


def test_heavy_tails_become_normal(key):
    x = heavy(key)
    scores = fit_scores(x)
    score = jax.vmap(lambda row: tame(scores, row))(x)[:, 0]
    assert bool(scores["heavy"][0])
    # The 1e-4 critical value of the Kolmogorov-Smirnov statistic is 2.2 / sqrt(N).
    assert stats.kstest(np.asarray(score), "norm").statistic < 2.2 / np.sqrt(N)


def test_the_map_rises_and_stays_moderate_far_outside(key):
    scores = fit_scores(heavy(key))
    grid = jnp.concatenate([-jnp.logspace(6, -3, 200), jnp.logspace(-3, 6, 2_000)])[:, None]
    score = jax.vmap(lambda row: tame(scores, row))(grid)[:, 0]
    assert np.all(np.diff(score) > -1e-6)
    assert float(jnp.max(jnp.abs(score))) < EDGE + np.log1p(1e6 * float(scores["slope"].max()))
    slope = jax.vmap(jax.grad(lambda v: tame(scores, v[None])[0]))(grid[:, 0])
    assert np.all(np.isfinite(slope))


def test_other_numbers_keep_their_values(key):
    x = jax.random.normal(key, (N, 3)) * jnp.array([[1.0, 0.0, 1.0]])
    scores = fit_scores(x.at[:, 2].set(jnp.round(x[:, 2])))
    assert not np.any(scores["heavy"])
    row = jnp.array([0.3, 0.0, 9.0])
    np.testing.assert_allclose(tame(scores, row), [0.3, 0.0, 2 * EDGE], rtol=1e-6)


def test_rare_counts_have_one_score_each(key):
    x = jax.random.poisson(key, 0.02, (N, 1)).astype(float)
    x = (x - jnp.mean(x)) / jnp.std(x)
    scores = fit_scores(x)
    values = jnp.asarray(np.unique(x))
    score = jax.vmap(lambda v: tame(scores, v[None]))(values)[:, 0]
    assert bool(scores["heavy"][0])
    assert np.all(np.isfinite(score))
    assert np.all(np.diff(score) > 0)


def test_a_bit_that_is_hardly_ever_set_is_still_seen():
    x = jnp.zeros((N, 1)).at[7].set(1.0)
    scores = fit_scores((x - jnp.mean(x)) / jnp.std(x))
    assert float(tame(scores, jnp.array([60.0]))[0]) > float(tame(scores, jnp.zeros(1))[0]) + 1.0


@pytest.mark.parametrize("summary", [None, "fixed"])
def test_a_context_is_tame(key, summary):
    import flax.linen as nn

    class Reverse(nn.Module):
        def __call__(self, x):
            return x[::-1]

    key_heavy, key_light, key_init = jax.random.split(key, 3)
    x = jnp.concatenate([heavy(key_heavy), jax.random.normal(key_light, (N, 1))], 1)
    x = 100.0 + 50.0 * x
    module = None if summary is None else Reverse()
    stats, params, context = init_context(key_init, module, x)
    assert context.shape == (2,)
    rows = jax.vmap(lambda x: read_context(module, stats, params, x))(x)
    np.testing.assert_allclose(jnp.std(rows, 0), 1.0, atol=0.05)
    assert float(jnp.mean(rows**4)) < 4.0


def test_the_map_of_a_law_keeps_its_mass(key):
    """A normal density of the scores, times the slope, integrates to one over the numbers."""
    scores = fit_scores(heavy(key))
    # Equal steps of the logarithm: half of the mass lies within a thousandth of the range.
    half = jnp.logspace(-4.0, 7.0, 200_001)
    grid = jnp.concatenate([-half[::-1], half])
    y, log_slope = jax.vmap(lambda x: spread(scores, x[None]))(grid)
    density = jax.scipy.stats.norm.pdf(y[:, 0]) * jnp.exp(log_slope[:, 0])
    assert abs(float(jnp.trapezoid(density, grid)) - 1.0) < 2e-3
    assert bool(jnp.all(jnp.diff(y[:, 0]) > -1e-6))


def test_slopes_are_those_of_both_sides_at_a_knot(key):
    """A datum that is a quantile itself is one: half a slope would take 0.7 nat off its density."""
    x = heavy(key)
    scores = fit_scores(x)
    at = scores["knot"][0, 1:-1:4]
    log_slope = jax.vmap(lambda v: spread(scores, v[None])[1][0])
    for near in (0.9999 * at, 1.0001 * at):
        np.testing.assert_allclose(log_slope(at), log_slope(near), atol=0.2)


def test_the_map_of_a_law_leaves_light_tails_alone(key):
    x = jax.random.normal(key, (2_000, 2))
    y, log_slope = jax.vmap(lambda row: spread(fit_scores(x), row))(10.0 * x)
    np.testing.assert_array_equal(y, 10.0 * x)
    np.testing.assert_array_equal(log_slope, 0.0)


def test_numbers_come_back_from_their_scores(key):
    x = jnp.concatenate([heavy(key), jax.random.normal(jax.random.key(1), (N, 1))], 1)
    scores = fit_scores(x)
    rows = jnp.concatenate([x, 100.0 * x[:100]])  # and far outside
    back = jax.vmap(lambda row: gather(scores, spread(scores, row)[0]))(rows)
    # The widest space between two knots holds some thousand of the narrowest.
    np.testing.assert_allclose(back, rows, rtol=2e-3, atol=1e-5)


def of_law(key, theta, iid=False):
    """Return `nle`'s simulations of five laws at each theta, and which of them it learns by scores.

    All but the last are far from normal over theta; given theta the first two are normal.
    """
    shape = (*theta.shape, 4) if iid else theta.shape
    at = jnp.broadcast_to(theta.reshape(*theta.shape, *[1] * iid), shape)
    keys = jax.random.split(key, 5)
    noise = [jax.random.normal(k, shape) for k in keys[:4]]
    x = jnp.stack(
        [
            jnp.exp(1.5 * at) * noise[0],  # a width
            jnp.exp(2.0 * at) + noise[1],  # a mean
            jnp.exp(2.0 * at + 0.4 * noise[2]),  # growth
            at + jax.random.t(keys[4], 2.0, shape),  # outliers
            at + noise[3],
        ],
        -1,
    )
    prior = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
    method = jaxsbi.nle(density=jaxsbi.densities.Gaussian(hidden=8), iid=iid)
    rows = jaxsbi.from_arrays({"theta": theta}, x)
    kept = jax.jit(method.init)(key, prior, rows)["statistics"]
    return x, kept["continuous"]["heavy"].tolist()


@pytest.mark.parametrize("iid", [False, True])
def test_a_law_has_scores_where_they_tell_it_better_given_theta(key, iid):
    key_theta, key_x = jax.random.split(key)
    x, chosen = of_law(key_x, jax.random.normal(key_theta, (2_000,)), iid)
    assert chosen == [False, False, True, True, False]
    rows = np.asarray(x).reshape(-1, 5)
    assert np.all(stats.kurtosis(rows, fisher=False)[:4] > HEAVY_LAW)


def test_where_simulations_gather_scores_are_chosen_as_under_the_prior(key):
    """As in rounds: nine in ten within a tenth of the prior's width, where x[0] is narrow."""
    key_theta, key_x = jax.random.split(key)
    theta = jax.random.normal(key_theta, (2_000,))
    theta = theta.at[:1_800].set(-1.5 + 0.1 * theta[:1_800])
    x, chosen = of_law(key_x, theta)
    assert stats.kurtosis(x[:, 0], fisher=False) > HEAVY_LAW
    assert chosen[0] is chosen[1] is chosen[4] is False
    assert chosen[3] is True


@pytest.mark.parametrize("n", [NEIGHBOURS, 200, 5_000])
def test_copies_do_not_count(key, n):
    """`fit` fills its capacity with copies, which are no neighbours of one another."""
    key_z, *keys = jax.random.split(key, 4)
    z = jax.random.normal(key_z, (n, 1))
    noise = jax.random.normal(keys[0], (n, 1))
    tails = jax.random.t(keys[1], 1.0, (n, 1)), jnp.exp(2 * z + 0.4 * noise), jnp.exp(2 * z) * noise
    x = jnp.concatenate(tails, 1)
    x = (x - jnp.mean(x, 0)[None]) / jnp.std(x, 0)[None]
    index = np.arange(5 * n + n // 3) % n
    alone, copied = (fit_law_scores(*rows)["heavy"] for rows in ((x, z), (x[index], z[index])))
    assert alone.tolist() == copied.tolist() == ([n > NEIGHBOURS] * 2 + [False])


def test_too_few_simulations_for_neighbours_have_no_scores(key):
    theta = jnp.linspace(-1.0, 3.0, NEIGHBOURS)
    assert of_law(key, theta)[1] == [False] * 5


@pytest.mark.slow
def test_outliers_do_not_decide_a_learned_likelihood(key):
    """Three numbers with Cauchy noise of width 0.3: the exact posterior, by a grid."""
    key_theta, key_noise, key_fit, key_draw = jax.random.split(key, 4)
    prior = jaxsbi.Prior(mu=dist.Normal(0.0, 1.0))
    theta = jax.random.normal(key_theta, (2_000,))
    x = theta[:, None] + 0.3 * jax.random.cauchy(key_noise, (2_000, 3))
    simulations = jaxsbi.from_arrays({"mu": theta}, x)
    posterior = jaxsbi.fit(key_fit, jaxsbi.nle(), prior, simulations, progress=False).posterior
    grid = jnp.linspace(-4.0, 4.0, 2_001)
    observations = ([-0.6, -1.0, -0.7], [1.5, 1.2, 1.4], [0.5, 0.4, 30.0])
    for observed, key_one in zip(observations, jax.random.split(key_draw, 3), strict=True):
        at = jnp.array(observed)
        gap = (at[None] - grid[:, None]) / 0.3
        weight = jax.nn.softmax(-0.5 * grid**2 - jnp.sum(jnp.log1p(gap**2), 1))
        mean = jnp.sum(weight * grid)
        width = jnp.sqrt(jnp.sum(weight * (grid - mean) ** 2))
        draws = posterior.sample(key_one, at, 2_000)["mu"]
        # Over five keys the errors of the mean have a standard deviation of 0.34 widths, and the
        # ratio of the widths is 1.44 +- 0.28: four of them are allowed. Without scores it learned
        # nothing: means 5 to 8 widths away, 4 times as wide.
        assert abs(float(jnp.mean(draws) - mean)) < 1.4 * float(width)
        assert float(jnp.std(draws)) < 2.6 * float(width)


def test_untrained_draws_of_heavy_tails_have_the_law_of_the_simulations(key):
    """An untrained field is a standard normal, of normal scores where x has heavy tails."""
    key_x, key_theta, key_init, key_draw = jax.random.split(key, 4)
    network = jaxsbi.fields.JointTransformer(width=24, layers=2, heads=2)
    # An untrained field is zero: one step is exact, and compiles fast.
    solver = jaxsbi.fields.ode(solver="euler", steps=2, density_steps=2)
    method = jaxsbi.joint(network=network, sampler=solver)
    prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))
    x = {"size": jnp.exp(2.0 * jax.random.normal(key_x, (N,))), "count": jnp.zeros(N, int)}
    rows = jaxsbi.from_arrays({"a": jax.random.normal(key_theta, (N,))}, x)
    variables = method.init(key_init, prior, rows)
    posterior = jaxsbi.Posterior(variables, prior, method, DataSpec.of(x, batched=True))
    draws = conditional(key_draw, posterior, {}, N)["x"]["size"]
    # The 1e-4 critical value of two samples of this size is 2.2 sqrt(2 / n).
    assert stats.ks_2samp(draws, x["size"]).statistic < 2.2 * np.sqrt(2.0 / N)
    grid = jnp.exp(jnp.linspace(-5.0, 5.0, 41))
    data = {"size": grid, "count": jnp.zeros(41, int)}
    only = {"size": jnp.array(True), "count": jnp.array(False)}
    density = jax.vmap(lambda x: conditional_log_prob(posterior, {"x": x}, {}, observed=only))(data)
    exact_density = stats.norm.logpdf(np.log(grid), scale=2.0) - np.log(grid)
    # Slopes between knots that are quantiles of four thousand draws.
    np.testing.assert_allclose(density, exact_density, atol=0.4)
    del variables["statistics"]["numbers"]  # as saved before there were scores
    plain = conditional_log_prob(
        posterior, {"x": jax.tree.map(lambda a: a[20], data)}, {}, observed=only
    )
    scale = variables["statistics"]["scale"]["size"]
    u = (1.0 - variables["statistics"]["mean"]["size"]) / scale
    np.testing.assert_allclose(plain, stats.norm.logpdf(u) - np.log(scale), rtol=1e-3)
