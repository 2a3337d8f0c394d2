"""The protocols: simulations, configurations, data specifications, posteriors and histories."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi.base import DataSpec, _log_prob, check_key, configuration, is_concrete, leaf

PRIOR = jaxsbi.Prior(b=dist.Uniform(-1.0, 2.0), a=dist.LogNormal(jnp.zeros(2), 0.5).to_event(1))
METHOD = jaxsbi.npe(density=jaxsbi.densities.MaskedAutoregressive(layers=1, hidden=4, depth=1))
X = jnp.array([0.3, -0.2, 0.7])


def make_simulations(n=8):
    key_theta, key_x = jax.random.split(jax.random.key(1))
    theta = jax.vmap(PRIOR.sample)(jax.random.split(key_theta, n))
    x = jax.random.normal(key_x, (n, 3)) + theta["b"][:, None]
    return jaxsbi.Simulations(theta, x, jnp.ones(n))


def make_posterior(seed=2, spread=0.3):
    """Return a posterior with random parameters: a trained one, without the training."""
    simulations = make_simulations()
    variables = jax.jit(lambda k, s: METHOD.init(k, PRIOR, s))(jax.random.key(seed), simulations)
    generator = np.random.default_rng(seed)
    variables["params"] = jax.tree.map(
        lambda a: a + jnp.asarray(spread * generator.normal(size=a.shape), a.dtype),
        variables["params"],
    )
    data = DataSpec.of(simulations.x, batched=True)
    return jaxsbi.Posterior(variables, PRIOR, METHOD, data)


@pytest.fixture(scope="module")
def posterior():
    return make_posterior()


def test_simulations_are_sliced_and_counted():
    simulations = dataclasses.replace(make_simulations(), weight=jnp.array([1.0, 0.0] * 4))
    assert (len(simulations), simulations.num_valid) == (8, 4)
    part = simulations[2:5]
    assert len(part) == 3
    np.testing.assert_array_equal(part.x, simulations.x[2:5])
    picked = simulations[np.array([7, 0])]
    np.testing.assert_array_equal(picked.theta["b"], simulations.theta["b"][jnp.array([7, 0])])


def test_configurations_are_equal_by_value_and_keep_arrays_as_leaves():
    @configuration
    class Example:
        size: int = 3
        scale: jax.Array = leaf(default=1.0)

    assert jax.tree.leaves(Example(scale=2.0)) == [2.0]
    assert jax.tree.structure(Example(scale=2.0)) == jax.tree.structure(Example(scale=3.0))
    assert jax.tree.structure(Example(size=4)) != jax.tree.structure(Example())
    assert Example(size=4, scale=1.0) == Example(size=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example().size = 4
    with pytest.raises(TypeError, match="positional"):
        Example(4)


def test_data_specification_describes_one_data_set():
    batch = {"image": np.zeros((5, 2, 3)), "count": np.zeros(5, int)}
    spec = DataSpec.of(batch, batched=True)
    assert spec == DataSpec.of({"image": np.ones((2, 3)), "count": np.array(4)})
    assert hash(spec) == hash(DataSpec.of(batch, batched=True))
    assert "image" in str(spec)
    assert "[2, 3]" in str(spec)
    one = spec.conform({"image": np.ones((2, 3)), "count": 4})
    assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(one))


def test_a_posterior_is_a_pytree_of_arrays(posterior):
    leaves, treedef = jax.tree.flatten(posterior)
    assert all(isinstance(a, jax.Array | np.ndarray) for a in leaves)
    again = treedef.unflatten(leaves)
    assert (again.method, again.data) == (posterior.method, posterior.data)


def test_draws_are_named_shaped_and_reproducible(posterior, key):
    draws = posterior.sample(key, X, 5)
    assert {name: a.shape for name, a in draws.items()} == {"b": (5,), "a": (5, 2)}
    jax.tree.map(np.testing.assert_array_equal, draws, posterior.sample(jax.random.key(0), X, 5))
    other = posterior.sample(jax.random.key(1), X, 5)
    assert not np.any(np.asarray(other["a"]) == np.asarray(draws["a"]))


def test_draws_never_leave_the_support(posterior):
    draws = posterior.sample(jax.random.key(3), 100.0 * X, 1_000)
    assert np.all((draws["b"] >= -1.0) & (draws["b"] <= 2.0))
    assert np.all(draws["a"] > 0.0)


def test_the_density_is_minus_infinity_off_the_support(posterior):
    inside = {"b": jnp.array(0.5), "a": jnp.ones(2)}
    assert np.isfinite(posterior.log_prob(inside, X))
    for outside in ({"b": jnp.array(2.5)}, {"a": jnp.array([1.0, -0.1])}):
        assert posterior.log_prob({**inside, **outside}, X) == -jnp.inf


def test_info_reports_each_draws_density(posterior, key):
    draws, info = posterior.sample_with_info(key, X, 5)
    density = jax.vmap(posterior.log_prob, (0, None))(draws, X)
    np.testing.assert_allclose(info.log_prob, density, atol=1e-4)


def test_everything_can_be_jitted_and_vmapped(posterior):
    """Over keys and observations together, over parameter sets, and over variables."""
    keys = jax.random.split(jax.random.key(4), 3)
    xs = jnp.stack([X, 2 * X, -X])
    many = jax.jit(jax.vmap(lambda k, x: posterior.sample(k, x, 5)))(jax.random.clone(keys), xs)
    for i in range(3):
        single = posterior.sample(keys[i], xs[i], 5)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), many, single)
    others = [posterior, make_posterior(seed=5)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *(p.variables for p in others))
    theta = {"b": jnp.array(0.5), "a": jnp.ones(2)}
    together = jax.vmap(lambda v: dataclasses.replace(posterior, variables=v).log_prob(theta, X))(
        stacked
    )
    np.testing.assert_allclose(together, [p.log_prob(theta, X) for p in others], rtol=1e-5)
    assert abs(float(together[0] - together[1])) > 1e-3


def test_the_density_can_be_differentiated(posterior):
    theta = {"b": jnp.array(0.5), "a": jnp.ones(2)}
    gradient = jax.grad(posterior.log_prob)(theta, X)
    assert all(np.all(np.isfinite(a)) and np.any(a != 0) for a in gradient.values())


def test_a_learned_posterior_refuses_another_prior(posterior):
    with pytest.raises(NotImplementedError, match=r"NPE.*importance.*nle, nre or emulator"):
        posterior.with_prior(PRIOR)


def test_only_typed_single_keys_are_keys(key):
    check_key(key)
    with pytest.raises(TypeError, match=r"jax.random.key\(seed\).*uint32"):
        check_key(jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match=r"got 0"):
        check_key(0)
    with pytest.raises(TypeError, match=r"one key, got an array of shape \(2,\).*vmap"):
        check_key(jax.random.split(key))


def test_concrete_values_are_told_from_traced_ones():
    assert is_concrete({"a": jnp.ones(2), "b": 1.0})
    seen = []
    jax.jit(lambda a: seen.append(is_concrete((a, 1.0))) or a)(1.0)
    assert seen == [False]


def test_history_counts_epochs_and_knows_the_best_loss():
    options = {"best_epoch": np.array(2), "stopped": "patience", "num_invalid": 0}
    options |= {"compile_seconds": 1.0, "run_seconds": 2.0, "num_simulations": (9, 1)}
    losses = np.array([3.0, 1.0, 2.0])
    one = jaxsbi.History(train_loss=losses, validation_loss=losses, **options)
    assert (one.epochs, one.best_loss) == (3, 1.0)
    members = np.array([[3.0, 1.0, np.nan], [4.0, 3.0, 2.0]])
    two = jaxsbi.History(train_loss=members, validation_loss=members, **options)
    assert (two.epochs, two.best_loss) == (3, 1.5)


def test_an_observation_may_be_closed_over(posterior, key):
    # A constant in a traced function is not traced itself, but what is computed of it is.
    draws = jax.jit(lambda key: posterior.sample(key, X, 5))(jax.random.clone(key))
    again = posterior.sample(key, X, 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), draws, again)


def test_integers_of_an_observation_do_not_wrap():
    spec = DataSpec.of(jnp.zeros(1, jnp.uint8))
    assert spec.conform(np.array([200])).dtype == jnp.uint8
    with pytest.raises(ValueError, match="from 0 to 255, as uint8 holds, got 300"):
        spec.conform(np.array([300]))


def test_integers_may_be_closed_over_under_jit():
    x = jnp.array([200, 3])
    spec = DataSpec.of(x)
    assert jax.jit(lambda a: a + jnp.sum(spec.conform(x)))(1) == 204


def test_python_numbers_do_not_compile_the_density_again(posterior):
    x = jnp.zeros(posterior.data.leaves[0][1])
    theta = jax.tree.map(lambda a: a[0], posterior.sample(jax.random.key(0), x, 1))
    before = _log_prob._cache_size()
    posterior.log_prob(theta, x)
    compiled = _log_prob._cache_size()
    assert any(a.ndim == 0 for a in theta.values())
    posterior.log_prob({name: a if a.ndim else float(a) for name, a in theta.items()}, x)
    assert compiled <= before + 1
    assert _log_prob._cache_size() == compiled
