"""Marginal posteriors of a conjugate Gaussian of three parameters."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.latent import PriorError

PRIOR = jaxsbi.Prior(a=dist.Normal(0.0, 1.0), b=dist.Normal(0.0, 1.0), c=dist.Normal(0.0, 1.0))
MIXING = jnp.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.5, 0.0, 1.0]])
NOISE = 0.5
METHOD = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16))


def simulator(key, theta):
    vector = jnp.stack([theta["a"], theta["b"], theta["c"]])
    return MIXING @ vector + NOISE * jax.random.normal(key, (3,))


@pytest.fixture(scope="module")
def simulations():
    return jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 3_000, progress=False)


@pytest.mark.slow
def test_pairs_have_the_exact_marginals(simulations) -> None:
    groups = list(itertools.combinations(PRIOR.names, 2))
    fitted = jaxsbi.marginals(
        jax.random.key(1), METHOD, PRIOR, simulations, [*groups, "b"], max_epochs=30, progress=False
    )
    assert list(fitted) == [("a", "b"), ("a", "c"), ("b", "c"), ("b",)]
    x = jnp.array([0.3, -0.5, 0.8])
    covariance = np.linalg.inv(np.eye(3) + MIXING.T @ MIXING / NOISE**2)
    mean = np.asarray(covariance @ (MIXING.T @ x) / NOISE**2)
    for group, result in fitted.items():
        draws = result.posterior.sample(jax.random.key(2), x, 4_000)
        assert set(draws) == set(group)
        index = [PRIOR.names.index(name) for name in group]
        width = np.sqrt(np.diag(covariance)[index])
        values = np.stack([draws[name] for name in group])
        # 2,700 simulations fix a regression to 0.02 widths per coefficient; 4,000 draws likewise.
        np.testing.assert_array_less(np.abs(values.mean(1) - mean[index]), 0.15 * width)
        np.testing.assert_allclose(values.std(1), width, rtol=0.1)
        correlation = np.corrcoef(values)
        expected = covariance[np.ix_(index, index)] / np.outer(width, width)
        np.testing.assert_allclose(correlation, expected, atol=0.1)


def test_joint_scores_are_those_of_the_group() -> None:
    prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0), b=dist.Normal(0.0, 1.0))

    def log_joint(theta, x, latents):
        return -0.5 * ((x[0] - theta["a"]) ** 2 + (x[1] - theta["b"]) ** 2)

    def scored(key, theta):
        x = jnp.stack([theta["a"], theta["b"]]) + jax.random.normal(key, (2,))
        return x, {}

    rows = jaxsbi.simulate_scored(jax.random.key(0), prior, scored, log_joint, 300, progress=False)
    fitted = jaxsbi.marginals(
        jax.random.key(1), jaxsbi.npe(score=1.0), prior, rows, ["b"], max_epochs=2, progress=False
    )
    assert np.isfinite(fitted["b",].history.best_loss)


def test_names_are_checked(simulations) -> None:
    def run(*groups):
        return jaxsbi.marginals(jax.random.key(0), METHOD, PRIOR, simulations, groups)

    with pytest.raises(ValueError, match="groups: expected names"):
        run()
    with pytest.raises(ValueError, match="tuples of different names"):
        run(("a", "a"))
    with pytest.raises(PriorError, match=r"expected names among \['a', 'b', 'c'\]"):
        run("d")
    model = jaxsbi.Prior(lambda: numpyro.sample("a", dist.Normal(0.0, 1.0)))
    with pytest.raises(PriorError, match="may depend on one another"):
        model.marginal("a")
