"""Every density × the invariants of a conditional density, with random parameters."""

import functools
from unittest import mock

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxsbi import densities
from jaxsbi.densities import autoregressive, coupling

CONTEXT = 3
# Name → configuration, and how many layers may each lose some float32 digits.
REGISTRY = {
    "Gaussian": (densities.Gaussian(hidden=8), 1),
    "GaussianMixture": (densities.GaussianMixture(components=3, hidden=8), 1),
    "MaskedAutoregressive": (densities.MaskedAutoregressive(layers=3, hidden=8), 3),
    "SplineAutoregressive": (densities.SplineAutoregressive(layers=2, hidden=8, knots=5), 2),
    "SplineCoupling": (densities.SplineCoupling(layers=3, hidden=8, knots=5), 3),
}
OPTIONS = {"mixing": "linear", "residual": True}
# Every flow again, with all its options.
REGISTRY |= {
    f"{name} with options": (density.clone(**OPTIONS), layers)
    for name, (density, layers) in REGISTRY.items()
    if hasattr(density, "layers")
}
DRAWS = 4_000
GAINS = {
    "MaskedAutoregressive": autoregressive.SHIFT_GAIN,
    "SplineAutoregressive": autoregressive.SHIFT_GAIN,
    "SplineCoupling": coupling.SHIFT_GAIN,
}

# Compiling is what these tests cost, so two dimensions stand for all in the fast part.
registry = pytest.mark.parametrize("name", REGISTRY)
ONE, FIVE = pytest.param(1, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)
dims = pytest.mark.parametrize("dim", [ONE, 2, FIVE])


def configured(name, dim):
    return REGISTRY[name][0].clone(dim=dim)


