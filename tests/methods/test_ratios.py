"""Joint ratios: what they are, that labels made of them are exact, and what they add."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.densities import Gaussian, MaskedAutoregressive
from jaxsbi.methods import gradients
from jaxsbi.networks import MLP
from jaxsbi.splitting import seen
from tests.methods.hidden_number import BOUNDED, NOISE, PRIOR, TOTAL, WIDTH, log_joint, simulator


def log_ratio(theta, x):
    """Return log p(x | theta) - log p(x)."""
    return dist.Normal(theta, TOTAL**0.5).log_prob(x) - dist.Normal(
        0.0, (TOTAL + WIDTH**2) ** 0.5
    ).log_prob(x)


def rows_of(seed, n, contrasts, prior=PRIOR):
    return jaxsbi.simulate_scored(
        jax.random.key(seed), prior, simulator, log_joint, n, contrasts=contrasts, progress=False
    )


def candidates(rows):
    """Return each row's parameter set, then its contrasts."""
    own = rows.theta["theta"][:, None]
    return jnp.concatenate([own, rows.contrasts["theta"]], 1)


def test_contrasts_come_with_the_same_simulations():
    plain, rows = rows_of(0, 4_000, 0), rows_of(0, 4_000, 3)
    assert plain.contrasts is None
    assert plain.log_ratio is None
    jax.tree.map(
        np.testing.assert_array_equal, (plain.theta, plain.x, plain.score),
        (rows.theta, rows.x, rows.score),
    )  # fmt: skip
    own = log_joint(rows.theta, rows.x.T, rows.x[:, 0] - rows.theta["theta"])  # its shape
    assert rows.log_ratio.shape == (*own.shape, 3)
    # hidden, from the score: (x - theta - hidden) / NOISE²
    rest = np.asarray(rows.score["theta"] * NOISE**2)
    moved = rest[:, None] + rows.theta["theta"][:, None] - rows.contrasts["theta"]
    expected = -0.5 * (moved**2 - rest[:, None] ** 2) / NOISE**2
    np.testing.assert_allclose(rows.log_ratio, expected, rtol=1e-3, atol=1e-3)
    # Independent draws of the prior, of one another and of the simulation's own.
    every = np.column_stack([candidates(rows), rows.x]) / WIDTH
    assert np.all(np.abs(every[:, :4].mean(0)) < 4 / 4_000**0.5)
    found = np.corrcoef(every.T)
    np.testing.assert_array_less(np.abs(found[1:4, [0, 4]]), 4 / 4_000**0.5)
    np.testing.assert_array_less(np.abs(found[:4, :4] - np.eye(4)), 4 / 4_000**0.5)


def test_contrasts_come_into_latent_coordinates():
    rows = rows_of(1, 20, 2, BOUNDED)
    latent = seen(jaxsbi.nre(), BOUNDED, rows)
    assert latent.contrasts["z"].shape == (20, 2, 1)
    back = jax.vmap(jax.vmap(BOUNDED.from_latent))(latent.contrasts["z"])
    np.testing.assert_allclose(back["theta"], rows.contrasts["theta"], atol=1e-5)


def test_a_contrast_may_exclude_a_simulation():
    def bounded(key, theta):
        x = theta["theta"] * jax.random.uniform(key)
        return x[None], ()

    def log_p(theta, x, latents):
        return jnp.where(x[0] / theta["theta"] < 1.0, -jnp.log(jnp.abs(theta["theta"])), -jnp.inf)

    prior = jaxsbi.Prior(theta=dist.Uniform(1.0, 2.0))
    rows = jaxsbi.simulate_scored(
        jax.random.key(0), prior, bounded, log_p, 200, contrasts=4, progress=False
    )
    assert rows.num_valid == 200
    excluded = np.asarray(rows.x) >= np.asarray(rows.contrasts["theta"])
    assert 0 < excluded.sum() < excluded.size
    weight = np.asarray(jax.vmap(gradients.labels)(rows.log_ratio))[:, 1:]
    np.testing.assert_array_equal(weight[excluded], 0.0)
    assert np.all(weight[~excluded] > 0.0)


def test_the_labels_mean_is_the_posterior_probability_without_latents():
    rows = rows_of(2, 20_000, 3)
    found = np.asarray(jax.vmap(gradients.labels)(rows.log_ratio))
    exact = np.asarray(jax.nn.softmax(log_ratio(candidates(rows), rows.x), 1))
    one_hot = np.eye(4)[np.zeros(len(rows), int)]
    for test in (exact, np.asarray(jnp.tanh(candidates(rows) - rows.x))):
        difference = np.sum((found - exact) * test, 1)
        assert abs(difference.mean()) < 4 * difference.std() / len(rows) ** 0.5
    noise, most = np.var(found - exact), np.var(one_hot - exact)
    assert 0.05 * most < noise < 0.8 * most


