"""Emulators of exact runs, and of outputs in other forms: logarithms, counts, waveforms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.networks import CosmoPower, flatten

FREQUENCY = jnp.linspace(1.0, 6.0, 60)
PRIOR = jaxsbi.Prior(mass=dist.Uniform(0.8, 1.2), ratio=dist.Uniform(-1.0, 1.0))
WAVES = jaxsbi.emulator(
    network=CosmoPower(hidden=(64,)),
    components=4,
    transform="amplitude_phase",
    exact=True,
    noise=jaxsbi.noise.whittle(np.full(60, 0.01), 0.5),
)


def chirp(key, theta):
    """A signal that sweeps through some ten radians, faster for a small mass."""
    x = theta["mass"] * FREQUENCY
    phase = 8.0 * (x ** (-5 / 3) - theta["mass"] ** (-5 / 3)) + theta["ratio"] * FREQUENCY
    amplitude = x ** (-7 / 6) * (1 + 0.2 * theta["ratio"] / FREQUENCY)
    return amplitude * jnp.exp(1j * phase)


def rows_of(simulator, prior, n, seed=1):
    return jaxsbi.simulate(jax.random.key(seed), prior, simulator, n, progress=False)


def fit(method, prior, rows, **options):
    return jaxsbi.fit(jax.random.key(2), method, prior, rows, progress=False, **options)


@pytest.fixture(scope="module")
def waves():
    return fit(WAVES, PRIOR, rows_of(chirp, PRIOR, 300), max_epochs=2_500)


@pytest.mark.slow
def test_waveforms_match(waves):
    test = rows_of(chirp, PRIOR, 500, seed=3)
    found = jax.vmap(lambda t: jaxsbi.emulate(waves, t))(test.theta)
    assert found.dtype == test.x.dtype == jnp.complex64

    def overlap(a, b):
        return np.abs(np.sum(a * np.conj(b), 1))

    match = overlap(found, test.x) / np.sqrt(overlap(found, found) * overlap(test.x, test.x))
    # A phase known to 0.02 rad.
    assert np.median(1 - match) < 2e-4
    assert np.quantile(1 - match, 0.95) < 5e-3
    # Amplitude and phase have four components each, and none of the other's numbers.
    basis = np.asarray(waves.posterior.variables["statistics"]["basis"])
    assert basis.shape == (8, 120)
    assert np.all(basis[:4, 60:] == 0)
    assert np.all(basis[4:, :60] == 0)


@pytest.mark.slow
@pytest.mark.rank_promotion  # inside NumPyro's law
def test_the_noise_of_waveforms_is_the_observations(waves):
    """log p(x | θ) of a complex series is Whittle's, with the emulated signal."""
    theta = {"mass": jnp.array(1.1), "ratio": jnp.array(0.2)}
    x = chirp(None, theta) + 0.1j
    signal = jaxsbi.emulate(waves, theta)
    variance = 0.01 / (2 * 0.5)
    expected = -np.sum(np.abs(x - signal) ** 2) / variance - 60 * np.log(np.pi * variance)
    z = PRIOR.to_latent(theta)
    found = WAVES.log_likelihood(waves.posterior.variables, PRIOR, z, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_loss_does_not_see_whole_turns():
    rows = rows_of(chirp, PRIOR, 40)
    variables = jax.jit(lambda k: WAVES.init(k, PRIOR, rows))(jax.random.key(0))
    loss = WAVES.loss(variables, PRIOR, jax.random.key(0), rows)
    phase = jnp.unwrap(jnp.angle(rows.x), axis=1)
    moved = jnp.abs(rows.x) * jnp.exp(1j * (phase + 2 * np.pi))
    turned = jaxsbi.Simulations(rows.theta, moved, rows.weight)
    np.testing.assert_allclose(
        WAVES.loss(variables, PRIOR, jax.random.key(0), turned), loss, rtol=1e-3
    )


def test_the_loss_is_the_squared_error_of_components():
    """By hand: the error of each component in units of its scatter, weighed by that scatter."""
    prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))
    rows = rows_of(lambda key, t: jnp.exp(t["a"] * jnp.arange(1.0, 5.0) + t["a"] ** 2), prior, 50)
    method = jaxsbi.emulator(network=CosmoPower(hidden=(4,)), transform="log", exact=True)
    variables = jax.jit(lambda k: method.init(k, prior, rows))(jax.random.key(0))
    stats = variables["statistics"]
    standard = (np.log(rows.x) - np.asarray(stats["mean"])) / np.asarray(stats["scale"])
    _, s, vt = np.linalg.svd(standard, full_matrices=False)
    scatter = np.maximum(s, 1e-3 * s[0]) / np.sqrt(50)
    z = jax.vmap(prior.to_latent)(rows.theta)
    found = jax.vmap(lambda z: method.outputs(variables, prior, z))(z)
    found = (np.asarray(found) - np.asarray(stats["mean"])) / np.asarray(stats["scale"])
    error = ((standard - found) @ vt.T) / scatter
    expected = (error**2 * scatter).sum(1) / scatter.sum()
    loss = method.loss(variables, prior, jax.random.key(0), rows)
    np.testing.assert_allclose(loss, expected, rtol=2e-2)


