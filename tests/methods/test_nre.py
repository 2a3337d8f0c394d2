"""The contrastive loss against its definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec, configuration
from jaxsbi.methods import NRE

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))


def batch(n: int = 8) -> jaxsbi.Simulations:
    theta = jax.random.normal(jax.random.key(0), (n,))
    noise = jax.random.normal(jax.random.key(1), (n, 2))
    return jaxsbi.Simulations({"theta": theta}, theta[:, None] + noise, jnp.ones(n))


def trained(method, rows: jaxsbi.Simulations):
    """Random weights in place of the zero head, so that logits differ."""
    variables = jax.jit(lambda k: method.init(k, PRIOR, rows))(jax.random.key(2))
    leaves, treedef = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(3), len(leaves))
    noisy = [a + 0.3 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return {**variables, "params": treedef.unflatten(noisy)}


def test_one_contrast_is_binary_cross_entropy() -> None:
    method, rows = jaxsbi.nre(contrasts=1), batch()
    variables = trained(method, rows)
    key = jax.random.key(5)
    distance = int(jax.random.choice(jax.random.clone(key), 7, (1,), replace=False)[0]) + 1
    z, x = rows.theta["theta"][:, None], rows.x

    def logit(z, x):
        return method.log_likelihood(variables, PRIOR, z, x)

    joint = jax.vmap(logit)(z, x)
    marginal = jax.vmap(logit)(z[(np.arange(8) + distance) % 8], x)
    expected = 0.5 * (jax.nn.softplus(-joint) + jax.nn.softplus(marginal))
    loss = method.loss(variables, PRIOR, key, rows)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("contrasts", [1, 3, 7])
def test_a_padded_row_is_never_a_negative(contrasts: int) -> None:
    method, rows = jaxsbi.nre(contrasts=contrasts), batch()
    variables = trained(method, rows)
    weight = rows.weight.at[3].set(0.0)
    losses = []
    for value in (0.0, 50.0):
        theta = {"theta": rows.theta["theta"].at[3].set(value)}
        changed = jaxsbi.Simulations(theta, rows.x, weight)
        losses.append(np.delete(method.loss(variables, PRIOR, jax.random.key(5), changed), 3))
    assert np.all(np.isfinite(losses[0]))
    np.testing.assert_array_equal(losses[0], losses[1])


def test_more_contrasts_than_rows_are_cut_to_the_rows() -> None:
    method, rows = jaxsbi.nre(contrasts=50), batch(4)
    loss = method.loss(trained(method, rows), PRIOR, jax.random.key(0), rows)
    assert loss.shape == (4,)
    assert bool(jnp.all(jnp.isfinite(loss)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrasts": 0}, "nre: contrasts: expected a positive integer, got 0"),
        ({"odds": 0.0}, "nre: expected odds > 0, got 0.0"),
    ],
)
def test_bad_configuration(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        jaxsbi.nre(**options)


@pytest.mark.parametrize(("contrasts", "odds"), [(1, 1.0), (1, 0.5), (4, 1.0), (7, 2.0)])
def test_the_loss_is_a_choice_among_hypotheses(contrasts, odds) -> None:
    """By the definition: "independent of all K" against "drawn with the k-th of them"."""
    method = jaxsbi.nre(contrasts=contrasts, odds=odds)
    generator = np.random.default_rng(0)
    joint, contrast = generator.normal(size=5), generator.normal(size=(5, contrasts))
    valid = np.ones((5, contrasts), bool)
    loss = method._cross_entropy(*map(jnp.asarray, (joint, contrast, valid)))

    for row in range(5):
        independent = log_probability(contrast[row], 0, odds)
        dependent = log_probability(np.append(contrast[row, :-1], joint[row]), contrasts, odds)
        expected = -(independent + odds * dependent) / (1 + odds)
        assert float(loss[row]) == pytest.approx(expected, abs=1e-5)


def log_probability(logits, k, odds):
    """Return the log of K : odds r_1 : ... : odds r_K, normalised, at one of them."""
    terms = np.concatenate([[len(logits)], odds * np.exp(logits)])
    return np.log(terms[k] / terms.sum())


@pytest.mark.parametrize(("contrasts", "odds"), [(1, 1.0), (1, 0.5), (4, 2.0)])
def test_soft_labels_give_the_mean_over_who_made_it_and_who_is_left_out(contrasts, odds) -> None:
    generator = np.random.default_rng(0)
    logits, log_ratio = generator.normal(size=contrasts + 1), generator.normal(size=contrasts)
    made = np.exp(np.append(0.0, log_ratio))
    expected = 0.0
    for k, w in enumerate(made / made.sum()):
        others = np.delete(logits, k)
        dependent = [
            log_probability(np.append(np.delete(others, j), logits[k]), contrasts, odds)
            for j in range(contrasts)
        ]
        independent = log_probability(others, 0, odds)
        expected -= w * (independent + odds * np.mean(dependent)) / (1 + odds)
    method = jaxsbi.nre(contrasts=contrasts, odds=odds)
    found = method._soft(*map(jnp.asarray, (logits[0], logits[1:], log_ratio)))
    assert float(found) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("balance", [0.0, 100.0])
def test_a_lonely_row_has_a_finite_loss_and_gradient(balance) -> None:
    """All others are padding: there is nothing to contrast it with."""
    method, rows = jaxsbi.nre(balance=balance), batch()
    variables = trained(method, rows)
    alone = jaxsbi.Simulations(rows.theta, rows.x, jnp.zeros(8).at[2].set(1.0))

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return method.loss({**variables, "params": params}, PRIOR, jax.random.key(5), alone)[2]

    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(loss(variables["params"])))


@pytest.mark.parametrize("n", [4, 6])
def test_a_validation_set_of_one_row(n) -> None:
    fitted = jaxsbi.fit(
        jax.random.key(0), jaxsbi.nre(), PRIOR, batch(n), max_epochs=2, progress=False
    )
    assert np.all(np.isfinite(fitted.history.validation_loss))


def test_the_balance_is_a_penalty_on_the_batch() -> None:
    """By its definition, from the logits that the loss itself contrasts; padding has no say."""
    method, rows = jaxsbi.nre(balance=100.0), batch()
    assert method.contrasts == 1
    variables, key = trained(method, rows), jax.random.key(5)
    weight = rows.weight.at[jnp.array([1, 4])].set(0.0)
    rows = jaxsbi.Simulations(rows.theta, rows.x, weight)
    distance = int(jax.random.choice(jax.random.clone(key), 7, (1,), replace=False)[0]) + 1
    other = (np.arange(8) + distance) % 8
    z, valid = rows.theta["theta"][:, None], np.asarray(weight) > 0

    def d(z):
        logit = jax.vmap(lambda z, x: method.log_likelihood(variables, PRIOR, z, x))(z, rows.x)
        return np.asarray(jax.nn.sigmoid(logit))

    joint, independent = d(z)[valid], d(z[other])[valid & valid[other]]
    expected = 100.0 * (joint.mean() + independent.mean() - 1.0) ** 2
    plain = jaxsbi.nre(contrasts=1).loss(variables, PRIOR, jax.random.clone(key), rows)
    added = np.asarray(method.loss(variables, PRIOR, key, rows) - plain)
    np.testing.assert_allclose(added[valid], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(added[~valid], 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": -1.0}, "balance >= 0 and bound > 0"),
        ({"bound": 0.0}, "balance >= 0 and bound > 0"),
        ({"balance": 1.0, "contrasts": 4}, "binary classifier: expected contrasts=1 and odds=1"),
        ({"balance": 1.0, "odds": 2.0}, "binary classifier: expected contrasts=1 and odds=1"),
    ],
)
def test_bad_balance_and_bound(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        jaxsbi.nre(**options)


def test_a_bound_holds_everywhere_and_is_no_change_near_zero() -> None:
    plain, rows = jaxsbi.nre(), batch()
    variables = trained(plain, rows)
    z = jnp.linspace(-300.0, 300.0, 301)[:, None]

    def log_ratio(method):
        return jax.vmap(lambda z: method.log_likelihood(variables, PRIOR, z, rows.x[0]))(z)

    free, bounded = log_ratio(plain), log_ratio(jaxsbi.nre(bound=3.0))
    assert float(jnp.abs(free).max()) > 10.0
    np.testing.assert_allclose(bounded, 3.0 * np.tanh(free / 3.0), rtol=1e-4, atol=1e-5)


def posterior_of(method, rows: jaxsbi.Simulations) -> jaxsbi.Posterior:
    variables = jax.jit(lambda k: method.init(k, PRIOR, rows))(jax.random.key(2))
    return jaxsbi.Posterior(variables, PRIOR, method, DataSpec.of(rows.x, batched=True))


@configuration
class ExactRatio(NRE):
    """The ratio of x ~ N(theta, 1) for two numbers, times a constant in place of training."""

    def log_likelihood(self, variables, prior, z, x):
        n = x.size
        exact = -0.5 * jnp.sum((x - z) ** 2) + 0.5 * jnp.sum(x**2)
        return exact - 0.5 * jnp.sum(x) ** 2 / (n + 1) + 0.5 * jnp.log(n + 1.0) + variables["log_z"]


def test_the_normalization_of_a_known_ratio() -> None:
    posterior = jaxsbi.Posterior(
        {"log_z": jnp.log(0.7)}, PRIOR, ExactRatio(), DataSpec.of(jnp.zeros(2))
    )
    xs = jnp.array([[0.0, 0.3], [1.0, -2.0], [2.0, 1.5]])
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.vmap(lambda k, x: jaxsbi.methods.normalization(k, posterior, x, 4_000))(keys, xs)
    assert found.z.shape == found.ess.shape == (3,)
    # Four standard errors each, and the standard errors those of the ratio's variance.
    assert np.all(np.abs(found.z - 0.7) < 4 * found.standard_error)
    assert np.all(found.standard_error < 0.05)
    relative = (found.standard_error / found.z) ** 2
    np.testing.assert_allclose(found.ess, 4_000 / (1 + 4_000 * relative), rtol=1e-2)


def test_an_untrained_ratio_is_one() -> None:
    found = jaxsbi.methods.normalization(
        jax.random.key(0), posterior_of(jaxsbi.nre(), batch()), jnp.zeros(2), 100
    )
    assert float(found.z) == pytest.approx(1.0, abs=1e-6)
    assert float(found.ess) == pytest.approx(100.0, rel=1e-5)


def test_a_road_without_a_ratio_has_no_normalization() -> None:
    posterior = posterior_of(jaxsbi.npe(), batch())
    with pytest.raises(TypeError, match=r"expected a posterior of jaxsbi.nre, got one of NPE"):
        jaxsbi.methods.normalization(jax.random.key(0), posterior, jnp.zeros(2), 100)