@pytest.mark.parametrize(("contrasts", "odds"), [(1, 1.0), (4, 0.5), (4, 2.0)])
def test_at_the_true_ratio_the_loss_is_level_and_varies_less(contrasts, odds):
    """Also when all ratios are multiplied by one number: the loss knows p(x)."""
    rows, method = rows_of(3, 20_000, contrasts), jaxsbi.nre(contrasts=contrasts, odds=odds)
    every = candidates(rows)

    def logits(change):
        shift, slope, bend = change
        return log_ratio(every, rows.x) + shift + slope * every * rows.x + bend * jnp.abs(every)

    def soft(change):
        h = logits(change)
        return jax.vmap(method._soft)(h[:, 0], h[:, 1:], rows.log_ratio)

    def hard(change):
        h = logits(change)
        return method._cross_entropy(h[:, 0], h[:, 1:], jnp.ones(h[:, 1:].shape, bool))

    slopes = [np.asarray(jax.jacfwd(loss)(jnp.zeros(3))) for loss in (hard, soft)]
    for slope in slopes:
        assert np.all(np.abs(slope.mean(0)) < 4 * slope.std(0) / len(rows) ** 0.5)
    # One shift of all ratios is not told apart by labels, and not all of the rest is their noise.
    assert np.all(slopes[1].var(0) < 1.001 * slopes[0].var(0))
    assert np.all(slopes[1][:, 1:].var(0) < 0.97 * slopes[0][:, 1:].var(0))
    # A wrong ratio has the same loss by both, in the mean.
    wrong = jnp.array([0.3, -0.2, 0.1])
    difference = np.asarray(soft(wrong) - hard(wrong))
    assert abs(difference.mean()) < 4 * difference.std() / len(rows) ** 0.5


def network():
    """Return a summary: without one this problem is solved by NPE before training."""
    return MLP(16, out=4)


ROADS = {
    "npe": lambda ratio: jaxsbi.npe(density=Gaussian(hidden=16), summary=network(), ratio=ratio),
    "nle": lambda ratio: jaxsbi.nle(density=MaskedAutoregressive(layers=1, hidden=16), ratio=ratio),
    "nre": lambda ratio: jaxsbi.nre(classifier=MLP(16, 16), ratio=ratio),
}


@jax.jit
def estimated(rows, ratio):
    """Return the coefficients that Newton's method finds for log_ratio, from the exact ones."""
    method, every = jaxsbi.nre(ratio=5.0), candidates(rows)
    x = jnp.broadcast_to(rows.x, every.shape)
    features = jnp.stack([every * x, every**2, jnp.ones_like(x), x**2], -1)

    def loss(coefficients):
        h = features @ coefficients
        soft = jax.vmap(method._soft)(h[:, 0], h[:, 1:], rows.log_ratio)
        hard = method._cross_entropy(h[:, 0], h[:, 1:], jnp.ones(h[:, 1:].shape, bool))
        return jnp.mean(jnp.where(ratio, soft, hard))

    def step(coefficients, _):
        change = jnp.linalg.solve(jax.hessian(loss)(coefficients), jax.grad(loss)(coefficients))
        return coefficients - change, None

    return jax.lax.scan(step, EXACT, length=6)[0]


BOTH = TOTAL + WIDTH**2
EXACT = jnp.array(
    [1 / TOTAL, -0.5 / TOTAL, 0.5 * np.log(BOTH / TOTAL), 0.5 / BOTH - 0.5 / TOTAL]
)  # of theta x, theta², 1 and x²


def test_a_ratio_of_the_exact_form_needs_a_third_of_the_simulations():
    """By the error of what 100 sets of simulations give each; also that of 1, which is p(x)'s."""
    rows = rows_of(8, 60_000, 8)

    def errors(n, ratio):
        sets = jax.tree.map(lambda a: a[: 100 * n].reshape(100, n, *a.shape[1:]), rows)
        return np.asarray(jax.vmap(lambda rows: estimated(rows, ratio))(sets)) - np.asarray(EXACT)

    soft, hard = errors(200, True), errors(600, False)
    assert np.all(np.abs(soft.mean(0)) < 4 * soft.std(0) / 10)
    square = [np.mean(found**2, 0) for found in (soft, hard)]
    assert np.all(square[0][:2] < 0.5 * square[1][:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ROADS)
def test_with_ratios_the_learned_ratio_is_nearer_to_the_true_one(name):
    rows, fresh = rows_of(4, 100, 16), rows_of(5, 1_000, 1)
    theta, other = fresh.theta["theta"], fresh.contrasts["theta"][:, 0]
    truth = log_ratio(theta, fresh.x[:, 0]) - log_ratio(other, fresh.x[:, 0])
    errors = {}
    for weight in (5.0,) if name == "nre" else (0.0, 5.0):
        fitted = jaxsbi.fit(
            jax.random.key(6), ROADS[name](weight), PRIOR, rows, batch_size=16, max_epochs=150,
            progress=False,
        )  # fmt: skip

        def learned(t, x, posterior=fitted.posterior):
            theta = {"theta": t}
            return posterior.log_prob(theta, x) - PRIOR.log_prob(theta)

        learned = jax.vmap(learned)
        found = learned(theta, fresh.x) - learned(other, fresh.x)
        # Which of two: far apart, all ratios say the same.
        errors[weight] = float(jnp.mean((jax.nn.sigmoid(found) - jax.nn.sigmoid(truth)) ** 2))
    assert errors[5.0] < 0.01
    if name != "nre":  # how much fewer it needs is measured above, where its form is exact
        assert errors[5.0] < 0.8 * errors[0.0]


@pytest.mark.parametrize("name", ROADS)
def test_without_ratios_there_is_an_error(name):
    rows = dataclasses.replace(rows_of(7, 20, 2), log_ratio=None, contrasts=None)
    with pytest.raises(ValueError, match=r"simulate_scored.*contrasts=64"):
        jaxsbi.fit(jax.random.key(0), ROADS[name](1.0), PRIOR, rows, progress=False)


def test_bad_options():
    for method in (jaxsbi.npe, jaxsbi.nle, jaxsbi.nre):
        with pytest.raises(ValueError, match="ratio: expected a weight of 0 or more"):
            method(ratio=-1.0)
    with pytest.raises(ValueError, match="without iid"):
        jaxsbi.nre(ratio=1.0, iid=True)
    for bad in (-1, 2.0):
        with pytest.raises(ValueError, match="contrasts: expected an integer of 0 or more"):
            rows_of(0, 10, bad)