def random_params(name, dim, scale, dtype=np.float32):
    """Return parameters N(0, scale²) in place of the initial ones, many of which are zero."""
    density = configured(name, dim)
    shapes = jax.eval_shape(
        lambda key: density.init(key, jnp.zeros(dim), jnp.zeros(CONTEXT), method="log_prob"),
        jax.random.key(0),
    )
    generator = np.random.default_rng(dim)

    def draw(path, a):
        # A linear path to the shifts acts with a gain; it is the effective weights that have the
        # stated scale. More inputs have smaller weights each, as in any trained network: else
        # each layer of five dimensions would multiply its input.
        gain = GAINS.get(name.split()[0], 1.0) if "shift" in jax.tree_util.keystr(path) else 1.0
        inputs = a.shape[-2] if a.ndim > 1 and "bias" not in jax.tree_util.keystr(path) else 1
        return jnp.asarray(scale / gain / inputs**0.5 * generator.normal(size=a.shape), dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def a_context(dtype=jnp.float32):
    return jnp.asarray([0.5, -1.0, 0.3], dtype)


@functools.partial(jax.jit, static_argnums=0)
def drawn(density, params, context, keys):
    """Return draws, the log-density they come with, and the one they are given afterwards."""

    def one(key):
        z, own = density.apply(params, key, context, method="sample_and_log_prob")
        return z, own, density.apply(params, z, context, method="log_prob")

    return jax.vmap(one)(keys)


def draws_of(name, dim, scale):
    keys = jax.random.split(jax.random.key(1), DRAWS)
    density, params = configured(name, dim), random_params(name, dim, scale)
    return tuple(map(np.asarray, drawn(density, params, a_context(), keys)))


@functools.partial(jax.jit, static_argnums=0)
def log_density(density, params, context, z):
    """Return the log-density of many points, a thousand at a time."""
    return jax.lax.map(
        lambda z: density.apply(params, z, context, method="log_prob"), z, batch_size=1_000
    )


def change_of_variables(density, params, context, u):
    """Return the draw that noise `u` leads to, its log-density, and autodiff's word on it."""
    key = jax.random.key(3)  # chooses a mixture's component: the same one for every u

    def generate(u):
        # The one draw of noise a density makes is put in by hand.
        with mock.patch.object(jax.random, "normal", return_value=u):
            z, log_prob = density.apply(params, key, context, method="sample_and_log_prob")
        return z, (z, log_prob)

    jacobian, (z, log_prob) = jax.jacfwd(generate, has_aux=True)(u)
    normal = jnp.sum(jax.scipy.stats.norm.logpdf(u))
    return z, log_prob, normal - jnp.linalg.slogdet(jacobian)[1]


def test_every_public_density_is_registered():
    # Those of whole numbers have a registry of their own (test_discrete.py).
    others = {"Density", "View", "Mixed", "Parts"}
    discrete = {name for name in densities.__all__ if hasattr(getattr(densities, name), "law")}
    assert set(densities.__all__) - others - discrete == {name.split()[0] for name in REGISTRY}


@dims
@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "GaussianMixture"])
def test_untrained_is_the_standard_normal(name, dim, key):
    density = configured(name, dim)

    @jax.jit
    def untrained(key, z):
        context = a_context()
        params = density.init(key, z[0], context, method="log_prob")
        return jax.vmap(lambda z: density.apply(params, z, context, method="log_prob"))(z)

    z = jnp.linspace(-6.0, 6.0, 40 * dim).reshape(40, dim)
    expected = scipy.stats.norm.logpdf(z).sum(1)
    np.testing.assert_allclose(untrained(key, z), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dim", [1, 2, FIVE])
@registry
def test_draws_carry_their_log_density(name, dim):
    z, own, log_prob = draws_of(name, dim, 0.5)
    assert (z.shape, own.shape, log_prob.shape) == ((DRAWS, dim), (DRAWS,), (DRAWS,))
    assert z.dtype == own.dtype == log_prob.dtype == np.float32
    error = np.abs(own - log_prob) / (1.0 + np.abs(log_prob))
    # Random parameters give a few draws to steep places, where digits are lost in any float32.
    assert np.quantile(error, 0.99) < 2e-4 * REGISTRY[name][1]
    assert np.max(error) < 1e-2


@pytest.mark.parametrize("dim", [1, 2, FIVE])
@registry
def test_large_parameters_keep_most_float32_digits(name, dim):
    # Residual blocks and linear maps multiply: with weights of size one nearly all draws are far.
    z, own, log_prob = draws_of(name, dim, 0.6 if "options" in name else 1.0)
    error = np.abs(own - log_prob) / (1.0 + np.abs(log_prob))
    assert np.all(np.isfinite(z))
    # Random weights this large also throw draws a million standard deviations out, where nobody
    # trains: digits are asked for up to a thousand.
    near = np.abs(z).max(axis=1) < 1e3
    assert near.mean() > 0.3
    assert np.quantile(error[near], 0.9) < 1e-2


@dims
@registry
def test_log_density_is_the_change_of_variables_in_float64(name, dim, x64):
    density, context = configured(name, dim), a_context(float)
    params = random_params(name, dim, 0.5, np.float64)
    u = 1.5 * jax.random.normal(jax.random.key(4), (20, dim))

    @jax.jit
    def everything(params, u):
        z, own, autodiff = jax.vmap(lambda u: change_of_variables(density, params, context, u))(u)
        log_prob = jax.vmap(lambda z: density.apply(params, z, context, method="log_prob"))(z)
        return own, autodiff, log_prob

    own, autodiff, log_prob = everything(params, u)
    np.testing.assert_allclose(own, log_prob, atol=1e-9)
    if name != "GaussianMixture":  # whose density is no single change of variables
        np.testing.assert_allclose(own, autodiff, atol=1e-9)


@registry
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_what_was_trained_in_float32_is_read_where_jax_has_double_precision(name, precision):
    """As importance weights by an exact likelihood do."""
    density, params, context = configured(name, 2), random_params(name, 2, 0.3), a_context()
    z = np.asarray(jax.random.normal(jax.random.key(7), (20, 2)))
    expected = log_density(density, params, context, jnp.asarray(z))
    with jax.enable_x64(True):
        found = log_density(density, params, context, jnp.asarray(z, precision))
        keys = jax.random.split(jax.random.key(8), 20)
        _, own, again = drawn(density, params, context, keys)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(own, again, atol=1e-2)


@dims
@registry
def test_values_and_gradients_are_finite(name, dim):
    """At zero parameters, at very large ones, and far in the tails."""
    density = configured(name, dim)
    far = jnp.linspace(-30.0, 30.0, 9)[:, None] * jnp.cos(jnp.arange(1.0 * dim))[None]

    @jax.jit
    @jax.value_and_grad
    def total(inputs):
        params, context, z = inputs
        return jnp.sum(jax.vmap(lambda z: density.apply(params, z, context, method="log_prob"))(z))

    for scale in (0.0, 0.5, 3.0):
        found = total((random_params(name, dim, scale), a_context(), far))
        assert all(np.all(np.isfinite(part)) for part in jax.tree.leaves(found))


@pytest.mark.parametrize("dim", [1, 2])
@registry
def test_integrates_to_one_and_its_draws_follow_it(name, dim):
    """Quadrature of the log-density against its own draws: total mass, and each marginal."""
    draws = draws_of(name, dim, 0.3)[0]
    # Nodes as dense as a distribution with broad tails, so that every scale of a flow is resolved.
    middle = np.median(draws, axis=0)
    width = np.subtract(*np.quantile(draws, [0.75, 0.25], axis=0))
    t = np.linspace(-7.0, 7.0, 501)
    nodes = middle + width * np.sinh(t)[:, None]
    measure = width * (np.cosh(t) * (t[1] - t[0]))[:, None]
    grid = np.stack(np.meshgrid(*nodes.T, indexing="ij"), -1).reshape(-1, dim)
    value = log_density(
        configured(name, dim), random_params(name, dim, 0.3), a_context(), jnp.asarray(grid)
    )
    mass = np.exp(np.reshape(value, (t.size,) * dim))
    for axis in range(dim):
        mass = mass * np.expand_dims(measure[:, axis], tuple(a for a in range(dim) if a != axis))
    assert mass.sum() == pytest.approx(1.0, abs=2e-3)
    for axis in range(dim):
        marginal = mass.sum(tuple(a for a in range(dim) if a != axis))
        # A node's mass lies half below it and half above.
        cumulative = np.cumsum(marginal) - 0.5 * marginal
        cdf = functools.partial(np.interp, xp=nodes[:, axis], fp=cumulative)
        # Twenty-four tests at a level of 1e-4 each: a false alarm for 2 or 3 of 1000 keys.
        assert scipy.stats.kstest(draws[:, axis], cdf).pvalue > 1e-4


@pytest.mark.slow
@registry
def test_draws_weight_a_known_density_to_one(name):
    """E_q[f / q] is one for any density f; here a normal inside the bulk of five dimensions."""
    z, _, log_prob = draws_of(name, 5, 0.3)
    log_f = scipy.stats.norm.logpdf(z, z.mean(axis=0), 0.7 * z.std(axis=0)).sum(1)
    weight = np.exp(log_f - log_prob)
    # Four standard errors of the mean, from the weights' own scatter.
    assert np.mean(weight) == pytest.approx(1.0, abs=4 * np.std(weight) / np.sqrt(DRAWS))


@registry
def test_the_context_matters(name):
    density, params = configured(name, 2), random_params(name, 2, 0.5)
    z = jnp.zeros((1, 2))
    one, other = (log_density(density, params, sign * a_context(), z) for sign in (1.0, -1.0))
    assert abs(float(one[0] - other[0])) > 1e-3


@pytest.mark.parametrize(
    "name",
    ["GaussianMixture", pytest.param("SplineAutoregressive", marks=pytest.mark.slow)],
)
def test_view_is_the_same_distribution(name, key):
    density, params = configured(name, 2), random_params(name, 2, 0.5)

    @jax.jit
    def view(params, key):
        distribution = density.apply(params, a_context(), method="distribution")
        assert isinstance(distribution, distrax.Distribution)
        assert distribution.event_shape == (2,)
        assert distribution.batch_shape == ()
        draws, log_prob = distribution.sample_and_log_prob(seed=key, sample_shape=(3, 2))
        plain = distribution.sample(seed=jax.random.key(5), sample_shape=7)
        return draws, log_prob, distribution.log_prob(draws), plain

    draws, own, log_prob, plain = view(params, key)
    assert (draws.shape, own.shape, plain.shape) == ((3, 2, 2), (3, 2), (7, 2))
    np.testing.assert_allclose(own, log_prob, atol=1e-3)
    expected = log_density(density, params, a_context(), draws.reshape(6, 2))
    np.testing.assert_allclose(log_prob.ravel(), expected, atol=1e-4)


@registry
def test_a_density_without_its_size_says_so(name, key):
    with pytest.raises(ValueError, match=r"dim to be set.*clone\(dim=d\)"):
        REGISTRY[name][0].init(key, jnp.zeros(2), jnp.zeros(CONTEXT), method="log_prob")


@registry
def test_configurations_are_hashable_equal_and_printable(name):
    density = REGISTRY[name][0]
    assert isinstance(density, nn.Module)
    again = density.clone()
    assert (again, hash(again)) == (density, hash(density))
    assert density.clone(dim=3) != density.clone(dim=4)
    assert "hidden = 8" in repr(density)


def test_an_unknown_activation_lists_the_known_ones(key):
    density = densities.SplineCoupling(activation="rulu", dim=2)
    with pytest.raises(ValueError, match=r"activation: expected one of .*'relu'.*got 'rulu'"):
        density.init(key, jnp.zeros(2), jnp.zeros(CONTEXT), method="log_prob")


def test_an_unknown_mixing_lists_the_known_ones(key):
    density = densities.SplineCoupling(mixing="shuffle", dim=2)
    with pytest.raises(ValueError, match=r"mixing: expected one of 'permute', 'linear', got"):
        density.init(key, jnp.zeros(2), jnp.zeros(CONTEXT), method="log_prob")


def test_rule_of_the_couplings_product_is_that_of_the_product(key):
    weights = jax.random.normal(key, (3, 4, 5))
    features = jax.random.normal(jax.random.fold_in(key, 1), (2, 5))

    def loss(product, weights, h):
        return jnp.sum(jnp.sin(product(weights, h)))

    def derivatives(product):
        one = functools.partial(loss, product)
        gradient = jax.vmap(jax.grad(one, (0, 1)), (None, 0))(weights, features)
        return gradient, jax.vmap(jax.hessian(one, 1), (None, 0))(weights, features)

    rule = coupling._per_number
    for a, b in zip(*map(jax.tree.leaves, map(derivatives, (rule, rule.fun))), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("density", "option"),
    [(densities.GaussianMixture, "components"), (densities.SplineCoupling, "layers")],
)
def test_none_is_no_density(density, option):
    with pytest.raises(ValueError, match=f"{density.__name__}: expected {option} >= 1, got 0"):
        density(**{option: 0})
