"""The Prior: names, shapes, models, transformations and errors."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

from jaxsbi.latent import PriorError
from jaxsbi.priors import Prior


def named(low: float = -1.0) -> Prior:
    return Prior(
        width=dist.LogNormal(-2.0, 0.5),
        position=dist.Uniform(low * jnp.ones(2), jnp.ones(2)).to_event(1),
        angle=dist.VonMises(0.0, 1.0),
        batch=dist.Normal(np.zeros((2, 1)), np.ones(3)),
        weights=dist.Dirichlet(np.ones(3)),
    )


def model() -> None:
    mean = numpyro.sample("mean", dist.Normal(1.0, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("group", 3):
        numpyro.sample("effect", dist.Normal(mean, scale))
    low = numpyro.deterministic("low", mean - 1.0)
    numpyro.sample("bounded", dist.Uniform(low, mean + scale))


def test_names_shapes_and_dim_keep_the_order_of_declaration() -> None:
    prior = named()
    assert prior.names == ("width", "position", "angle", "batch", "weights")
    assert prior.shapes == {
        "width": (),
        "position": (2,),
        "angle": (),
        "batch": (2, 3),
        "weights": (3,),
    }
    assert prior.dim == 1 + 2 + 1 + 6 + 2
    assert [name for name, exact in prior.exact.items() if not exact] == ["angle", "weights"]
    theta = prior.sample(jax.random.key(0))
    assert tuple(theta) == prior.names
    assert {name: value.shape for name, value in theta.items()} == prior.shapes
    assert tuple(prior.from_latent(jnp.zeros(prior.dim))) == prior.names
    assert "weights: Dirichlet[3] (by its support)" in repr(prior)


def test_z_is_concatenated_in_the_order_of_names() -> None:
    prior = Prior(b=dist.Normal(0.0, 1.0), a=dist.Normal(10.0, 2.0))
    np.testing.assert_allclose(prior.to_latent({"a": 14.0, "b": -1.0}), [-1.0, 2.0])


def test_log_prob_is_the_sum_of_numpyro_densities() -> None:
    prior = named()
    theta = prior.sample(jax.random.key(3))
    expected = (
        dist.LogNormal(-2.0, 0.5).log_prob(theta["width"])
        - 2 * np.log(2.0)
        + dist.VonMises(0.0, 1.0).log_prob(theta["angle"])
        + scipy.stats.norm.logpdf(theta["batch"]).sum()
        + np.log(2.0)
    )
    np.testing.assert_allclose(prior.log_prob(theta), expected, rtol=1e-5)
    z = prior.to_latent(theta)
    volume = prior.latent_log_prob(z) - prior.log_prob(theta)
    np.testing.assert_allclose(prior.log_abs_det_jacobian(z), volume, atol=1e-4)


@pytest.mark.parametrize("bad", [-1.5, 1.5, np.nan, np.inf, -np.inf])
def test_log_prob_outside_the_support(bad: float) -> None:
    prior = named()
    theta = prior.sample(jax.random.key(0))
    for name in ("position", "width", "weights"):
        outside = {**theta, name: jnp.full_like(theta[name], -abs(bad) if name == "width" else bad)}
        value, slope = jax.value_and_grad(prior.log_prob)(outside)
        assert value == -np.inf
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_log_prob_of_a_pushed_base_outside_its_support() -> None:
    # The codomain of an affine map is all of R; the base is not.
    shifted = dist.TransformedDistribution(
        dist.Uniform(0.0, 1.0), dist.transforms.AffineTransform(2.0, 3.0)
    )
    prior = Prior(x=shifted)
    assert prior.log_prob({"x": 6.0}) == -np.inf
    np.testing.assert_allclose(prior.log_prob({"x": 4.0}), -np.log(3.0), rtol=1e-6)


def test_the_boundary_has_a_finite_z() -> None:
    prior = Prior(u=dist.Uniform(-1.0, 1.0), e=dist.Exponential(1.0), b=dist.Beta(2.0, 2.0))
    for theta in ({"u": -1.0, "e": 0.0, "b": 0.0}, {"u": 1.0, "e": 50.0, "b": 1.0}):
        assert np.isfinite(prior.to_latent(theta)).all()


def test_far_z_stays_inside_the_support() -> None:
    prior = Prior(u=dist.Uniform(-1.0, 3.0), n=dist.Normal(0.0, 1.0), b=dist.Beta(2.0, 3.0))
    for z in (-12.0, 12.0):
        theta = prior.from_latent(jnp.full(3, z))
        assert np.isfinite(prior.log_prob(theta)) or theta["b"] in (0.0, 1.0)
        assert -1.0 <= theta["u"] <= 3.0


def test_model_conditionals() -> None:
    prior = Prior(model)
    assert prior.names == ("mean", "scale", "effect", "bounded")
    assert prior.dim == 6
    assert all(prior.exact.values())
    theta = prior.from_latent(jnp.asarray([0.5, 0.0, 1.0, -1.0, 0.0, 0.0]))
    assert tuple(theta) == prior.names
    scale = scipy.stats.halfnorm.median()
    np.testing.assert_allclose(theta["mean"], 2.0)
    np.testing.assert_allclose(theta["scale"], scale, rtol=1e-5)
    np.testing.assert_allclose(theta["effect"], [2.0 + scale, 2.0 - scale, 2.0], rtol=1e-5)
    np.testing.assert_allclose(theta["bounded"], 1.0 + (scale + 1.0) / 2, rtol=1e-5)
    np.testing.assert_allclose(prior.to_latent(theta), [0.5, 0.0, 1.0, -1.0, 0.0, 0.0], atol=1e-5)


def test_model_density_against_numpyro_and_jacobian() -> None:
    prior = Prior(model)
    z = jnp.asarray([0.5, 0.2, 1.0, -1.0, 0.3, -0.4])
    theta = prior.from_latent(z)
    expected, _ = numpyro.infer.util.log_density(model, (), {}, dict(theta))
    np.testing.assert_allclose(prior.log_prob(theta), expected, rtol=1e-5)

    def flat(z: Any) -> Any:
        return jnp.concatenate([jnp.ravel(v) for v in prior.from_latent(z).values()])

    volume = np.linalg.slogdet(jax.jacfwd(flat)(z))[1]
    np.testing.assert_allclose(prior.log_prob(theta) + volume, prior.latent_log_prob(z), rtol=1e-5)
    assert np.isfinite(jax.grad(lambda z: flat(z).sum())(z)).all()


def test_model_with_conditional_shapes_and_unusable_quantiles() -> None:
    def skewed() -> None:
        a = numpyro.sample("a", dist.LogNormal(-2.0, 1.0))
        numpyro.sample("b", dist.Gamma(a, 1.0))  # a is often too small for float32 quantiles
        numpyro.sample("c", dist.Gamma(2.0 + a, 1.0))

    prior = Prior(skewed)
    assert prior.exact == {"a": True, "b": False, "c": True}
    z = jnp.asarray([0.3, -0.5, 1.0])
    np.testing.assert_allclose(prior.to_latent(prior.from_latent(z)), z, atol=1e-4)
    assert np.isfinite(jax.jacrev(prior.latent_log_prob)(z)).all()


def test_model_is_untouched_by_a_model_around_it() -> None:
    prior = Prior(model)

    def outer() -> None:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([prior.dim]))
        prior.from_latent(z)

    sites = numpyro.handlers.trace(numpyro.handlers.seed(outer, jax.random.key(0))).get_trace()
    assert list(sites) == ["z"]


def _draw_to_latent(prior: Prior, key: Any) -> Any:
    return prior.to_latent(prior.sample(key))


def test_model_draws_are_normal_in_z() -> None:
    prior = Prior(model)
    keys = jax.random.split(jax.random.key(4), 2000)
    z = jax.vmap(lambda key: _draw_to_latent(prior, key))(keys)
    for column in np.asarray(z).T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4


def test_equal_structures_trace_once() -> None:
    @jax.jit
    @chex.assert_max_traces(n=1)
    def densities(prior: Prior, zs: Any) -> Any:
        def one(z: Any) -> Any:
            theta = prior.from_latent(z)
            return prior.log_prob(theta) + prior.latent_log_prob(prior.to_latent(theta))

        return jax.vmap(one)(zs)

    zs = jax.random.normal(jax.random.key(0), (5, named().dim))
    first = densities(named(), zs)
    second = densities(named(-2.0), zs)
    assert first.shape == (5,)
    assert not np.allclose(first, second)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def one(prior: Prior) -> Any:
        return prior.from_latent(jnp.zeros(1))["x"]

    for prior in (Prior(x=dist.Normal(0, 1)), Prior(x=dist.Normal(0.5, np.float64(2.0)))):
        one(prior)


def test_leaves_come_by_name_so_that_every_process_compiles_the_same_program() -> None:
    # NumPyro's own order is that of a set of strings: another one in every process.
    truncated = dist.TruncatedNormal(1.0, 2.0, low=-1.0, high=4.0)
    prior = Prior(b=truncated.expand([2]), a=dist.Normal(5.0, 6.0))
    leaves = [np.unique(leaf).tolist() for leaf in jax.tree.leaves(prior)]
    # b: the support's two bounds, the base's loc and scale, high, low; a: loc, scale
    assert leaves == [[-1.0], [4.0], [1.0], [2.0], [4.0], [-1.0], [5.0], [6.0]]
    again = jax.tree.unflatten(jax.tree.structure(prior), jax.tree.leaves(prior))
    theta = prior.sample(jax.random.key(0))
    chex.assert_trees_all_equal(theta, again.sample(jax.random.key(0)))


def test_it_is_a_pytree_over_which_one_can_vmap() -> None:
    priors = [Prior(x=dist.Normal(m, 1.0)) for m in (0.0, 1.0, 2.0)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *priors)
    values = jax.vmap(lambda prior: prior.from_latent(jnp.zeros(1))["x"])(stacked)
    np.testing.assert_allclose(values, [0.0, 1.0, 2.0])
    with pytest.raises(AttributeError):
        priors[0].names = ("y",)


def test_a_traced_prior_takes_the_support_where_the_route_depends_on_values() -> None:
    @jax.jit
    def density(a: Any) -> Any:
        prior = Prior(x=dist.Gamma(a, 1.0), y=dist.Normal(a, 1.0))
        assert prior.exact == {"x": False, "y": True}
        return prior.latent_log_prob(jnp.zeros(2))

    assert np.isfinite(density(2.0))


def test_masks_do_not_change_the_law() -> None:
    prior = Prior(x=dist.Exponential(2.0).mask(False))
    np.testing.assert_allclose(prior.log_prob({"x": 1.0}), np.log(2.0) - 2.0, rtol=1e-6)


def test_key_errors() -> None:
    prior = Prior(x=dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        prior.sample(jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match="vmap"):
        prior.sample(jax.random.split(jax.random.key(0), 2))


@pytest.mark.parametrize("method", ["log_prob", "to_latent"])
def test_theta_errors(method: str) -> None:
    call = getattr(Prior(a=dist.Normal(0.0, 1.0), b=dist.Normal(np.zeros(2), 1.0)), method)
    b = jnp.zeros(2)
    with pytest.raises(PriorError, match=r"missing \['b'\], extra \[\]"):
        call({"a": 0.0})
    with pytest.raises(PriorError, match=r"missing \[\], extra \['c'\]"):
        call({"a": 0.0, "b": b, "c": 0.0})
    with pytest.raises(PriorError, match=r"theta\['b'\]: expected shape \(2,\), got \(5, 2\)"):
        call({"a": 0.0, "b": jnp.zeros((5, 2))})
    with pytest.raises(TypeError, match=r"\['a', 'b'\]"):
        call(jnp.zeros(3))


@pytest.mark.parametrize("method", ["from_latent", "latent_log_prob", "log_abs_det_jacobian"])
def test_z_errors(method: str) -> None:
    prior = Prior(a=dist.Normal(0.0, 1.0))
    with pytest.raises(PriorError, match=r"expected shape \(1,\), got \(7, 1\).*vmap"):
        getattr(prior, method)(jnp.zeros((7, 1)))


def test_construction_errors() -> None:
    with pytest.raises(PriorError, match="at least one"):
        Prior()
    with pytest.raises(TypeError, match="'x': expected a NumPyro distribution, got float"):
        Prior(x=1.0)
    with pytest.raises(TypeError, match="by name"):
        Prior(dist.Normal(0.0, 1.0))
    with pytest.raises(PriorError, match="got both"):
        Prior(model, x=dist.Normal(0.0, 1.0))
    with pytest.raises(PriorError, match="no sample site"):
        Prior(lambda: None)


def _observed() -> None:
    numpyro.sample("x", dist.Normal(0.0, 1.0), obs=1.0)


def _discrete() -> None:
    numpyro.sample("k", dist.Poisson(1.0))


def _subsampled() -> None:
    with numpyro.plate("n", 10, subsample_size=2):
        numpyro.sample("x", dist.Normal(0.0, 1.0))


def _parameter() -> None:
    numpyro.param("w", 1.0)


def _twice() -> None:
    numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (_observed, "'x' is observed"),
        (_discrete, "'k': Poisson.*discrete"),
        (_subsampled, "plate 'n' subsamples"),
        (_parameter, "'w' is a numpyro.param"),
        (_twice, "two sample sites are named 'x'"),
    ],
)
def test_model_errors(bad: Any, message: str) -> None:
    with pytest.raises(PriorError, match=message):
        Prior(bad)
