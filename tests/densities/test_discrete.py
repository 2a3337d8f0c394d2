"""Every discrete density × the invariants of a law of whole numbers, with random parameters."""

import functools
import inspect
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxsbi import densities
from jaxsbi.densities import glm, mass
from jaxsbi.densities.discrete import _Discrete

CONTEXT = 3
# Name → configuration, and the numbers that carry all but 1e-12 of its probability below.
REGISTRY = {
    "MaskedBernoulli": (densities.MaskedBernoulli(hidden=8), range(2)),
    "MaskedBinomial": (densities.MaskedBinomial(total=4, hidden=8), range(5)),
    "MaskedCategorical": (densities.MaskedCategorical(classes=3, hidden=8), range(3)),
    "MaskedLogisticMixture": (densities.MaskedLogisticMixture(components=2, hidden=8), None),
}
FINITE = [name for name, (_, values) in REGISTRY.items() if values is not None]
DRAWS = 4_000
registry = pytest.mark.parametrize("name", REGISTRY)


def configured(name, dim):
    return REGISTRY[name][0].clone(dim=dim)


def variables(name, dim, scale, dtype=np.float32):
    """Return random parameters, and statistics of random training data."""
    density = configured(name, dim)
    generator = np.random.default_rng(dim)
    rows = jnp.asarray(generator.integers(0, 2, (50, dim)), density.law.dtype)
    context = jnp.asarray(generator.normal(size=(50, CONTEXT)), dtype)
    kept = jax.tree.map(lambda a: a.astype(dtype), measured(density, rows, context))
    shapes = jax.eval_shape(
        lambda key: density.init(key, rows[0], context[0], method="log_prob"), jax.random.key(0)
    )
    params = jax.tree.map(
        lambda a: jnp.asarray(scale * generator.normal(size=a.shape), dtype), shapes["params"]
    )
    return {"params": params, "statistics": kept}


def a_context(dtype=jnp.float32):
    return jnp.asarray([0.5, -1.0, 0.3], dtype)


@functools.partial(jax.jit, static_argnums=0)
def measured(density, rows, context):
    return density.measure(rows, context)


@functools.partial(jax.jit, static_argnums=0)
def log_mass(density, variables, context, x):
    return jax.vmap(lambda x: density.apply(variables, x, context, method="log_prob"))(x)


@functools.partial(jax.jit, static_argnums=0)
def drawn(density, variables, context, keys):
    return jax.vmap(
        lambda key: density.apply(variables, key, context, method="sample_and_log_prob")
    )(keys)


def everything(name, dim):
    density, values = REGISTRY[name]
    table = list(itertools.product(values, repeat=dim))
    return jnp.asarray(table, density.law.dtype)


def test_every_public_discrete_density_is_registered():
    public = {
        name
        for name in densities.__all__
        if inspect.isclass(found := getattr(densities, name)) and issubclass(found, _Discrete)
    }
    assert public == set(REGISTRY)


@pytest.mark.parametrize("name", FINITE)
def test_probabilities_add_up_to_one(name, x64):
    x = everything(name, 3)
    value = log_mass(configured(name, 3), variables(name, 3, 0.7, float), a_context(float), x)
    assert float(jnp.sum(jnp.exp(value))) == pytest.approx(1.0, abs=1e-12)


def test_a_logistic_mixture_adds_up_to_one(x64):
    """Two numbers: the sum telescopes, so all but the tails beyond the table must be there."""
    name = "MaskedLogisticMixture"
    law, generator = mass.LogisticMixture(3), np.random.default_rng(0)
    k = np.arange(-3_000, 3_001)
    log_prob = jax.jit(jax.vmap(law.log_prob, (0, None, None)))
    for scale in (0.1, 1.0):
        raw = scale * generator.normal(size=law.num_parameters) - 1.0
        for spread in ({}, {"location": 2.0, "scale": 0.7}):
            total = np.exp(log_prob(k, raw, spread)).sum()
            assert total == pytest.approx(1.0, abs=1e-4)
    density, given = configured(name, 2), variables(name, 2, 0.05, float)
    table = np.meshgrid(np.arange(-40, 41), np.arange(-400, 401))
    x = jnp.asarray(np.stack(table, -1).reshape(-1, 2), jnp.int32)
    total = float(jnp.sum(jnp.exp(log_mass(density, given, a_context(float), x))))
    assert total == pytest.approx(1.0, abs=1e-3)


@registry
def test_draws_have_their_probabilities(name):
    """A chi-square test of 4,000 draws of two numbers."""
    density, given = configured(name, 2), variables(name, 2, 0.5)
    keys = jax.random.split(jax.random.key(1), DRAWS)
    x, own = drawn(density, given, a_context(), keys)
    assert (x.shape, x.dtype) == ((DRAWS, 2), density.law.dtype)
    np.testing.assert_allclose(own, log_mass(density, given, a_context(), x), atol=1e-5)
    _, once, count = np.unique(np.asarray(x), axis=0, return_index=True, return_counts=True)
    expected = DRAWS * np.exp(np.asarray(own, float)[once])
    often = expected > 5
    rest = DRAWS - expected[often].sum(), DRAWS - count[often].sum()
    seen, expected = count[often].astype(float), expected[often]
    if rest[0] > 5:
        seen, expected = np.append(seen, rest[1]), np.append(expected, rest[0])
    assert seen.size > 2
    # Without rescaling: probabilities of what was never seen must not hide.
    statistic = np.sum((seen - expected) ** 2 / expected)
    # Four tests at a level of 1e-4 each.
    assert scipy.stats.chi2.sf(statistic, seen.size - 1) > 1e-4


