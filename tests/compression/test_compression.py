"""Every objective on a linear problem whose sufficient statistics are known; what uses them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import compression
from jaxsbi.base import Simulations
from jaxsbi.densities import Gaussian
from jaxsbi.networks import MLP, Conv
from jaxsbi.networks.mlp import MultilayerPerceptron

# x = A theta + noise, ten numbers of which most say nothing: A' x / noise² is sufficient.
DESIGN = jnp.asarray(np.random.default_rng(0).normal(size=(10, 2)) * [[1.0, 0.5]], jnp.float32)
DESIGN = DESIGN.at[5:].set(0.0)
NOISE = 0.7
PRIOR = jaxsbi.Prior(a=dist.Normal(0.0, 1.0), b=dist.Normal(0.0, 2.0))
LINEAR = MultilayerPerceptron(hidden=(), out=2)


def signal(theta):
    return DESIGN @ jnp.stack([theta["a"], theta["b"]])


def simulator(key, theta):
    return signal(theta) + NOISE * jax.random.normal(key, (10,))


def views(key, theta):
    one, two = jax.random.split(key)
    return {"one": simulator(one, theta), "two": simulator(two, theta)}


def log_likelihood(theta, x):
    return -0.5 * jnp.sum((x - signal(theta)) ** 2) / NOISE**2


def project(x):
    return 0.1 * x @ DESIGN


THETA = {"a": jnp.array(0.3), "b": jnp.array(-1.0)}


@pytest.fixture(scope="module")
def simulations():
    return jaxsbi.simulate(jax.random.key(10), PRIOR, simulator, 2_000, progress=False)


@pytest.fixture(scope="module")
def regressed(simulations):
    method = compression.regression(LINEAR)
    # Its training takes a second.
    return jaxsbi.fit(
        jax.random.key(11), method, PRIOR, simulations, batch_size=64, max_epochs=150,
        progress=False,
    ).posterior  # fmt: skip


def explained(summary, x):
    """Return the share of each sufficient statistic's variance that is linear in the summary."""
    s = np.asarray(jax.vmap(summary)(x))
    target = np.asarray(x @ DESIGN)
    design = np.column_stack([s, np.ones(len(s))])
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return 1 - residual.var(0) / target.var(0)


def fresh():
    return jaxsbi.simulate(jax.random.key(12), PRIOR, simulator, 500, progress=False)


def test_regression_keeps_the_sufficient_statistics(regressed):
    assert np.all(explained(compression.summary(regressed), fresh().x) > 0.99)


def test_scores_of_a_gaussian_are_the_sufficient_statistics():
    x = fresh().x
    general = compression.score(log_likelihood, THETA)
    np.testing.assert_allclose(explained(general, x), 1.0, atol=1e-5)
    variances = NOISE**2 * jnp.ones(10)
    for covariance in (variances, jnp.diag(variances)):
        linear = compression.gaussian_score(signal, covariance, THETA)
        np.testing.assert_allclose(jax.vmap(linear)(x), jax.vmap(general)(x), rtol=1e-4, atol=1e-3)


def test_imnn_keeps_the_fisher_information():
    rows = compression.at_fiducial(jax.random.key(13), simulator, THETA, 2_000, progress=False)
    derivatives = rows.x["derivatives"]
    assert derivatives.shape == (2_000, 2, 10)
    np.testing.assert_allclose(derivatives[0], DESIGN.T, atol=1e-6)
    fitted = jaxsbi.fit(
        jax.random.key(14), compression.imnn(LINEAR), PRIOR, rows, batch_size=200, max_epochs=60,
        progress=False,
    )  # fmt: skip
    exact = 0.5 * float(jnp.linalg.slogdet(DESIGN.T @ DESIGN / NOISE**2)[1])
    # The batch's own covariance is inverted: about c / batch too much information.
    assert abs(-fitted.history.best_loss - exact) < 0.1
    assert np.all(explained(compression.summary(fitted.posterior), fresh().x) > 0.97)


@pytest.fixture(scope="module")
def contrasted():
    pairs = jaxsbi.simulate(jax.random.key(15), PRIOR, views, 2_000, progress=False)
    method = compression.contrast({"one": MLP(32, out=4), "two": MLP(32, out=4)})
    fitted = jaxsbi.fit(jax.random.key(11), method, PRIOR, pairs, max_epochs=60, progress=False)
    return pairs, fitted


