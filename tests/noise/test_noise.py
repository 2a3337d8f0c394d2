"""Noise models against SciPy, goodness of fit, and what they refuse."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi import noise
from jaxsbi.networks import MLP, flatten

COVARIANCE = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 1.0]])
MEAN = jnp.array([1.0, 2.0, 3.0])
X = MEAN + jnp.array([0.5, -1.0, 2.0])
SCALE = jnp.array([1.0, 3.0, 0.5])
Z = jnp.array([0.3, -0.7])
KEY = jax.random.key(0)
PSD = {"a": np.array([4.0, 1.0]), "b": np.array([0.5])}
SERIES = {"a": jnp.array([1.0 + 2.0j, -0.5j]), "b": jnp.array([0.3 + 0.1j])}


def law(model, mean=MEAN, scale=SCALE, params=None):
    scale = jnp.ones(flatten(mean).shape) if scale is None else scale
    params = model.init(KEY, scale, Z.size) if params is None else params
    return model.distribution(params, mean, scale, Z)


class Entry(NamedTuple):
    """A noise model, a prediction, and the same law of SciPy's for each number or all.

    Attributes:
        model: The noise model.
        exact: From a data vector to its log-density.
        mean: The prediction.
    """

    model: Any
    exact: Any
    mean: Any = MEAN


def hartlap(x):
    # 20 simulations of 3 numbers: the inverse covariance times (20 - 3 - 2) / 19.
    return scipy.stats.multivariate_normal(MEAN, COVARIANCE * 19 / 15).logpdf(x)


def sellentin_heavens(x):
    return scipy.stats.multivariate_t(MEAN, COVARIANCE * 19 / 17, df=17).logpdf(x)


def whittle(x):
    # The transform of stationary noise: E|n|² = S / (2 Δf), half in each part.
    s = np.array([4.0, 1.0, 4.0, 1.0, 0.5, 0.5]) / (4 * 0.25)
    return scipy.stats.norm(flatten(SERIES), np.sqrt(s)).logpdf(x).sum()


REGISTRY = {
    "gaussian": Entry(
        noise.gaussian(COVARIANCE), scipy.stats.multivariate_normal(MEAN, COVARIANCE).logpdf
    ),
    "gaussian of variances": Entry(
        noise.gaussian([2.0, 0.5, 1.0]),
        lambda x: scipy.stats.norm(MEAN, np.sqrt([2.0, 0.5, 1.0])).logpdf(x).sum(),
    ),
    "gaussian of simulations": Entry(noise.gaussian(COVARIANCE, simulations=20), hartlap),
    "gaussian_of variances": Entry(
        noise.gaussian_of(lambda mean: 2.0 * mean**2 / 50.0),
        lambda x: scipy.stats.norm(MEAN, np.sqrt(2.0 / 50.0) * MEAN).logpdf(x).sum(),
    ),
    "gaussian_of": Entry(
        noise.gaussian_of(lambda mean: jnp.outer(mean, mean) + jnp.eye(3)),
        scipy.stats.multivariate_normal(MEAN, np.outer(MEAN, MEAN) + np.eye(3)).logpdf,
    ),
    "student_t": Entry(noise.student_t(COVARIANCE, 20), sellentin_heavens),
    "estimated": Entry(noise.estimated(), lambda x: scipy.stats.norm(MEAN, SCALE).logpdf(x).sum()),
    "estimated by a network": Entry(
        noise.estimated(MLP(4)), lambda x: scipy.stats.norm(MEAN, SCALE).logpdf(x).sum()
    ),
    "poisson": Entry(noise.poisson(), lambda x: scipy.stats.poisson(MEAN).logpmf(x).sum()),
    "periodogram": Entry(
        noise.periodogram(), lambda x: scipy.stats.expon(scale=MEAN).logpdf(x).sum()
    ),
    "periodogram of several": Entry(
        noise.periodogram(5), lambda x: scipy.stats.gamma(5, scale=MEAN / 5).logpdf(x).sum()
    ),
    "whittle": Entry(noise.whittle(PSD, 0.25), whittle, SERIES),
}


def entry_law(name):
    entry = REGISTRY[name]
    return law(entry.model, entry.mean, SCALE if entry.mean is MEAN else None)


def test_every_noise_model_is_here():
    made = {type(entry.model).__name__ for entry in REGISTRY.values()}
    public = {name for name in noise.__all__ if name.endswith("Noise")} - {"Noise"}
    assert made == public


@pytest.mark.parametrize("name", REGISTRY)
def test_the_density_is_scipys(name, x64):
    entry = REGISTRY[name]
    x = np.round(np.abs(flatten(entry.mean) + 0.7))
    # The models were made in single precision.
    np.testing.assert_allclose(noise.log_prob(entry_law(name), x), entry.exact(x), rtol=3e-6)


@pytest.mark.parametrize("name", REGISTRY)
def test_draws_follow_the_density(name):
    """The density of draws has the moments that SciPy's law gives it, or its own draws do."""
    d = entry_law(name)
    draws = jax.vmap(d.sample)(jax.random.split(jax.random.key(1), 20_000))
    assert draws.shape == (20_000, *d.event_shape)
    # The mean is the prediction, each to 5 of its standard errors.
    error = np.std(draws, 0) / np.sqrt(len(draws))
    mean = flatten(REGISTRY[name].mean)
    assert np.all(np.abs(np.mean(draws, 0) - mean) < 5 * error)
    # Draws are the density's: E[q(x)/p(x)] = 1 for any density q, here p moved a little.
    with jax.numpy_rank_promotion("allow"):
        p = d.log_prob(draws)
        if name == "poisson":
            return
        q = d.log_prob(draws * 1.02) + d.event_shape[0] * np.log(1.02)
    ratio = np.exp(q - p)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))
    assert ratio.std() > 1e-3


