"""Every NumPyro continuous distribution × the invariants of the latent map."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.distributions import constraints, transforms

from jaxsbi.base import ONCE_OPTIONS
from jaxsbi.latent import PriorError
from jaxsbi.priors import Prior

ONES = np.ones(2)
TRIL = np.array([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.3, 0.2, 1.5]])
ADJACENCY = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
CORRELATION = np.array([[1.0, 0.6], [0.6, 1.0]])
COMPONENTS = [dist.Normal(-1.0, 0.5), dist.Normal(1.0, 0.3)]


def mixing() -> dist.Distribution:
    return dist.Categorical(probs=np.array([0.3, 0.7]))


# Name -> constructor. The class name before the first space is what the coverage test looks for.
EXACT = {
    "Normal": lambda: dist.Normal(1.0, 2.0),
    "LogNormal": lambda: dist.LogNormal(-2.0, 0.5),
    "Uniform": lambda: dist.Uniform(-1.0, 3.0),
    "Uniform integers": lambda: dist.Uniform(0, 1),
    "LogUniform": lambda: dist.LogUniform(0.01, 10.0),
    "Exponential": lambda: dist.Exponential(2.0),
    "HalfNormal": lambda: dist.HalfNormal(2.0),
    "HalfCauchy": lambda: dist.HalfCauchy(0.5),
    "Cauchy": lambda: dist.Cauchy(1.0, 2.0),
    "Laplace": lambda: dist.Laplace(-1.0, 2.0),
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(1.0, 2.0, 0.4),
    "AsymmetricLaplaceQuantile": lambda: dist.AsymmetricLaplaceQuantile(1.0, 2.0, 0.3),
    "SoftLaplace": lambda: dist.SoftLaplace(1.0, 2.0),
    "Logistic": lambda: dist.Logistic(1.0, 0.5),
    "Gumbel": lambda: dist.Gumbel(1.0, 2.0),
    "Levy": lambda: dist.Levy(0.0, 2.0),
    "Dagum": lambda: dist.Dagum(2.0, 3.0, 1.5),
    "Gompertz": lambda: dist.Gompertz(0.5, 2.0),
    "Weibull": lambda: dist.Weibull(2.0, 1.5),
    "Pareto": lambda: dist.Pareto(1.0, 3.0),
    "Kumaraswamy": lambda: dist.Kumaraswamy(2.0, 3.0),
    "LowerTruncatedPowerLaw": lambda: dist.LowerTruncatedPowerLaw(-2.5, 1.0),
    "DoublyTruncatedPowerLaw": lambda: dist.DoublyTruncatedPowerLaw(-2.0, 1.0, 4.0),
    "DoublyTruncatedPowerLaw log uniform": lambda: dist.DoublyTruncatedPowerLaw(-1.0, 1.0, 4.0),
    "Gamma": lambda: dist.Gamma(2.0, 3.0),
    "Gamma skewed": lambda: dist.Gamma(0.3, 1.0),
    "Gamma large": lambda: dist.Gamma(200.0, 1.0),
    "Chi2": lambda: dist.Chi2(3.0),
    "InverseGamma": lambda: dist.InverseGamma(3.0, 2.0),
    "Beta": lambda: dist.Beta(2.0, 3.0),
    "Beta skewed": lambda: dist.Beta(0.3, 1.0),
    "Beta large": lambda: dist.Beta(80.0, 3.0),
    "BetaProportion": lambda: dist.BetaProportion(0.4, 6.0),
    "StudentT": lambda: dist.StudentT(3.0, 1.0, 2.0),
    "StudentT wide": lambda: dist.StudentT(0.5),
    "StudentT narrow": lambda: dist.StudentT(50.0),
    "RelaxedBernoulliLogits": lambda: dist.RelaxedBernoulliLogits(np.array(1.5), np.array(0.3)),
    "LeftTruncatedDistribution": lambda: dist.TruncatedNormal(0.5, 2.0, low=0.0),
    "LeftTruncatedDistribution past": lambda: dist.TruncatedNormal(-1.8, 1.0, low=0.0),
    "LeftTruncatedDistribution Cauchy": lambda: dist.TruncatedCauchy(0.0, 1.0, low=-1.0),
    "RightTruncatedDistribution": lambda: dist.TruncatedNormal(0.5, 2.0, high=1.0),
    "RightTruncatedDistribution SoftLaplace": lambda: dist.TruncatedDistribution(
        dist.SoftLaplace(0.0, 1.0), high=0.5
    ),
    "TwoSidedTruncatedDistribution": lambda: dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.5),
    "TwoSidedTruncatedDistribution narrow": lambda: dist.TruncatedNormal(
        0.0, 1.0, low=0.0, high=0.1
    ),
    "TwoSidedTruncatedDistribution StudentT": lambda: dist.TruncatedDistribution(
        dist.StudentT(3.0), low=-1.0, high=2.0
    ),
    "TwoSidedTruncatedDistribution Laplace": lambda: dist.TruncatedDistribution(
        dist.Laplace(0.0, 1.0), low=-1.0, high=2.0
    ),
    "TwoSidedTruncatedDistribution Logistic": lambda: dist.TruncatedDistribution(
        dist.Logistic(0.0, 1.0), low=-1.0, high=2.0
    ),
    "LeftTruncatedGamma": lambda: dist.LeftTruncatedGamma(dist.Gamma(2.0, 1.0), 0.5),
    "RightTruncatedGamma": lambda: dist.RightTruncatedGamma(dist.Gamma(2.0, 1.0), 3.0),
    "TwoSidedTruncatedGamma": lambda: dist.TwoSidedTruncatedGamma(dist.Gamma(2.0, 1.0), 0.5, 3.0),
    "MultivariateNormal": lambda: dist.MultivariateNormal(np.arange(3.0), scale_tril=TRIL),
    "MultivariateNormal covariance": lambda: dist.MultivariateNormal(
        np.zeros(2), covariance_matrix=CORRELATION
    ),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(
        np.arange(3.0), np.array([[1.0], [0.5], [-1.0]]), np.array([0.5, 1.0, 2.0])
    ),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(4.0, np.arange(2.0), TRIL[:2, :2]),
    "MatrixNormal": lambda: dist.MatrixNormal(
        np.zeros((2, 2)), TRIL[:2, :2], np.array([[0.7, 0.0], [0.1, 1.3]])
    ),
    "GaussianRandomWalk": lambda: dist.GaussianRandomWalk(0.5, 3),
    "GaussianStateSpace": lambda: dist.GaussianStateSpace(
        2, np.array([[0.9, 0.1], [0.0, 0.8]]), scale_tril=TRIL[:2, :2]
    ),
    "CirculantNormal": lambda: dist.CirculantNormal(np.zeros(3), np.array([1.0, 0.3, 0.3])),
    "CAR": lambda: dist.CAR(np.zeros(3), 0.3, 2.0, ADJACENCY),
    "ZeroSumNormal": lambda: dist.ZeroSumNormal(1.5, (3,)),
    "GaussianCopula": lambda: dist.GaussianCopula(
        dist.Gamma(np.array([2.0, 3.0]), 1.0), correlation_matrix=CORRELATION
    ),
    "GaussianCopulaBeta": lambda: dist.GaussianCopulaBeta(
        np.array([2.0, 3.0]), np.array([4.0, 2.0]), correlation_matrix=CORRELATION
    ),
    "Independent": lambda: dist.Uniform(-ONES, ONES).to_event(1),
    "ExpandedDistribution": lambda: dist.Exponential(2.0).expand([2, 2]),
    "ExpandedDistribution vector": lambda: dist.MultivariateNormal(
        np.zeros(2), scale_tril=TRIL[:2, :2]
    ).expand([2]),
    "MaskedDistribution": lambda: dist.HalfNormal(ONES).mask(np.array([True, False])).to_event(1),
    "TransformedDistribution falling": lambda: dist.TransformedDistribution(
        dist.Exponential(2.0), transforms.AffineTransform(1.0, -3.0)
    ),
    "TransformedDistribution ordered": lambda: dist.TransformedDistribution(
        dist.Normal(np.zeros(3), 1.0).to_event(1), transforms.OrderedTransform()
    ),
    "TransformedDistribution logit normal": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), transforms.SigmoidTransform()
    ),
}
BY_SUPPORT = {
    "Beta piled": lambda: dist.Beta(0.5, 0.5),
    "Gamma piled": lambda: dist.Gamma(0.05, 1.0),
    "LeftTruncatedDistribution deep": lambda: dist.TruncatedNormal(0.0, 1.0, low=4.0),
    "FoldedDistribution": lambda: dist.FoldedDistribution(dist.Normal(1.0, 1.0)),
    "VonMises": lambda: dist.VonMises(0.5, 2.0),
    "SineBivariateVonMises": lambda: dist.SineBivariateVonMises(0.0, 0.5, 2.0, 3.0, 0.5),
    "SineSkewed": lambda: dist.SineSkewed(
        dist.VonMises(np.zeros(1), 2.0).to_event(1), np.array([0.4])
    ),
    "Dirichlet": lambda: dist.Dirichlet(np.array([1.0, 2.0, 3.0])),
    "LKJ": lambda: dist.LKJ(3, 1.5),
    "LKJCholesky": lambda: dist.LKJCholesky(3, 1.5),
    "WishartCholesky": lambda: dist.WishartCholesky(4.0, scale_tril=TRIL[:2, :2]),
    "Wishart": lambda: dist.Wishart(4.0, scale_tril=TRIL[:2, :2]),
    "InverseWishartCholesky": lambda: dist.InverseWishartCholesky(4.0, scale_tril=TRIL[:2, :2]),
    "InverseWishart": lambda: dist.InverseWishart(4.0, scale_tril=TRIL[:2, :2]),
    "MixtureSameFamily": lambda: dist.MixtureSameFamily(
        mixing(), dist.Normal(np.array([-1.0, 1.0]), 0.5)
    ),
    "MixtureGeneral": lambda: dist.MixtureGeneral(mixing(), COMPONENTS),
    "EulerMaruyama": lambda: dist.EulerMaruyama(
        np.array([0.0, 0.1, 0.2]), lambda x, t: (-x, 0.5), dist.Normal(0.0, 1.0)
    ),
    "TruncatedPolyaGamma": lambda: dist.TruncatedPolyaGamma(),
}
REFUSED = {
    "Delta": lambda: dist.Delta(1.0),
    "Unit": lambda: dist.Unit(0.0),
    "ImproperUniform": lambda: dist.ImproperUniform(constraints.real, (), ()),
    "ProjectedNormal": lambda: dist.ProjectedNormal(np.ones(3)),
    "LeftCensoredDistribution": lambda: dist.LeftCensoredDistribution(dist.Normal(0.0, 1.0), 0),
    "RightCensoredDistribution": lambda: dist.RightCensoredDistribution(dist.Normal(0.0, 1.0), 0),
    "IntervalCensoredDistribution": lambda: dist.IntervalCensoredDistribution(
        dist.Normal(0.0, 1.0), 0, 0
    ),
    "HurdleGamma": lambda: dist.HurdleGamma(0.3, 2.0, 1.0),
    "HurdleLogNormal": lambda: dist.HurdleLogNormal(0.3, 2.0, 1.0),
}
ACCEPTED = EXACT | BY_SUPPORT


# Large programs, whose parts others test as well: in the slow part of the suite.
HEAVY = {
    "InverseGamma",
    "RightTruncatedDistribution",
    "MaskedDistribution",
    "LKJ",
    "MultivariateNormal covariance",
    "GaussianStateSpace",
    "Chi2",
    "BetaProportion",
    "LeftTruncatedDistribution Cauchy",
    "RightTruncatedDistribution SoftLaplace",
    "TwoSidedTruncatedDistribution StudentT",
    "TwoSidedTruncatedDistribution Laplace",
    "TwoSidedTruncatedDistribution Logistic",
    "LeftTruncatedGamma",
    "RightTruncatedGamma",
    "TwoSidedTruncatedGamma",
    "MultivariateStudentT",
    "GaussianCopula",
    "GaussianCopulaBeta",
    "InverseWishart",
    "InverseWishartCholesky",
    "Wishart",
    "TruncatedPolyaGamma",
    "SineBivariateVonMises",
}
# The coordinates with respect to which a density on a constrained set is one.
LOWER, STRICT = np.tril_indices(2), np.tril_indices(3, -1)
COORDINATES = {
    "Dirichlet": (slice(0, 2),),
    "LKJ": STRICT,
    "LKJCholesky": STRICT,
    "Wishart": LOWER,
    "WishartCholesky": LOWER,
    "InverseWishart": LOWER,
    "InverseWishartCholesky": LOWER,
}


def cases(names: Any) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow if n in HEAVY else ()) for n in names]


class Measured(NamedTuple):
    x: Any
    z: Any
    log_prob: Any
    latent_log_prob: Any
    jacobian: Any


def _measure(prior: Prior, zs: Any) -> Measured:
    def forward(z: Any) -> Any:
        theta = prior.from_latent(z)
        return theta["x"], theta

    jacobian, theta = jax.vmap(jax.jacfwd(forward, has_aux=True))(zs)
    return Measured(
        theta["x"],
        jax.vmap(prior.to_latent)(theta),
        jax.vmap(prior.log_prob)(theta),
        jax.vmap(prior.latent_log_prob)(zs),
        jacobian,
    )


measure = jax.jit(_measure, compiler_options=ONCE_OPTIONS)
draw = jax.jit(
    lambda prior, keys: jax.vmap(lambda key: prior.to_latent(prior.sample(key)))(keys),
    compiler_options=ONCE_OPTIONS,
)


def grid(dim: int) -> np.ndarray:
    """|z| <= 4 in every coordinate, ends and 0 included, in another order for each."""
    rng = np.random.default_rng(0)
    points = np.stack([rng.permutation(np.linspace(-4.0, 4.0, 33)) for _ in range(dim)], -1)
    return np.concatenate([points, np.full((1, dim), 4.0), np.zeros((1, dim))])


def run(name: str) -> tuple[Prior, np.ndarray, Measured]:
    prior = Prior(x=ACCEPTED[name]())
    zs = grid(prior.dim)
    out = measure(prior, jnp.asarray(zs, jnp.result_type(float)))
    return prior, zs, Measured(*map(np.asarray, out))


@pytest.mark.parametrize("name", cases(ACCEPTED))
def test_float32(name: str) -> None:
    prior, zs, out = run(name)
    assert prior.exact["x"] == (name in EXACT)
    error = np.abs(out.z - zs) / np.maximum(1.0, np.abs(zs))
    assert error.max() < 1e-3
    assert np.isfinite(out.jacobian).all()
    assert np.isfinite(out.log_prob).all()  # θ is inside the support
    assert np.isfinite(out.latent_log_prob).all()
    assert (np.abs(out.jacobian).reshape(len(zs), -1).max(-1) > 0).all()  # nowhere flat


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", cases(ACCEPTED))
def test_float64(name: str) -> None:
    prior, zs, out = run(name)
    np.testing.assert_allclose(out.z, zs, atol=1e-8)
    if prior.exact["x"]:
        expected = scipy.stats.norm.logpdf(zs).sum(-1)
        np.testing.assert_allclose(out.latent_log_prob, expected, rtol=1e-12)
    jacobian = out.jacobian
    if name in COORDINATES:
        jacobian = jacobian[(slice(None), *COORDINATES[name])]
    jacobian = jacobian.reshape(len(zs), -1, prior.dim)
    if name == "ZeroSumNormal":  # a density on a hyperplane: its volume is that of JᵀJ
        log_det = 0.5 * np.linalg.slogdet(np.swapaxes(jacobian, -1, -2) @ jacobian)[1]
    else:
        log_det = np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(out.log_prob + log_det, out.latent_log_prob, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_numpyro_draws_are_normal_in_z(name: str) -> None:
    # NumPyro's own samplers against our map: the law of z, not only its consistency.
    prior = Prior(x=EXACT[name]())
    z = np.asarray(draw(prior, jax.random.split(jax.random.key(1), 2000)))
    for column in z.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    if prior.dim > 1:  # and independent: the correlations of 2000 draws have sd 0.022
        assert np.abs(np.corrcoef(z.T) - np.eye(prior.dim)).max() < 0.1


def test_every_continuous_distribution_is_registered() -> None:
    known = {name.split()[0] for name in ACCEPTED} | {name.split()[0] for name in REFUSED}
    for name in dist.__all__:
        cls = getattr(dist, name)
        if not inspect.isclass(cls) or not issubclass(cls, dist.Distribution):
            continue
        try:  # a dependent support says whether it is discrete only on an instance
            discrete = cls.support.is_discrete
        except (AttributeError, NotImplementedError):
            discrete = False
        if cls is not dist.Distribution and not discrete and name not in DISCRETE:
            assert name in known, f"{name}: neither accepted nor refused by the tests"


# Discrete, or with a support that only an instance knows; refused as a kind.
DISCRETE = {
    "HurdleProbs",
    "HurdleLogits",
    "ZeroInflatedProbs",
    "ZeroInflatedLogits",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(PriorError, match=f"'x'.*{name}"):
        Prior(x=REFUSED[name]())


@pytest.mark.parametrize(
    "d",
    [
        dist.Bernoulli(0.3),
        dist.Poisson(2.0),
        dist.Categorical(np.array([0.2, 0.8])),
        dist.Multinomial(3, np.array([0.2, 0.8])),
        dist.DiscreteUniform(0, 3),
        dist.ZeroInflatedPoisson(0.3, 2.0),
        dist.HurdleLogits(dist.Poisson(2.0), gate_logits=0.3),
        dist.Poisson(np.ones(2)).to_event(1),
        dist.MixtureSameFamily(dist.Categorical(np.ones(2) / 2), dist.Poisson(np.ones(2))),
    ],
    ids=lambda d: type(d).__name__,
)
def test_discrete_is_refused(d: dist.Distribution) -> None:
    with pytest.raises(PriorError, match="'count'"):
        Prior(count=d)