def test_contrast_finds_what_two_views_share(contrasted):
    pairs, fitted = contrasted
    whole = compression.summary(fitted.posterior)
    one = compression.summary(fitted.posterior, view="one")
    x = jax.tree.map(lambda a: a[0], pairs.x)
    assert whole(x).shape == (8,)
    np.testing.assert_allclose(one(x["one"]), whole(x)[:4], rtol=1e-5, atol=1e-6)
    # Guessing among the 200 pairs that validate would cost log 200 nats.
    assert fitted.history.best_loss < np.log(200) - 0.7
    rows = jaxsbi.simulate(jax.random.key(12), PRIOR, simulator, 500, progress=False)
    assert np.all(explained(one, rows.x) > 0.8)


def test_padded_rows_say_nothing_to_objectives_of_a_batch(contrasted):
    pairs, fitted = contrasted
    at = compression.at_fiducial(jax.random.key(13), simulator, THETA, 8, progress=False)
    imnn = compression.imnn(LINEAR)
    cases = [
        (fitted.posterior.method, fitted.posterior.variables, pairs[:8]),
        (imnn, imnn.init(jax.random.key(16), PRIOR, at), at),
    ]
    for method, variables, rows in cases:
        weight = jnp.ones(8).at[-2:].set(0.0)
        broken = jax.tree.map(lambda a: a.at[-2:].set(1e3), rows.x)
        kept = Simulations(rows.theta, rows.x, weight)
        padded = Simulations(rows.theta, broken, weight)
        losses = [
            method.loss(variables, PRIOR, jax.random.key(1), batch)[:6] for batch in (kept, padded)
        ]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def exact_mean(x):
    precision = DESIGN.T @ DESIGN / NOISE**2 + jnp.diag(jnp.array([1.0, 0.25]))
    covariance = np.linalg.inv(precision)
    return covariance @ np.asarray(x @ DESIGN).T / NOISE**2, np.sqrt(np.diag(covariance))


@pytest.mark.parametrize("road", [jaxsbi.npe(density=Gaussian()), jaxsbi.nle()])
def test_a_frozen_summary_gives_the_posterior_of_the_data(road, simulations, regressed):
    method = compression.frozen(road, compression.summary(regressed))
    fitted = jaxsbi.fit(jax.random.key(16), method, PRIOR, simulations, progress=False)
    posterior, x = fitted.posterior, fresh().x[0]
    draws = posterior.sample(jax.random.key(5), x, 2_000)
    mean, width = exact_mean(x)
    found = np.stack([draws["a"], draws["b"]])
    np.testing.assert_array_less(np.abs(found.mean(1) - mean), 0.25 * width)
    np.testing.assert_allclose(found.std(1), width, rtol=0.15)
    assert np.isfinite(posterior.log_prob(PRIOR.sample(jax.random.key(6)), x))
    if hasattr(road, "with_prior"):
        narrow = jaxsbi.Prior(a=dist.Normal(0.0, 0.1), b=dist.Normal(0.0, 2.0))
        again = posterior.with_prior(narrow).sample(jax.random.key(7), x, 500)
        assert np.std(again["a"]) < 0.12
    else:
        with pytest.raises(NotImplementedError, match="training prior"):
            posterior.with_prior(PRIOR)


def test_a_frozen_emulator_is_looked_at_and_trained_as_a_plain_one(simulations):
    """What an emulator says on the host, before training and after draws, it says frozen, too."""
    emulator = functools.partial(
        jaxsbi.emulator, components=2, exact=True, sampler=jaxsbi.samplers.sir(candidates=400)
    )
    plain = emulator(noise=jaxsbi.noise.gaussian(jnp.ones(2)))
    method = compression.frozen(plain, project)
    for name in ("steps", "epochs", "validation_rows"):
        assert getattr(method, name) == getattr(plain, name)
    rows = simulations[:40]
    for ensemble in (None, 2):
        posterior = jaxsbi.fit(
            jax.random.key(16), method, PRIOR, rows, max_epochs=1, ensemble=ensemble, progress=False
        ).posterior
        far = jaxsbi.Prior(a=dist.Normal(20.0, 0.1), b=dist.Normal(0.0, 0.1))
        with pytest.warns(UserWarning, match=r"emulator: asked outside.*a in 100%"):
            posterior.with_prior(far).sample(jax.random.key(5), rows.x[0], 50)
    # Its checks see summaries: logarithms of what the data have none of.
    logarithmic = emulator(transform="log")
    frozen = compression.frozen(logarithmic, project)
    with pytest.raises(ValueError, match=r"log.*positive"):
        jaxsbi.fit(jax.random.key(0), frozen, PRIOR, rows, max_epochs=1, progress=False)
    made = compression.frozen(logarithmic, lambda x: jnp.exp(project(x)))
    made.check(rows)
    assert not hasattr(compression.frozen(jaxsbi.npe(), project), "look_at")