@pytest.mark.parametrize("name", REGISTRY)
def test_values_and_gradients_are_finite_under_jit_and_vmap(name):
    entry = REGISTRY[name]
    scale = jnp.ones(flatten(entry.mean).shape)
    params = entry.model.init(KEY, scale, Z.size)

    @jax.jit
    def gradients(shift, x):
        def density(shift, params):
            mean = jax.tree.map(lambda a: a * (1 + shift), entry.mean)
            return noise.log_prob(entry.model.distribution(params, mean, scale, Z), x)

        return jax.value_and_grad(density, (0, 1))(shift, params)

    shifts, xs = jnp.array([-0.99, 0.0, 30.0]), jnp.ones((3, scale.size))
    for found in jax.tree.leaves(jax.vmap(gradients)(shifts, xs)):
        assert found.dtype == jnp.float32
        assert np.all(np.isfinite(found))


def test_known_noise_has_nothing_to_train_and_keeps_its_covariance_as_a_leaf():
    model = noise.gaussian(COVARIANCE)
    assert model.init(KEY, SCALE, 2) == {}
    (cholesky,) = jax.tree.leaves(model)
    np.testing.assert_allclose(cholesky @ cholesky.T, COVARIANCE, atol=1e-6)
    other = noise.gaussian(2 * COVARIANCE)
    assert jax.tree.structure(model) == jax.tree.structure(other)


def test_it_can_be_made_inside_jit():
    @jax.jit
    def log_prob(covariance):
        return noise.log_prob(law(noise.gaussian(covariance)), X)

    expected = scipy.stats.multivariate_normal(MEAN, COVARIANCE).logpdf(X)
    np.testing.assert_allclose(log_prob(COVARIANCE), expected, rtol=1e-5)


def test_estimated_noise_is_a_normal_density_for_any_parameters(x64):
    model = noise.estimated(MLP(4))
    mean, scale = MEAN.astype(float), SCALE.astype(float)
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: jnp.asarray(0.1 * generator.normal(size=a.shape)),
        model.init(KEY, scale, 2),
    )

    def log_prob(residual):
        return noise.log_prob(law(model, mean, scale, params), mean + residual)

    # A normal density is given by its curvature: -log p = r' P r / 2 + log normalisation.
    precision = -jax.hessian(log_prob)(jnp.zeros(3))
    expected = scipy.stats.multivariate_normal(cov=np.linalg.inv(precision)).logpdf(X - MEAN)
    np.testing.assert_allclose(log_prob(X - MEAN), expected, rtol=1e-9)
    keys = jax.random.split(jax.random.key(3), 20_000)
    draws = jax.vmap(law(model, mean, scale, params).sample)(keys)
    # Variances from 20,000 draws are known to 1 %.
    np.testing.assert_allclose(
        np.cov(draws.T), np.linalg.inv(precision), atol=0.05 * np.linalg.inv(precision).max()
    )


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e3])
def test_estimated_noise_stays_finite(scale):
    model = noise.estimated()
    params = jax.tree.map(lambda a: a + scale, model.init(KEY, SCALE, 2))

    def log_prob(params):
        return noise.log_prob(law(model, params=params), MEAN)

    value, gradient = jax.value_and_grad(log_prob)(params)
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves((value, gradient)))


def test_a_covariance_from_few_simulations_widens_the_law(x64):
    """Many simulations: both corrections vanish. Few: the Student t law has the wider tails."""
    many = noise.gaussian(COVARIANCE), noise.student_t(COVARIANCE, 100_000_000)
    np.testing.assert_allclose(*(noise.log_prob(law(m), X) for m in many), rtol=1e-5)
    few = noise.gaussian(COVARIANCE, simulations=8), noise.student_t(COVARIANCE, 8)
    gaussian, student = (noise.log_prob(law(m), MEAN + 10.0) for m in few)
    assert student > gaussian + 1.0


