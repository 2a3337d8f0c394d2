"""Joint scores: what they are, how they come into latent coordinates, and what they add."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsbi
from jaxsbi.densities import Gaussian, MaskedAutoregressive
from jaxsbi.networks import MLP
from jaxsbi.splitting import seen
from tests.methods.hidden_number import BOUNDED, NOISE, PRIOR, TOTAL, log_joint, simulator


def scored(seed, n, prior=PRIOR):
    return jaxsbi.simulate_scored(
        jax.random.key(seed), prior, simulator, log_joint, n, progress=False
    )


def test_the_joint_scores_mean_is_the_score():
    rows = scored(0, 20_000)
    plain = jaxsbi.simulate(
        jax.random.key(0), PRIOR, lambda key, theta: simulator(key, theta)[0], 20_000,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(rows.x, plain.x)
    x, score = np.asarray(rows.x[:, 0] - rows.theta["theta"]), np.asarray(rows.score["theta"])
    slope, error = x @ score / (x @ x), np.std(score) / np.sqrt(x @ x)
    assert abs(slope - 1 / TOTAL) < 4 * error
    assert np.var(score - slope * x) > 0.1 * np.var(score)


def test_scores_come_into_latent_coordinates():
    rows = scored(1, 50, BOUNDED)
    latent = seen(jaxsbi.npe(), BOUNDED, rows)

    def both(z, x, hidden):
        likelihood = log_joint(BOUNDED.from_latent(z), x, hidden)
        return likelihood, likelihood + BOUNDED.latent_log_prob(z)

    def expected(z, x, theta, score):
        hidden = x[0] - theta - NOISE**2 * score
        return [jax.grad(lambda z, i=i: both(z, x, hidden)[i])(z) for i in (0, 1)]

    likelihood, posterior = jax.vmap(expected)(
        latent.theta["z"], rows.x, rows.theta["theta"], rows.score["theta"]
    )
    np.testing.assert_allclose(latent.score["likelihood"], likelihood, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(latent.score["posterior"], posterior, rtol=1e-3, atol=1e-4)


ROADS = {
    # A network as the summary: without one this problem is solved before training.
    "npe": lambda score: jaxsbi.npe(
        density=Gaussian(hidden=16), summary=MLP(16, out=4), score=score
    ),
    "nle": lambda score: jaxsbi.nle(density=MaskedAutoregressive(layers=1, hidden=16), score=score),
    "nre": lambda score: jaxsbi.nre(classifier=MLP(16, 16), score=score),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROADS)
def test_with_scores_the_learned_score_is_nearer_to_the_true_one(name):
    rows, fresh = scored(2, 200), scored(3, 1_000)
    x, theta = fresh.x[:, 0], fresh.theta["theta"]
    truth = (x - theta) / TOTAL
    errors = {}
    for weight in (0.0, 5.0):
        fitted = jaxsbi.fit(
            jax.random.key(4), ROADS[name](weight), PRIOR, rows, batch_size=16, max_epochs=150,
            progress=False,
        )  # fmt: skip
        gradient = jax.grad(lambda t, x, p=fitted.posterior: p.log_prob({"theta": t}, x))
        found = jax.vmap(gradient)(theta, fresh.x) + theta / 1.5**2  # the prior's own
        errors[weight] = float(jnp.mean((found - truth) ** 2))
    assert errors[5.0] < 0.8 * errors[0.0]
    assert errors[5.0] < 0.5 / TOTAL  # the mean square of the true scores is 1 / TOTAL


@pytest.mark.parametrize("name", ROADS)
def test_without_scores_there_is_an_error(name):
    rows = jaxsbi.Simulations(*(getattr(scored(5, 20), f) for f in ("theta", "x", "weight")))
    with pytest.raises(ValueError, match="simulate_scored"):
        jaxsbi.fit(jax.random.key(0), ROADS[name](1.0), PRIOR, rows, progress=False)
    with pytest.raises(ValueError, match="weight of 0 or more"):
        ROADS[name](-1.0)


def test_a_score_that_is_not_finite_is_told_of():
    """Its row's loss would be NaN, and with it the training."""
    rows = scored(5, 20)
    score = {name: np.array(a) for name, a in rows.score.items()}
    next(iter(score.values())).flat[3] = np.nan
    bad = dataclasses.replace(rows, score=score)
    with pytest.raises(ValueError, match=r"simulations\.score.*finite.* in 1 of 20 rows"):
        jaxsbi.fit(jax.random.key(0), jaxsbi.npe(score=1.0), PRIOR, bad, progress=False)