@registry
def test_each_number_depends_on_those_before_it(name):
    """The Jacobian of the raw parameters with respect to the features is block triangular."""
    dim, density, given = 3, configured(name, 3), variables(name, 3, 0.5)

    @jax.jit
    def jacobian(given, context):
        x = jnp.zeros(dim, density.law.dtype)
        features = density.apply(given, x, jnp.float32, method="features")
        return jax.jacobian(lambda f: density.apply(given, f, context, method="_raw"))(features)

    found = np.asarray(jacobian(given, a_context()))
    strength = np.abs(found.reshape(dim, -1, dim, found.shape[-1] // dim)).max(axis=(1, 3))
    np.testing.assert_array_equal(strength > 0, np.tril(np.ones((dim, dim)), -1) > 0)


@registry
def test_values_and_gradients_are_finite_in_float32(name):
    """At zero parameters and at very large ones; the derivative is for theta and parameters."""
    density = configured(name, 3)
    values = REGISTRY[name][1] or (-1_000_000, -3, 0, 1, 2_000, 2**30)
    x = jnp.asarray([np.resize(np.roll(values, i), 3) for i in range(len(values))])
    x = x.astype(density.law.dtype)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def total(params, context, kept):
        given = {"params": params, "statistics": kept}
        return jnp.sum(jax.vmap(lambda x: density.apply(given, x, context, method="log_prob"))(x))

    for scale in (0.0, 1.0, 100.0):
        given = variables(name, 3, scale)
        found = total(given["params"], a_context(), given["statistics"])
        assert all(np.all(np.isfinite(part)) for part in jax.tree.leaves(found))


@pytest.mark.parametrize("name", ["MaskedBinomial", "MaskedCategorical"])
def test_what_cannot_be_has_probability_zero(name):
    x = jnp.asarray([[0, -1, 0], [7, 0, 1]])
    assert np.all(log_mass(configured(name, 3), variables(name, 3, 0.5), a_context(), x) == -np.inf)


@pytest.mark.parametrize("name", ["MaskedBernoulli", "MaskedLogisticMixture"])
def test_views_and_configurations(name, key):
    density, given = configured(name, 3), variables(name, 3, 0.5)

    @jax.jit
    def draw(given, key):
        view = nn.apply(lambda d: d.distribution(a_context()), density)(given)
        x, own = view.sample_and_log_prob(seed=key, sample_shape=(5,))
        return x, own, view.log_prob(x)

    draws, own, log_prob = draw(given, key)
    np.testing.assert_allclose(own, log_prob, atol=1e-5)
    assert (density.clone(), hash(density.clone())) == (density, hash(density))
    with pytest.raises(ValueError, match=r"dim to be set.*clone\(dim=d\)"):
        REGISTRY[name][0].init(key, draws[0], a_context(), method="log_prob")


def test_far_cells_keep_their_digits():
    """Against float64: tails, and cells that float32 differences of asinh would lose."""
    law = mass.LogisticMixture(1)
    k = np.array([-100_000, -50, -1, 0, 1, 30, 4_000, 100_000])
    raw = np.array([0.3, -1.0, 0.0, 0.2, 0.1])
    log_prob = jax.jit(jax.vmap(lambda k, raw: law.log_prob(k, raw, {}), (0, None)))
    value = log_prob(k, np.asarray(raw, np.float32))
    with jax.enable_x64(True):
        exact = log_prob(k, raw)
        _, location, log_scale = map(float, map(jnp.squeeze, law._unpack(jnp.asarray(raw))))
        scale = np.exp(log_scale)
        near = np.abs(k) < 100
        edges = (np.arcsinh(k[near][:, None] + np.array([-0.5, 0.5])) - location) / scale
        plain = np.log(np.diff(scipy.stats.logistic.cdf(edges), axis=1)[:, 0])
    np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(exact[near][:-1], plain[:-1], rtol=1e-6)


def test_the_start_is_a_logistic_regression():
    """Newton's method ends where the penalised likelihood has no gradient, separable or not."""
    generator = np.random.default_rng(0)
    context = generator.normal(size=(400, 2))
    log_odds = context @ np.array([[2.0, 0.0, 30.0], [-1.0, 0.0, 0.0]]) + np.array([0.5, -9.0, 0.0])
    k = log_odds + generator.logistic(size=log_odds.shape) > 0
    found = glm.logistic_regression(jnp.asarray(k), 1, jnp.asarray(context, jnp.float32))
    weights = np.concatenate([found["offset"], found["slopes"][:, 0]], 1).astype(float)
    inputs = np.concatenate([np.ones((400, 1)), context], 1)
    residual = k - scipy.special.expit(inputs @ weights.T)
    gradient = inputs.T @ residual - np.array([0.01, 1.0, 1.0])[:, None] * weights.T
    # Out of 400: the offset of what (almost) never happens starts half a trial off.
    assert np.abs(gradient).max() < 0.02
    assert weights[0] == pytest.approx([0.5, 2.0, -1.0], abs=0.6)
