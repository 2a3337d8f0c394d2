"""The NumPyro model of an emulator against exact posteriors, alone and within larger models."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density

import jaxsbi
from jaxsbi.sequential.rounds import unmoved

# A linear Gaussian problem; the emulator's network has a linear path beside it.
PRIOR = jaxsbi.Prior(slope=dist.Normal(0.0, 1.0), offset=dist.Normal(0.0, 1.0))
TIMES = jnp.linspace(-1.0, 1.0, 8)
DESIGN = np.stack([TIMES, np.ones(8)], 1)
SIGMA = 0.4
NOISE = jaxsbi.noise.gaussian(SIGMA**2 * jnp.ones(8))
THETA = {"slope": jnp.array(0.8), "offset": jnp.array(-0.5)}


def line(key, theta):
    return theta["slope"] * TIMES + theta["offset"]


def train(prior, ensemble=None, noise=NOISE):
    rows = jaxsbi.simulate(jax.random.key(0), prior, line, 200, progress=False)
    method = jaxsbi.emulator(network=jaxsbi.networks.MLP(8), components=2, exact=True, noise=noise)
    return jaxsbi.fit(
        jax.random.key(1), method, prior, rows, max_epochs=3_000, ensemble=ensemble, progress=False
    )


@pytest.fixture(scope="module")
def fitted():
    return train(PRIOR)


@pytest.fixture(scope="module")
def x():
    noise = SIGMA * np.random.default_rng(3).normal(size=8)
    return jnp.asarray(DESIGN @ [0.8, -0.5] + noise, jnp.float32)


def exact(design, x, prior=None):
    """Return mean and covariance of (slope, offset)."""
    prior = np.eye(2) if prior is None else prior
    covariance = np.linalg.inv(design.T @ design / SIGMA**2 + prior)
    return covariance @ design.T @ np.asarray(x) / SIGMA**2, covariance


def run(model, *args, n=2_000):
    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=n, progress_bar=False)
    mcmc.run(jax.random.key(2), *args)
    return mcmc.get_samples()


def compare(draws, mean, covariance):
    values = np.stack([draws["slope"], draws["offset"]])
    width = np.sqrt(np.diag(covariance))
    # 2,000 draws of NUTS, some 1,000 of them effective: 3 % of a width, and 3 % of the width; the
    # emulator's own error is below that.
    assert np.all(np.abs(values.mean(1) - mean) < 0.15 * width)
    np.testing.assert_allclose(values.std(1), width, rtol=0.12)


def test_the_density_is_the_posteriors(fitted, x):
    """Joint density of the model and log_prob of the posterior: the same, constant included."""
    model = jaxsbi.emulator_model(fitted)
    joint, trace = log_density(model, (x,), {}, THETA)
    np.testing.assert_allclose(joint, fitted.posterior.log_prob(THETA, x), rtol=1e-5)
    assert list(trace) == ["slope", "offset", "obs"]
    assert trace["obs"]["is_observed"]


@pytest.mark.slow
@pytest.mark.rank_promotion  # inside NumPyro's kernel
@pytest.mark.key_reuse  # inside NumPyro
def test_nuts_draws_the_exact_posterior(fitted, x):
    compare(run(jaxsbi.emulator_model(fitted), x), *exact(DESIGN, x))
    compare(fitted.posterior.sample(jax.random.key(3), x, 2_000), *exact(DESIGN, x))


@pytest.mark.slow
@pytest.mark.rank_promotion
@pytest.mark.key_reuse
def test_observed_through_a_window_with_a_nuisance(fitted, x):
    """Two bins of four numbers each, and a shift of both with a prior of its own."""
    window = np.kron(np.eye(2), np.ones(4) / 4).astype(np.float32)
    variance = SIGMA**2 / 4

    def observe(mean):
        shift = numpyro.sample("shift", dist.Normal(0.0, 0.5))
        return window @ mean + shift

    model = jaxsbi.emulator_model(
        fitted, observe=observe, noise=jaxsbi.noise.gaussian(variance * jnp.ones(2))
    )
    draws = run(model, window @ x)
    design = np.concatenate([window @ DESIGN, np.ones((2, 1))], 1)
    precision = design.T @ design / variance + np.diag([1.0, 1.0, 4.0])
    covariance = np.linalg.inv(precision)
    mean = covariance @ design.T @ np.asarray(window @ x) / variance
    compare(draws, mean[:2], covariance[:2, :2])
    np.testing.assert_allclose(draws["shift"].std(), np.sqrt(covariance[2, 2]), rtol=0.12)


@pytest.mark.slow
@pytest.mark.rank_promotion
@pytest.mark.key_reuse
def test_a_hierarchy_in_a_plate(fitted):
    """Twenty lines, whose slopes have an unknown common mean."""
    slopes = 1.0 + 0.3 * np.random.default_rng(4).normal(size=20)
    xs = slopes[:, None] * TIMES + SIGMA * np.random.default_rng(5).normal(size=(20, 8))
    model = jaxsbi.emulator_model(fitted)

    def hierarchy(xs):
        centre = numpyro.sample("centre", dist.Normal(0.0, 2.0))
        with numpyro.plate("lines", len(xs)):
            theta = {
                "slope": numpyro.sample("slope", dist.Normal(centre, 0.3)),
                "offset": numpyro.sample("offset", dist.Normal(0.0, 1.0)),
            }
            model(xs, theta)

    draws = run(hierarchy, jnp.asarray(xs, jnp.float32), n=1_000)
    assert draws["slope"].shape == (1_000, 20)
    # TIMES has mean 0: a slope's own estimate has variance σ² / Σt², around the centre 0.3² more.
    variance = SIGMA**2 / np.sum(TIMES**2) + 0.3**2
    estimate = xs @ TIMES / np.sum(TIMES**2)
    precision = 20 / variance + 1 / 4
    np.testing.assert_allclose(
        draws["centre"].mean(), estimate.sum() / variance / precision, atol=0.2 * precision**-0.5
    )
    np.testing.assert_allclose(draws["centre"].std(), precision**-0.5, rtol=0.15)


def test_in_a_plate_the_sites_have_its_axes(fitted):
    model = jaxsbi.emulator_model(fitted)

    def many(xs=None):
        with numpyro.plate("lines", 3):
            return model(xs)

    drawn = Predictive(many, num_samples=5)(jax.random.key(0))
    assert (drawn["slope"].shape, drawn["obs"].shape) == ((5, 3), (5, 3, 8))
    xs = drawn["obs"][0]
    theta = {name: drawn[name][0] for name in PRIOR.names}
    joint, _ = log_density(many, (xs,), {}, theta)
    each = [fitted.posterior.log_prob({n: a[i] for n, a in theta.items()}, xs[i]) for i in range(3)]
    np.testing.assert_allclose(joint, np.sum(each), rtol=1e-5)


def test_what_is_not_observed_is_drawn(fitted):
    drawn = Predictive(jaxsbi.emulator_model(fitted), num_samples=4_000)(jax.random.key(0))
    # Prior predictive: variance t² + 1 + σ² of each number, known to 2.2 %.
    expected = np.asarray(TIMES) ** 2 + 1 + SIGMA**2
    np.testing.assert_allclose(drawn["obs"].var(0), expected, rtol=0.12)


def hyper():
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("offset", dist.Normal(slope, 1.0))


def test_a_prior_that_is_a_model_itself(x):
    fitted = train(jaxsbi.Prior(hyper), ensemble=2)
    joint, trace = log_density(jaxsbi.emulator_model(fitted), (x,), {}, THETA)
    assert list(trace) == ["slope", "offset", "obs"]
    mean = jaxsbi.emulate(fitted, THETA)
    expected = (
        dist.Normal().log_prob(0.8)
        + dist.Normal(0.8, 1.0).log_prob(-0.5)
        + dist.Normal(mean, SIGMA).log_prob(x).sum()
    )
    np.testing.assert_allclose(joint, expected, rtol=1e-5)


def test_what_rounds_have_trained_is_a_model_too(x):
    fitted = train(unmoved(PRIOR))
    joint, trace = log_density(jaxsbi.emulator_model(fitted), (x,), {}, THETA)
    assert list(trace) == ["slope", "offset", "obs"]
    mean = jaxsbi.emulate(fitted, THETA)
    expected = PRIOR.log_prob(THETA) + dist.Normal(mean, SIGMA).log_prob(x).sum()
    np.testing.assert_allclose(joint, expected, rtol=1e-5)


def test_another_prior_is_the_models(fitted, x):
    new = jaxsbi.Prior(slope=dist.Normal(1.0, 0.1), offset=dist.Normal(0.0, 0.1))
    moved = fitted.posterior.with_prior(new)
    joint, _ = log_density(jaxsbi.emulator_model(moved), (x,), {}, THETA)
    np.testing.assert_allclose(joint, moved.log_prob(THETA, x), rtol=1e-5)


def negative(mean):
    return -(1.0 + mean**2)


def test_a_covariance_of_the_prediction_is_looked_at_once(fitted, x):
    bad = jaxsbi.noise.gaussian_of(negative)
    message = "gaussian_of: expected a positive definite covariance"
    with pytest.raises(ValueError, match=message):
        jaxsbi.emulator_model(fitted, noise=bad)
    with pytest.raises(ValueError, match=message):
        jaxsbi.emulator_model(fitted, noise=bad, observe=lambda mean: mean[:2])
    # What has sites of its own is not tried, and no site of it reaches a model around.
    shifted = lambda mean: mean + numpyro.sample("shift", dist.Normal())  # noqa: E731
    with numpyro.handlers.trace() as sites:
        jaxsbi.emulator_model(fitted, noise=bad, observe=shifted)
    assert not sites
    # Nor is anything under jit, where the values are not known.
    good = jaxsbi.noise.gaussian_of(lambda mean: SIGMA**2 + 0.0 * mean)

    @jax.jit
    def joint(posterior):
        return log_density(jaxsbi.emulator_model(posterior, noise=good), (x,), {}, THETA)[0]

    expected, _ = log_density(jaxsbi.emulator_model(fitted), (x,), {}, THETA)
    np.testing.assert_allclose(joint(fitted.posterior), expected, rtol=1e-5)


@pytest.mark.rank_promotion
@pytest.mark.key_reuse
def test_draws_outside_the_range_are_found_after_the_run(fitted):
    """A law of one's own that is far from the training prior, and another site beside it."""
    model = jaxsbi.emulator_model(fitted)

    def far(x):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        slope = numpyro.sample("slope", dist.Normal(20.0, 1.0 + scale))
        offset = numpyro.sample("offset", dist.Normal(0.0, 0.1))
        model(x, {"slope": slope, "offset": offset})

    mcmc = MCMC(NUTS(far), num_warmup=50, num_samples=50, progress_bar=False)
    mcmc.run(jax.random.key(2), 20.0 * TIMES)
    with pytest.warns(UserWarning, match=r"emulator: asked outside .*slope in 100%"):
        beyond = jaxsbi.emulators.check_range(fitted, mcmc.get_samples())
    assert beyond["slope"] > 1
    assert beyond["offset"] == 0
    with pytest.raises(ValueError, match=r"expected also \['offset'\], got only \['slope'\]"):
        jaxsbi.emulators.check_range(fitted, {"slope": jnp.ones(3)})


