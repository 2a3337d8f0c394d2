"""Bad input, and what it gets: each test names what was expected, what came and what to do.

The simulator's own mistakes are in test_simulate.py, those of `fit` in test_fit.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import densities, fields, networks
from jaxsbi.base import DataSpec, configuration

PRIOR = jaxsbi.Prior(
    mean=dist.Normal(jnp.zeros(2), 1.0).to_event(1), width=dist.LogNormal(0.0, 0.5)
)
THETA = {"mean": jnp.zeros(2), "width": jnp.ones(())}
X = {"image": np.zeros((4, 3), np.float32), "count": np.array(2, np.int32)}


class Report(NamedTuple):
    value: jax.Array


@configuration
class Drawer:
    """A road that draws from the prior, and has no density."""

    def init(self, key, prior, simulations):
        return {"params": {}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return jnp.zeros(batch.weight.shape)

    def sample(self, variables, prior, key, x, n):
        return jax.vmap(prior.sample)(jax.random.split(key, n)), Report(jnp.zeros(()))

    def log_prob(self, variables, prior, theta, x):
        raise NotImplementedError("Drawer has no density: use posterior.sample.")


@configuration
class PriorDensity(Drawer):
    """The same road with a density."""

    def log_prob(self, variables, prior, theta, x):
        return prior.log_prob(theta)


def make_posterior(method):
    variables = {"params": {}, "statistics": {}}
    return jaxsbi.Posterior(variables, PRIOR, method, DataSpec.of(X))


@pytest.fixture(params=["sample", "log_prob"])
def ask(request):
    """Return each of the two questions a posterior takes an observation for."""
    posterior = make_posterior(PriorDensity())
    if request.param == "sample":
        return lambda x: posterior.sample(jax.random.key(0), x, 3)
    return lambda x: posterior.log_prob(THETA, x)


@pytest.fixture
def posterior():
    return make_posterior(PriorDensity())


@pytest.mark.parametrize(
    "x",
    [
        X,
        {"image": jnp.zeros((4, 3)), "count": jnp.array(2)},
        {"image": np.zeros((4, 3)), "count": 2},  # float64 and a Python integer
        {"image": np.zeros((4, 3), np.float16), "count": np.uint8(2)},
    ],
)
def test_an_observation_of_the_same_kind_is_taken(ask, x):
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(ask(x)))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            X | {"image": np.zeros((3, 4), np.float32)},
            ValueError,
            r"observation\['image'\]: expected shape \(4, 3\), got \(3, 4\).*as the simulator",
        ),
        (
            {"image": np.zeros((9, 4, 3), np.float32), "count": np.zeros(9, np.int32)},
            ValueError,
            r"expected shape \(.*got \(9,.*batch of observations: use jax.vmap",
        ),
        (
            X | {"image": np.zeros((4, 3), np.int32)},
            TypeError,
            r"observation\['image'\]: expected dtype float32, got int32.*astype",
        ),
        (
            X | {"count": np.array(2.0, np.float32)},
            TypeError,
            r"observation\['count'\]: expected dtype int32, got float32.*astype",
        ),
        (
            X | {"count": np.array(True)},
            TypeError,
            r"observation\['count'\]: expected dtype int32, got bool",
        ),
        (
            X | {"image": np.where(np.eye(4, 3) > 0, np.nan, 0.0)},
            ValueError,
            r"observation\['image'\]: expected finite numbers, got 3 NaN.*[Mm]ask",
        ),
        (
            X | {"image": np.full((4, 3), np.inf)},
            ValueError,
            r"observation\['image'\]: expected finite numbers, got 12",
        ),
        (
            {"image": X["image"]},
            TypeError,
            r"observation: expected the structure.*count.*got.*same nesting and names",
        ),
        (
            X | {"extra": np.zeros(2)},
            TypeError,
            r"observation: expected the structure.*got.*extra",
        ),
        ((X["image"], X["count"]), TypeError, r"observation: expected the structure"),
        (X["image"], TypeError, r"observation: expected the structure"),
        ("data", TypeError, r"observation: expected arrays.*got str"),
        (None, TypeError, r"observation: expected the structure"),
    ],
)
def test_another_observation_is_refused(ask, x, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        ask(x)


def test_shapes_are_checked_under_jit_too(posterior):
    wrong = X | {"image": np.zeros((3, 4), np.float32)}
    with pytest.raises(ValueError, match=r"expected shape \(4, 3\), got \(3, 4\)"):
        jax.jit(lambda k, x: posterior.sample(k, x, 3))(jax.random.key(0), wrong)


@pytest.mark.parametrize("n", [0, -1, 2.5, "3", None])
def test_the_number_of_draws_is_a_positive_integer(posterior, key, n):
    with pytest.raises(ValueError, match=r"n: expected a positive integer, got"):
        posterior.sample(key, X, n)


def test_numpy_integers_count_draws(posterior, key):
    assert posterior.sample(key, X, np.int64(3))["width"].shape == (3,)


@pytest.mark.parametrize("key", [jax.random.PRNGKey(0), 0, None], ids=["legacy", "int", "None"])
def test_a_key_is_a_typed_key(posterior, key):
    with pytest.raises(TypeError, match=r"key: expected a typed key from jax.random.key\(seed\)"):
        posterior.sample(key, X, 3)


def test_many_keys_are_mapped_over(posterior, key):
    with pytest.raises(TypeError, match=r"one key, got an array of shape \(2,\).*jax.vmap"):
        posterior.sample(jax.random.split(key), X, 3)


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        ({"mean": jnp.zeros(2)}, ValueError, r"missing \['width'\]"),
        (THETA | {"depth": 1.0}, ValueError, r"extra \['depth'\]"),
        (
            {"mean": jnp.zeros(2), "wdith": 1.0},
            ValueError,
            r"missing \['width'\], extra \['wdith'\]",
        ),
        (THETA | {"mean": jnp.zeros(3)}, ValueError, r"'mean'.*expected shape \(2,\), got \(3,\)"),
        (THETA | {"width": jnp.ones(5)}, ValueError, r"'width'.*got \(5,\).*jax.vmap"),
        (jnp.zeros(3), TypeError, r"theta: expected a dict with the names.*got Array"),
        (0.3, TypeError, r"theta: expected a dict with the names.*got float"),
    ],
)
def test_theta_has_the_priors_names_and_shapes(posterior, theta, error, message):
    with pytest.raises(error, match=message):
        posterior.log_prob(theta, X)


def test_a_density_that_a_method_has_not_is_refused_by_name():
    posterior = make_posterior(Drawer())
    assert posterior.sample(jax.random.key(0), X, 3)["width"].shape == (3,)
    with pytest.raises(NotImplementedError, match=r"Drawer has no density: use posterior.sample"):
        posterior.log_prob(THETA, X)


def test_another_prior_must_have_the_same_parameters():
    method = jaxsbi.nle()
    posterior = make_posterior(method)
    for other in (
        jaxsbi.Prior(mean=dist.Normal(jnp.zeros(2), 1.0).to_event(1)),
        jaxsbi.Prior(mean=dist.Normal(), width=dist.LogNormal(0.0, 0.5)),
    ):
        with pytest.raises(ValueError, match=r"with_prior: expected parameters .*mean.*got"):
            posterior.with_prior(other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxsbi.nre(contrasts=0), r"contrasts: expected a positive integer, got 0"),
        (lambda: jaxsbi.nre(contrasts=2.5), r"contrasts: expected a positive integer, got 2.5"),
        (lambda: jaxsbi.nre(odds=0.0), r"odds > 0, got 0.0"),
        (lambda: densities.MaskedAutoregressive(layers=0), r"layers >= 1, got 0"),
        (lambda: densities.SplineAutoregressive(layers=0), r"layers >= 1, got 0"),
        (lambda: densities.SplineAutoregressive(knots=0), r"knots >= 1, got 0"),
        (lambda: densities.SplineCoupling(hidden=0), r"hidden >= 1, got 0"),
        (lambda: densities.MaskedAutoregressive(depth=0), r"depth >= 1, got 0"),
        (lambda: densities.MaskedBernoulli(depth=0), r"depth >= 1, got 0"),
        (lambda: jaxsbi.samplers.Hamiltonian(leapfrog_steps=0), r"leapfrog_steps >= 1.*got 0"),
        (lambda: densities.MaskedLogisticMixture(components=0), r"components >= 1, got 0"),
        (lambda: jaxsbi.samplers.nuts(chains=1), r"chains >= 2.*got chains=1"),
        (lambda: jaxsbi.samplers.nuts(warmup=3), r"warmup >= 20.*warmup=3"),
    ],
)
def test_an_impossible_configuration_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxsbi.npe(density=networks.MLP(8)), r"npe: .*density.* got MultilayerPer"),
        (lambda: jaxsbi.nle(density=networks.MLP(8)), r"nle: .*density.* got MultilayerPer"),
        (lambda: jaxsbi.nre(classifier=densities.Gaussian()), r"classifier .* got GaussianMixt"),
        (lambda: jaxsbi.npse(field=networks.MLP(8)), r"field: .* got MultilayerPerceptron"),
        (lambda: jaxsbi.joint(network=fields.ResidualField()), r"network: .* got ResidualField"),
    ],
)
def test_a_network_of_another_kind_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("make", [jaxsbi.npe, jaxsbi.nle, jaxsbi.nre, jaxsbi.emulator])
def test_an_unknown_option_is_refused(make):
    with pytest.raises(TypeError, match="hiden"):
        make(hiden=3)


def test_ragged_data_without_a_mask_are_refused():
    prior = jaxsbi.Prior(a=dist.Normal())
    ragged = [np.ones((n % 3 + 1, 2), np.float32) for n in range(10)]
    objects = np.empty(10, object)
    objects[:] = ragged
    for x in (ragged, objects):
        rows = jaxsbi.Simulations({"a": jnp.zeros(10)}, x, jnp.ones(10))
        with pytest.raises(ValueError, match=r"same number of rows.*networks\.pad"):
            jaxsbi.fit(jax.random.key(0), jaxsbi.npe(), prior, rows, progress=False)


@pytest.mark.parametrize(("place", "name"), [("theta", "'a'"), ("x", "'y'")])
def test_rows_that_count_are_finite(place, name):
    """Hand-made simulations: `simulate` and `from_arrays` give such rows weight 0."""
    prior = jaxsbi.Prior(a=dist.Normal())
    theta, x = {"a": jnp.zeros(10)}, {"y": jnp.zeros((10, 2))}
    bad = {"theta": {"a": theta["a"].at[3].set(jnp.nan)}, "x": {"y": x["y"].at[3].set(jnp.inf)}}
    rows = jaxsbi.Simulations(**({"theta": theta, "x": x, "weight": jnp.ones(10)} | {
        place: bad[place]
    }))  # fmt: skip
    with pytest.raises(ValueError, match=rf"{place}\[{name}\].* in 1 of 10 rows.*from_arrays"):
        jaxsbi.fit(jax.random.key(0), jaxsbi.npe(), prior, rows, progress=False)


def test_simulations_have_data():
    prior = jaxsbi.Prior(a=dist.Normal())
    rows = jaxsbi.Simulations({"a": jnp.zeros(10)}, {}, jnp.ones(10))
    with pytest.raises(ValueError, match=r"simulations.x: expected arrays, got \{\}"):
        jaxsbi.fit(jax.random.key(0), jaxsbi.npe(), prior, rows, progress=False)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weights_of_runs_are_not_negative(weight):
    with pytest.raises(ValueError, match=r"weight: expected 1 .* negative"):
        jaxsbi.from_arrays({"a": np.zeros(5)}, np.zeros(5), weight=np.full(5, weight))


def test_runs_have_named_parameters():
    class Table:
        """As a data frame: items, but no mapping of the standard library's."""

        def items(self):
            return [("a", np.zeros(5))]

    assert "a" in jaxsbi.from_arrays(Table(), np.zeros(5)).theta
    with pytest.raises(TypeError, match=r"from_arrays: theta: expected a dict.*got ndarray"):
        jaxsbi.from_arrays(np.zeros(5), np.zeros(5))


@pytest.mark.parametrize("value", [-jnp.inf, jnp.nan])
def test_rejection_says_that_there_is_no_posterior(key, value):
    sampler = jaxsbi.samplers.rejection(batch=100, rounds=2)
    _, info = sampler(key, lambda z: value + 0.0 * z[0], 1, 10)
    with pytest.warns(UserWarning, match="rejection: the log-density was -inf or NaN at every"):
        info.warn()