def test_a_frozen_summary_is_read_online_and_saved(tmp_path, regressed):
    method = compression.frozen(jaxsbi.npe(density=Gaussian()), compression.summary(regressed))
    fitted = jaxsbi.fit_online(
        jax.random.key(16), method, PRIOR, simulator, num_steps=3, batch_size=16, progress=False
    )
    x, theta = fresh().x[0], PRIOR.sample(jax.random.key(6))
    assert fitted.posterior.data.leaves[0][1] == (10,)
    jaxsbi.save(tmp_path / "run", fitted)
    again = jaxsbi.load(tmp_path / "run").posterior
    assert again.log_prob(theta, x) == fitted.posterior.log_prob(theta, x)


def test_tuning_starts_from_the_trained_summary(simulations, regressed):
    summary = compression.summary(regressed)
    road = jaxsbi.npe(density=Gaussian(), summary=LINEAR)
    start = compression.tuned(jax.random.key(17), road, PRIOR, simulations, summary)
    x = simulations.x[0]
    np.testing.assert_array_equal(compression.summary(start)(x), summary(x))
    fitted = jaxsbi.fit(
        jax.random.key(16), road, PRIOR, simulations, initial=start, max_epochs=1, progress=False
    )
    changed = compression.summary(fitted.posterior)(x)
    assert 0 < np.max(np.abs(changed - summary(x))) < 0.5


def test_a_function_is_a_summary():
    method = compression.frozen(jaxsbi.npe(density=Gaussian()), lambda x: DESIGN.T @ x)
    rows = jaxsbi.simulate(jax.random.key(10), PRIOR, simulator, 200, progress=False)
    fitted = jaxsbi.fit(jax.random.key(16), method, PRIOR, rows, max_epochs=1, progress=False)
    assert fitted.posterior.sample(jax.random.key(1), rows.x[0], 3)["a"].shape == (3,)


def test_errors_say_what_to_do(simulations, regressed, contrasted):
    fit = lambda method, rows=simulations: jaxsbi.fit(  # noqa: E731
        jax.random.key(0), method, PRIOR, rows, max_epochs=1, progress=False
    )
    with pytest.raises(ValueError, match="out=2"):
        fit(compression.regression(MLP(8, out=3)))
    with pytest.raises(ValueError, match="at_fiducial"):
        fit(compression.imnn(LINEAR))
    rows = compression.at_fiducial(jax.random.key(0), simulator, THETA, 8, progress=False)
    with pytest.raises(ValueError, match="at least 2 summaries"):
        fit(compression.imnn(MLP(8, out=1)), rows)
    with pytest.raises(ValueError, match="two views"):
        compression.contrast({"image": Conv()})
    with pytest.raises(ValueError, match="equally long"):
        fit(compression.contrast({"one": MLP(8, out=2), "two": MLP(8, out=3)}), contrasted[0])
    with pytest.raises(ValueError, match="dict of the views"):
        fit(compression.contrast({"one": MLP(8, out=2), "two": MLP(8, out=2)}))
    with pytest.raises(NotImplementedError, match="has no posterior"):
        regressed.sample(jax.random.key(0), simulations.x[0], 2)
    with pytest.raises(ValueError, match="without a summary network"):
        compression.summary(fit(jaxsbi.npe(density=Gaussian())).posterior)
    with pytest.raises(ValueError, match="view"):
        compression.summary(regressed, view="one")
    with pytest.raises(ValueError, match="expected a road with summary"):
        compression.tuned(
            jax.random.key(0), jaxsbi.npe(), PRIOR, simulations, compression.summary(regressed)
        )
    with pytest.raises(TypeError, match="function of one data set"):
        compression.frozen(jaxsbi.npe(), 3)
    with pytest.raises(ValueError, match="positive variances"):
        compression.gaussian_score(signal, jnp.zeros(10), THETA)
    with pytest.raises(ValueError, match="expected shape"):
        compression.gaussian_score(signal, jnp.ones(9), THETA)