def test_arrays_of_equal_size_are_no_other_data():
    """Flattened in the order of the names, numbers would be compared with others' predictions."""

    def pair(key, theta):
        return {"u": theta["slope"] * jnp.ones(6), "v": theta["offset"] * jnp.ones(3)}

    rows = jaxsbi.simulate(jax.random.key(0), PRIOR, pair, 40, progress=False)
    method = jaxsbi.emulator(components=2, exact=True, noise=jaxsbi.noise.gaussian(jnp.ones(9)))
    fitted = jaxsbi.fit(jax.random.key(1), method, PRIOR, rows, max_epochs=1, progress=False)
    model = jaxsbi.emulator_model(fitted)
    data = {"u": jnp.ones(6), "v": jnp.ones(3)}
    assert np.isfinite(log_density(model, (data,), {}, THETA)[0])
    for wrong in ({"w": jnp.ones(3), "u": jnp.ones(6)}, jnp.ones(9), {"u": 1.0, "v": jnp.ones(8)}):
        with pytest.raises(ValueError, match=r"\['u'\]: float32\[6\], \['v'\]: .*got "):
            log_density(model, (wrong,), {}, THETA)


def test_bad_input(fitted, x):
    model = jaxsbi.emulator_model(fitted)
    for wrong in (x[:3], {"line": x}, x[None], x + 0j):
        with pytest.raises(ValueError, match=r"expected x as .*float32\[8\] .*got .*`observe`"):
            log_density(model, (wrong,), {}, THETA)
    with pytest.raises(ValueError, match="x: expected finite data, got NaN"):
        log_density(model, (x.at[2].set(jnp.nan),), {}, THETA)
    with pytest.raises(ValueError, match=r"expected theta of .*got {'slope': \(\)}"):
        model(x, {"slope": 1.0})
    for noise, message in (
        (jaxsbi.noise.gaussian(jnp.ones(3)), r"data of 8 numbers, got one of 3"),
        (jaxsbi.noise.estimated(), "expected noise of a known law"),
    ):
        with pytest.raises(ValueError, match=message):
            jaxsbi.emulator_model(fitted, noise=noise)(x, THETA)
    with pytest.raises(TypeError, match="got str"):
        jaxsbi.emulator_model("fitted")
    bare = train(PRIOR, noise=None)
    with pytest.raises(ValueError, match="expected a noise model, got an emulator without one"):
        jaxsbi.emulator_model(bare)
    with pytest.raises(ValueError, match="expected a noise model of the observation"):
        bare.posterior.sample(jax.random.key(0), x, 5)
    assert jaxsbi.emulator_model(bare, noise=NOISE) is not None