@pytest.mark.slow
@pytest.mark.rank_promotion  # inside NumPyro's kernel
def test_counts_around_exact_rates():
    """Rates exp(a t): the posterior of a is that of a Poisson regression, by quadrature."""
    times = jnp.linspace(0.0, 1.0, 20)
    prior = jaxsbi.Prior(a=dist.Normal(1.0, 1.0))

    def rates(key, theta):
        return jnp.exp(theta["a"] * times)

    method = jaxsbi.emulator(
        network=CosmoPower(hidden=(16,)),
        components=3,
        transform="log",
        exact=True,
        noise=jaxsbi.noise.poisson(),
    )
    posterior = fit(method, prior, rows_of(rates, prior, 200), max_epochs=800).posterior
    x = jax.random.poisson(jax.random.key(5), rates(None, {"a": 1.5})).astype(float)
    draws = np.asarray(posterior.sample(jax.random.key(6), x, 4_000)["a"])
    a = np.linspace(-3, 5, 4_001)
    density = -0.5 * (a - 1) ** 2 + a * np.sum(x * times) - np.exp(np.outer(a, times)).sum(1)
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    mean = np.sum(weight * a)
    width = np.sqrt(np.sum(weight * (a - mean) ** 2))
    # 4,000 draws, half of them effective, know the mean to 2 % of the width.
    assert abs(draws.mean() - mean) < 0.12 * width
    assert draws.std() == pytest.approx(width, rel=0.1)


def test_predictions_at_any_point_are_finite():
    """Gradients too, in single precision, for outputs over ten decades."""
    prior = jaxsbi.Prior(a=dist.LogUniform(1e-3, 1e3), b=dist.Normal(jnp.zeros(2), 1.0))

    def simulator(key, theta):
        return {"y": theta["a"] ** jnp.linspace(-1.5, 1.5, 5), "s": theta["b"].sum()}

    method = jaxsbi.emulator(network=CosmoPower(hidden=(8,)), transform={"y": "log"}, exact=True)
    rows = rows_of(simulator, prior, 60)
    variables = jax.jit(lambda k: method.init(k, prior, rows))(jax.random.key(0))

    def total(z):
        return flatten(jax.tree.map(jnp.log1p, method.predict(variables, prior, z)["y"])).sum()

    z = 5.0 * jax.random.normal(jax.random.key(1), (50, 3))
    for found in jax.vmap(jax.value_and_grad(total))(z):
        assert np.all(np.isfinite(found))


def test_bad_input():
    with pytest.raises(ValueError, match=r"no noise to learn from, got noise=estimated\(\)"):
        jaxsbi.emulator(exact=True, noise=jaxsbi.noise.estimated())
    with pytest.raises(ValueError, match="components >= 1, got 0"):
        jaxsbi.emulator(components=0)
    method = jaxsbi.emulator(transform="log", exact=True)
    rows = rows_of(lambda key, t: t["ratio"] * jnp.ones(3), PRIOR, 40)
    with pytest.raises(ValueError, match=r"x: transform 'log' needs positive numbers, got"):
        fit(method, PRIOR, rows)
