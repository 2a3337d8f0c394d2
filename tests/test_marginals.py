"""Marginal posteriors of a conjugate Gaussian of three parameters."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import loop, splitting
from jaxsbi.base import DataSpec
from jaxsbi.latent import PriorError
from jaxsbi.methods import Ensemble

PRIOR = jaxsbi.Prior(a=dist.Normal(0.0, 1.0), b=dist.Normal(0.0, 1.0), c=dist.Normal(0.0, 1.0))
MIXING = jnp.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.5, 0.0, 1.0]])
NOISE = 0.5
module = importlib.import_module("jaxsbi.marginals")  # the package's `marginals` is the function
BACKEND = "cpu" if jax.default_backend() == "cpu" else "accelerator"
METHOD = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16))


def simulator(key, theta):
    vector = jnp.stack([theta["a"], theta["b"], theta["c"]])
    return MIXING @ vector + NOISE * jax.random.normal(key, (3,))


@pytest.fixture(scope="module")
def simulations():
    return jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 3_000, progress=False)


@pytest.mark.slow
def test_pairs_have_the_exact_marginals(simulations) -> None:
    groups = [("a", "b"), ("c", "a"), "b", ("b", "c"), ("a", "b")]  # in any order, and again
    before = _programs()
    fitted = jaxsbi.marginals(
        jax.random.key(1), METHOD, PRIOR, simulations, groups, max_epochs=30, progress=False
    )
    assert _programs() - before == 2  # all pairs are one training
    assert list(fitted) == [("a", "b"), ("c", "a"), ("b",), ("b", "c")]
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


def _programs() -> int:
    """Return how many programs that run epochs of short trainings there are."""
    return loop.PROGRAMS[BACKEND][1]._cache_size()


def test_a_group_has_what_a_fit_of_its_own_would_have(simulations, tmp_path) -> None:
    def run():
        return jaxsbi.marginals(
            jax.random.key(1), METHOD, PRIOR, simulations, ["c", ("b", "c"), "a"], ensemble=2,
            max_epochs=3, checkpoint=tmp_path, progress=False,
        )  # fmt: skip

    fitted, resumed = run(), run()  # the second from the checkpoint
    x = jnp.array([0.3, -0.5, 0.8])
    for group, result in fitted.items():
        own = PRIOR.marginal(*group)
        theta = {name: simulations.theta[name] for name in group}
        rows = jaxsbi.Simulations(theta, simulations.x, simulations.weight)
        alone = jaxsbi.fit(
            jax.random.key(1), METHOD, own, rows, ensemble=2, max_epochs=3, progress=False
        )
        assert result.posterior.method == Ensemble(method=METHOD, size=2) == alone.posterior.method
        like, found = (each.posterior.variables for each in (alone, result))
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, like)
        assert result.history.validation_loss.shape == alone.history.validation_loss.shape
        assert result.history.num_simulations == alone.history.num_simulations
        # Means of two members, three epochs of other batches apart.
        assert result.history.best_loss == pytest.approx(alone.history.best_loss, abs=0.1)
        again = resumed[group].posterior.sample(jax.random.key(2), x, 10)
        for name, draws in result.posterior.sample(jax.random.key(2), x, 10).items():
            np.testing.assert_array_equal(draws, again[name])


def test_many_groups_share_one_program(simulations, monkeypatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    before = _programs()
    fitted = jaxsbi.marginals(
        jax.random.key(1), METHOD, PRIOR, simulations, PRIOR.names, max_epochs=2, progress=False
    )
    assert _programs() - before <= 1  # "a" comes twice; an equal program may be there already
    assert list(fitted) == [("a",), ("b",), ("c",)]
    names = [result.posterior.prior.names for result in fitted.values()]
    assert names == [("a",), ("b",), ("c",)]


def test_a_group_may_have_vectors_and_other_dimensions() -> None:
    prior = jaxsbi.Prior(
        a=dist.Normal(jnp.zeros(2), 1.0).to_event(1), b=dist.Uniform(0.0, 1.0), c=dist.Gamma(2.0)
    )

    def vectors(key, theta):
        mean = jnp.append(theta["a"], theta["b"])
        return mean + 0.3 * jax.random.normal(key, (3,))

    rows = jaxsbi.simulate(jax.random.key(0), prior, vectors, 2_000, progress=False)
    fitted = jaxsbi.marginals(
        jax.random.key(1), jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8)), prior, rows,
        [("b", "a"), ("c",), ("a",)], max_epochs=40, progress=False,
    )  # fmt: skip
    x = jnp.array([0.5, -1.0, 0.7])
    draws = fitted["b", "a"].posterior.sample(jax.random.key(2), x, 500)
    assert {name: a.shape for name, a in draws.items()} == {"b": (500,), "a": (500, 2)}
    # Each number is in its place: the posterior mean is x / 1.09, its width 0.29.
    np.testing.assert_allclose(np.mean(draws["a"], 0), x[:2] / 1.09, atol=0.2)
    assert 0.0 < float(jnp.min(draws["b"])) < float(jnp.max(draws["b"])) < 1.0
    assert float(jnp.min(fitted["c",].posterior.sample(jax.random.key(2), x, 500)["c"])) > 0.0


def test_a_member_speaks_of_its_own_latent_parameters(simulations) -> None:
    pair = PRIOR.marginal("a", "c")
    method = module.Grouped(
        method=METHOD, inner=pair.latent, columns=jnp.array([[0, 1], [0, 2]]), members=1
    )
    rows = splitting.seen(method, PRIOR, simulations)
    variables = method.init_member(jax.random.key(1), PRIOR.latent, rows, jnp.array(1))
    x = jnp.array([0.3, -0.5, 0.8])
    draws, _ = method.sample(variables, PRIOR.latent, jax.random.key(2), x, 5)
    inner = {**variables, "statistics": dict(variables["statistics"])}
    assert inner["statistics"].pop("columns").tolist() == [0, 2]
    posterior = jaxsbi.Posterior(inner, pair, METHOD, DataSpec.of(x))
    expected = posterior.sample(jax.random.key(2), x, 5)
    np.testing.assert_allclose(draws["z"][:, 1], expected["c"], rtol=1e-5)
    theta = {"a": expected["a"][0], "c": expected["c"][0]}
    value = method.log_prob(variables, PRIOR.latent, {"z": draws["z"][0]}, x)
    np.testing.assert_allclose(value, posterior.log_prob(theta, x), rtol=1e-4)


def test_a_store_is_learned_from_where_it_lies(tmp_path) -> None:
    store = jaxsbi.Store.create(tmp_path / "runs", jax.random.key(0), PRIOR, chunk=100)
    store.fill(simulator, 600, progress=False)
    fitted = jaxsbi.marginals(
        jax.random.key(1), METHOD, PRIOR, store, ["a", "b"], max_epochs=1, progress=False
    )
    assert [result.history.num_simulations[0] > 400 for result in fitted.values()] == [True, True]


def test_methods_that_cannot_are_refused(simulations) -> None:
    def run(method, **options):
        return jaxsbi.marginals(jax.random.key(0), method, PRIOR, simulations, ["a"], **options)

    cheap = jaxsbi.emulator(approximation=lambda theta: jnp.zeros(3), exact=True)
    with pytest.raises(TypeError, match=r"latent numbers .* got Emulator\. An emulator of another"):
        run(cheap)
    with pytest.raises(TypeError, match="got npe"):
        run(jaxsbi.npe)
    with pytest.raises(ValueError, match="expected no initial="):
        run(METHOD, initial=None)
    with pytest.raises(ValueError, match="ensemble: expected a positive integer"):
        run(METHOD, ensemble=0)


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