def test_strain_keeps_its_digits():
    """Spectral densities of strain, 1e-46, are below what single precision can hold."""
    model = noise.whittle(np.full(3, 1e-46), 0.125)
    np.testing.assert_allclose(model.cholesky, np.full(6, np.sqrt(1e-46 / 0.5)), rtol=1e-6)
    d = law(model, jnp.zeros(3, jnp.complex64), None)
    assert np.isfinite(noise.log_prob(d, jnp.full(6, 2e-23)))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones((2, 3)), r"expected shape \(d, d\) or \(d,\), got \(2, 3\)"),
        (1.0, r"expected shape \(d, d\) or \(d,\), got \(\)"),
        ([[1.0, 0.5], [0.0, 1.0]], "expected a symmetric covariance"),
        ([[1.0, 2.0], [2.0, 1.0]], r"positive definite.*smallest eigenvalue is -1.*diagonal"),
        ([1.0, -1.0], "positive definite.*smallest eigenvalue is -1"),
        ([1.0, np.nan], "expected finite numbers"),
    ],
)
def test_what_is_no_covariance(covariance, message):
    with pytest.raises(ValueError, match=rf"noise.gaussian: .*{message}"):
        noise.gaussian(covariance)


def test_rounding_is_no_asymmetry():
    """Numbers that are 0 but for rounding, in a matrix whose own numbers differ in size."""
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    scale = 10.0 ** np.arange(-3, 3)
    covariance = (q @ np.linalg.inv(q)) * np.outer(scale, scale)
    assert np.any(covariance != covariance.T)
    np.testing.assert_allclose(noise.gaussian(covariance).cholesky, np.diag(scale), atol=1e-4)
    covariance[0, 1] += 1e-3 * scale[0] * scale[1]
    with pytest.raises(ValueError, match="expected a symmetric covariance"):
        noise.gaussian(covariance)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (lambda m: jnp.outer(m, m) - jnp.eye(3), "positive definite .*smallest eigenvalue is -"),
        (lambda m: -(m**2), "positive definite covariance.*smallest eigenvalue is -"),
        (lambda m: jnp.log(-(m**2)), "expected finite numbers"),
        (lambda m: jnp.eye(3).at[0, 1].set(0.5), "expected a symmetric covariance"),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_a_covariance_of_the_prediction_is_looked_at(covariance, message, exact):
    theta = {"a": jnp.linspace(1.0, 2.0, 20)}
    rows = jaxsbi.from_arrays(theta, theta["a"][:, None] * jnp.array([[1.0, 2.0, 3.0]]))
    prior = jaxsbi.Prior(a=dist.Uniform(1.0, 2.0))
    method = jaxsbi.emulator(noise=noise.gaussian_of(covariance), exact=exact)
    with pytest.raises(ValueError, match=f"noise.gaussian_of: .*{message}"):
        jaxsbi.fit(jax.random.key(0), method, prior, rows, max_epochs=1, progress=False)


def test_a_scatter_that_noisy_data_do_not_have_is_not_looked_at():
    """Variances proportional to the mean: some noisy numbers are negative, no mean is."""
    x = 0.3 + np.random.default_rng(0).normal(size=(40, 3))
    rows = jaxsbi.Simulations({"a": jnp.ones(40)}, jnp.asarray(x), jnp.ones(40))
    jaxsbi.emulator(noise=noise.gaussian_of(lambda m: m)).check(rows)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise.student_t([1.0, 2.0], 10), r"student_t: expected shape \(d, d\), got"),
        (lambda: noise.student_t(-np.eye(2), 10), "student_t: .*positive definite"),
        (lambda: noise.student_t(np.eye(3), 3), "from more than 3 simulations, got simulations=3"),
        (lambda: noise.gaussian(np.eye(3), simulations=5), "more than 5 .*got simulations=5"),
        (lambda: noise.periodogram(0), "expected averages >= 1, got 0"),
        (lambda: noise.whittle(np.ones(3), 0.0), "expected spacing > 0"),
        (lambda: noise.whittle(np.array([1.0, 0.0]), 1.0), "finite and positive everywhere"),
        (lambda: law(noise.gaussian(np.eye(2))), r"shape \(3,\), for data of 3 numbers, got .* 2"),
        (lambda: law(noise.student_t(np.eye(2), 9)), "student_t: .* 3 numbers, got one of 2"),
        (lambda: law(noise.gaussian_of(jnp.sum)), r"returns shape \(3, 3\) or \(3,\), got \(\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=f"noise.{message}|{message}"):
        make()


def test_a_learned_width_follows_the_parameters():
    """x ~ N(0, s(θ)²) with log s = z: the law of `estimated(network)` finds it."""
    prior = jaxsbi.Prior(z=dist.Normal(0.0, 1.0))

    def simulator(key, theta):
        return jnp.exp(theta["z"]) * jax.random.normal(key, (2,))

    rows = jaxsbi.simulate(jax.random.key(1), prior, simulator, 2_000, progress=False)
    method = jaxsbi.emulator(network=MLP(8), noise=noise.estimated(MLP(16)))
    posterior = jaxsbi.fit(
        jax.random.key(2), method, prior, rows, max_epochs=60, progress=False
    ).posterior
    for z in (-1.0, 0.0, 1.0):
        d = method.distribution(posterior.variables, prior, jnp.array([z]))
        # A width from some 400 numbers nearby is known to 4 %, and the network's own error.
        np.testing.assert_allclose(1.0 / np.diag(d.whiten), np.exp(z), rtol=0.2)
