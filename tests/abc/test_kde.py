"""The joint kernel-density posterior, its density and its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import abc
from jaxsbi.abc.kde import BANDWIDTHS

PRIOR = jaxsbi.Prior(width=dist.LogNormal(0.0, 0.5), mean=dist.Normal(1.0, 2.0))


def draws(n=400):
    return jax.vmap(PRIOR.sample)(jax.random.split(jax.random.key(0), n))


def on_grid(ball, seed=0, **options):
    """Return the density that the estimate from 5,000 throws has on the grid."""
    throws = jaxsbi.simulate(
        jax.random.key(seed), ball.prior, ball.simulator, 5_000, progress=False
    )
    far = jnp.abs(throws.x - ball.x)
    estimate = abc.kde(ball.prior, throws.theta, distances=far, **options)
    angle = jnp.asarray(ball.grid[::10], jnp.float32)
    density = jnp.exp(jax.vmap(lambda angle: estimate.log_prob({"angle": angle}))(angle))
    return np.interp(ball.grid, ball.grid[::10], np.asarray(density)), estimate


@pytest.mark.parametrize(("width", "course"), [(0.3, 0.24), (0.09, 0.16)])
def test_total_variation_of_the_course(ball, width, course):
    """With a kernel as wide in the angle as the noise is there: 0.3 m over dx/dθ, 0.04 rad."""
    probe = on_grid(ball, width=width, bandwidth=1.0)[1]
    # From a width in radians to one in units of the draws': dz/dθ at the modes of a uniform prior.
    z = ball.prior.to_latent({"angle": jnp.array(0.6)})
    slope = jnp.exp(-ball.prior.log_abs_det_jacobian(z))
    options = {"width": width, "bandwidth": 0.04 * slope / probe.factor[0, 0, 0]}
    exact = ball.posterior()
    found = [ball.variation(on_grid(ball, seed, **options)[0], exact) for seed in range(5)]
    # The course ran it once, and gives two digits.
    assert abs(course - np.mean(found)) < 3 * np.std(found, ddof=1) + 0.005


def test_a_chosen_bandwidth_is_better_than_the_course_s(ball):
    density, estimate = on_grid(ball, width=0.09)
    assert ball.variation(density, ball.posterior()) < 0.12
    # Two modes want less than a rule for one would give, about 0.3 of the draws' own spread.
    weight = jnp.exp(estimate.log_weight)
    z = estimate.centre[:, 0]
    spread = jnp.sqrt(weight @ (z - weight @ z) ** 2)
    assert float(weight @ estimate.factor[:, 0, 0]) < 0.3 * float(spread)


def crescents(key, n):
    """Return draws `(n, 2)` from two bent modes, 0.05 across and 1 along, and 5 apart."""
    key_mode, key_angle, key_radius = jax.random.split(key, 3)
    side = jnp.where(jax.random.bernoulli(key_mode, 0.5, (n,)), 1.0, -1.0)
    angle = jax.random.uniform(key_angle, (n,), minval=-1.0, maxval=1.0)
    radius = 1.0 + 0.05 * jax.random.normal(key_radius, (n,))
    return jnp.stack([side * (1.5 + radius * jnp.cos(angle)), radius * jnp.sin(angle)], 1)


def test_kernels_have_the_shape_of_what_is_near():
    prior = jaxsbi.Prior(at=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    key_draws, key_fresh = jax.random.split(jax.random.key(1))
    kept, fresh = ({"at": crescents(key, n)} for key, n in ((key_draws, 300), (key_fresh, 1_000)))

    def log_prob(**options):
        return np.asarray(jax.vmap(abc.kde(prior, kept, **options).log_prob)(fresh))

    alike = max((log_prob(bandwidth=width) for width in BANDWIDTHS), key=np.mean)
    gain = log_prob() - alike
    assert gain.mean() > 3 * gain.std() / np.sqrt(gain.size)


@pytest.mark.parametrize("weights", [None, jnp.zeros(400).at[7].set(1.0)])
def test_draws_that_are_all_the_same_have_kernels_of_some_width_under_jit(weights):
    """There nothing can be refused, and one bad run must not spoil a batch with NaN."""
    same = {"width": jnp.ones(400), "mean": jnp.zeros(400)} if weights is None else draws()
    estimate = jax.jit(lambda same: abc.kde(PRIOR, same, weights=weights))(same)
    theta = jax.tree.map(lambda a: a[7], same)
    assert np.all(np.diagonal(estimate.factor, axis1=1, axis2=2) > 0)
    assert np.isfinite(estimate.log_prob(theta))
    for name, sampled in estimate.sample(jax.random.key(2), 100).items():
        np.testing.assert_allclose(sampled, theta[name], atol=1e-3)


def test_the_density_is_normalised():
    estimate = abc.kde(PRIOR, draws())
    wide = np.linspace(1e-3, 8.0, 400)
    means = np.linspace(-9.0, 11.0, 300)
    theta = {
        "width": jnp.asarray(np.repeat(wide, 300), jnp.float32),
        "mean": jnp.asarray(np.tile(means, 400), jnp.float32),
    }
    density = jnp.exp(jax.lax.map(estimate.log_prob, theta, batch_size=1_000))
    total = np.trapezoid(np.trapezoid(np.asarray(density).reshape(400, 300), means), wide)
    assert total == pytest.approx(1.0, abs=5e-3)
    outside = estimate.log_prob({"width": jnp.array(-1.0), "mean": jnp.array(0.0)})
    assert float(outside) == -np.inf


def test_draws_have_the_moments_of_the_mixture():
    weights = jnp.arange(400) / jnp.sum(jnp.arange(400))
    estimate = abc.kde(PRIOR, draws(), weights=weights)
    n = 20_000
    sampled = estimate.sample(jax.random.key(1), n)
    assert list(sampled) == ["width", "mean"]
    z = jax.vmap(PRIOR.to_latent)(sampled)
    mean = weights @ estimate.centre
    centred = estimate.centre - mean[None]
    kernels = jnp.einsum("n,nij,nkj->ik", weights, estimate.factor, estimate.factor)
    covariance = (weights[:, None] * centred).T @ centred + kernels
    deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(jnp.mean(z, 0) - mean) < 4 * deviation / np.sqrt(n))
    assert np.all(np.abs(jnp.std(z, 0) - deviation) < 4 * deviation / np.sqrt(2 * n))


def test_draws_are_in_no_order():
    # Draws of `abc.rejection` lie in an order, the nearest first.
    theta = {"width": jnp.linspace(1.0, 3.0, 1000), "mean": jnp.linspace(-2.0, 2.0, 1000)}
    sampled = abc.kde(PRIOR, theta).sample(jax.random.key(1), 1000)["mean"]
    # The correlation of independent numbers scatters by 1 / sqrt(n).
    assert abs(np.corrcoef(np.arange(1000), sampled)[0, 1]) < 4 / 1000**0.5


def test_weights_multiply():
    far = jnp.linspace(0.0, 2.0, 400)
    first = abc.kde(PRIOR, draws(), distances=far, width=0.5)
    second = abc.kde(PRIOR, draws(), weights=jnp.exp(-0.5 * (far / 0.5) ** 2))
    np.testing.assert_allclose(first.log_weight, second.log_weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distances": jnp.zeros(400)}, "distances and width together"),
        ({"width": 1.0}, "distances and width together"),
        ({"distances": jnp.zeros(3), "width": 1.0}, r"distances: expected shape \(400,\)"),
        ({"weights": jnp.zeros(3)}, r"weights: expected shape \(400,\)"),
        ({"weights": jnp.zeros(400)}, "some positive weights"),
        ({"weights": jnp.ones((400, 1))}, r"weights: expected shape \(400,\)"),
        ({"weights": jnp.ones(400).at[3].set(-0.5)}, r"weights: .* finite numbers >= 0, got -0\.5"),
        ({"weights": jnp.ones(400).at[3].set(jnp.nan)}, "weights: .* got nan at 3"),
        ({"weights": jnp.ones(400).at[3].set(jnp.inf)}, "weights: .* got inf at 3"),
        ({"weights": -jnp.ones(400)}, r"weights: .* 400 such in all"),
        ({"weights": jnp.zeros(400).at[7].set(1.0)}, "no spread .* worth 1 equally weighted"),
        ({"distances": jnp.full(400, jnp.nan), "width": 1.0}, "distances: .* got nan at 0"),
        ({"distances": jnp.arange(400.0), "width": 1e-3}, "no spread .* larger width"),
        ({"distances": jnp.zeros(400), "width": "wide"}, "width: expected a positive"),
        ({"bandwidth": jnp.ones(2)}, "bandwidth: expected a positive"),
        ({"bandwidth": 0.0}, "bandwidth: expected a positive"),
        ({"distances": jnp.zeros(400), "width": -1.0}, "width: expected a positive"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        abc.kde(PRIOR, draws(), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {name: v[:1] for name, v in a.items()}, r"no spread .*\[0, 1\] among 1 draws"),
        (lambda a: {name: v[:1].repeat(400) for name, v in a.items()}, r"no spread .*\[0, 1\]"),
        (lambda a: {**a, "mean": jnp.zeros(400)}, r"no spread in the latent coordinates \[1\]"),
        (lambda a: {**a, "width": -a["width"]}, "400 of 400 that are outside or not finite"),
        (lambda a: {**a, "mean": a["mean"].at[0].set(jnp.nan)}, "got 1 of 400"),
        (lambda a: {**a, "mean": a["mean"][:3]}, "draws: expected arrays of shapes"),
        (lambda a: {name: v[0] for name, v in a.items()}, "draws: expected arrays of shapes"),
        (lambda a: {name: v[:0] for name, v in a.items()}, "draws: expected arrays of shapes"),
        (lambda a: {"mean": a["mean"]}, "missing"),
    ],
)
def test_errors_of_draws(change, message):
    with pytest.raises(ValueError, match=message):
        abc.kde(PRIOR, change(draws()))


def test_distances_may_be_infinite_and_weights_counts():
    far = jnp.zeros(400).at[0].set(jnp.inf)
    estimate = abc.kde(PRIOR, draws(), distances=far, width=1.0)
    counts = abc.kde(PRIOR, draws(), weights=np.arange(400) > 0)
    np.testing.assert_allclose(estimate.log_weight, counts.log_weight)


def test_legacy_keys_are_refused():
    with pytest.raises(TypeError, match="typed key"):
        abc.kde(PRIOR, draws()).sample(jax.random.PRNGKey(0), 3)
