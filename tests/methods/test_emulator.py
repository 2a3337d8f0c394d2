"""The emulator road on a linear model, whose posterior is a Gaussian known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

PRIOR = jaxsbi.Prior(slope=dist.Normal(0.0, 1.0), offset=dist.Normal(0.0, 1.0))
TIMES = jnp.linspace(-1.0, 1.0, 8)
DESIGN = np.stack([np.asarray(TIMES), np.ones(8)], axis=1)  # slope, offset: as the prior's order
# Correlated noise of unequal size.
COVARIANCE = 0.3**2 * (0.5 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8))))
CHOLESKY = jnp.linalg.cholesky(jnp.asarray(COVARIANCE))
SAMPLER = jaxsbi.samplers.nuts(chains=20, warmup=60)


def simulator(key, theta):
    noise = CHOLESKY @ jax.random.normal(key, (8,))
    return {
        "early": (theta["slope"] * TIMES + theta["offset"] + noise)[:4],
        "late": (theta["slope"] * TIMES + theta["offset"] + noise)[4:],
    }


def road(noise):
    network = jaxsbi.networks.MLP(8)
    return jaxsbi.emulator(network=network, components=3, noise=noise, sampler=SAMPLER)


def train(noise, simulations, **options):
    options = {"max_epochs": 40, "progress": False, **options}
    return jaxsbi.fit(jax.random.key(2), road(noise), PRIOR, simulations, **options).posterior


@pytest.fixture(scope="module")
def simulations():
    return jaxsbi.simulate(jax.random.key(1), PRIOR, simulator, 2_000, progress=False)


@pytest.fixture(scope="module")
def known(simulations):
    return train(jaxsbi.noise.gaussian(COVARIANCE), simulations, max_epochs=100)


@pytest.fixture(scope="module")
def estimated(simulations):
    return train(None, simulations, max_epochs=200)


def test_the_mean_is_the_models(known):
    z = jnp.array([0.7, -1.2])
    theta = PRIOR.from_latent(z)
    expected = DESIGN @ np.array([theta["slope"], theta["offset"]])
    # Principal components of 1,800 noisy curves, and two numbers learned for each of 3 amplitudes:
    # an error of a few times 0.3 / sqrt(1800) = 0.007.
    found = known.method.predict(known.variables, PRIOR, z)
    np.testing.assert_allclose(np.concatenate([found["early"], found["late"]]), expected, atol=0.06)


def test_only_as_many_components_as_numbers(simulations):
    method = jaxsbi.emulator(components=32)
    variables = jax.jit(lambda k: method.init(k, PRIOR, simulations[:50]))(jax.random.key(0))
    assert variables["statistics"]["basis"].shape == (8, 8)


def test_the_loss_is_the_noise_models(known, simulations):
    rows = simulations[:5]
    loss = known.method.loss(known.variables, PRIOR, jax.random.key(0), rows)
    z = jax.vmap(PRIOR.to_latent)(rows.theta)
    x = np.concatenate([rows.x["early"], rows.x["late"]], axis=1)
    found = jax.vmap(lambda z: known.method.predict(known.variables, PRIOR, z))(z)
    residual = x - np.concatenate([found["early"], found["late"]], axis=1)
    whitened = np.linalg.solve(np.asarray(CHOLESKY), residual.T).T
    scale = np.asarray(known.variables["statistics"]["noise"])
    expected = (
        0.5 * (whitened**2).sum(1)
        + np.log(np.diag(CHOLESKY)).sum()
        + 4 * np.log(2 * np.pi)
        - np.log(scale).sum()  # in nats of the standardised data
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def exact(x):
    """Return mean and covariance of (slope, offset) given one data set."""
    whitened = np.linalg.solve(COVARIANCE, DESIGN)
    covariance = np.linalg.inv(DESIGN.T @ whitened + np.eye(2))
    flat = np.concatenate([x["early"], x["late"]])
    return covariance @ whitened.T @ flat, covariance


@pytest.mark.slow
@pytest.mark.rank_promotion  # inside NumPyro's kernel
@pytest.mark.parametrize("noise", ["known", "estimated"])
def test_draws_match_the_exact_posterior(noise, request):
    posterior = request.getfixturevalue(noise)
    x = simulator(jax.random.key(7), {"slope": jnp.array(0.8), "offset": jnp.array(-0.5)})
    draws = posterior.sample(jax.random.key(8), x, 4_000)
    draws = np.stack([draws["slope"], draws["offset"]])
    mean, covariance = exact(x)
    # The emulator's error, 0.06 at most in any number, moves the mean by less than 0.3 widths;
    # 4,000 draws of chains this short add 0.05, and 5 % to a width.
    width = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.mean(1), mean, atol=0.35 * width.min())
    np.testing.assert_allclose(draws.std(1), width, rtol=0.15)


@pytest.mark.slow
def test_the_noise_is_estimated(estimated):
    """The curvature of the learned likelihood in the data is the inverse covariance."""
    z = jnp.zeros(2)

    def log_likelihood(flat):
        x = {"early": flat[:4], "late": flat[4:]}
        return estimated.method.log_likelihood(estimated.variables, PRIOR, z, x)

    covariance = np.linalg.inv(-jax.hessian(log_likelihood)(jnp.zeros(8)))
    # A variance from 1,800 residuals is known to sqrt(2 / 1800) = 3 %; early stopping adds to it.
    np.testing.assert_allclose(np.diag(covariance), np.diag(COVARIANCE), rtol=0.2)
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(correlation, COVARIANCE / 0.09, atol=0.15)


def test_a_covariance_of_another_size_is_refused(simulations):
    with pytest.raises(ValueError, match=r"covariance of shape \(8, 8\).*got one of 3"):
        train(jaxsbi.noise.gaussian(np.eye(3)), simulations)
