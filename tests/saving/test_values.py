"""Values by way of JSON: every configuration, prior and array comes back as it was."""

import importlib
import json
import pkgutil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import safetensors.numpy
from numpyro.distributions import transforms

import jaxsbi
from jaxsbi import compression, networks, noise
from jaxsbi.boxed import boxed
from jaxsbi.recentred import recentre
from jaxsbi.saving.decode import Decoder
from jaxsbi.saving.encode import Encoder
from jaxsbi.saving.registry import is_configuration, registry

X = jnp.array([0.3, -1.0, 2.0])
PRIOR = jaxsbi.Prior(a=dist.Normal(1.0, 2.0), b=dist.Uniform(-jnp.ones(2), 1.0).to_event(1))


def rebuilt(value, types=()):
    """Return a value by way of JSON and a file of arrays."""
    encoder = Encoder(types)
    node = json.loads(json.dumps(encoder.encode(value, "value")))
    arrays = safetensors.numpy.load(safetensors.numpy.save(encoder.arrays))
    decoder = Decoder(types, arrays, newer=False)
    found = decoder.decode(node, "value")
    decoder.finish()
    return found


LINEAR = compression.GaussianScore(mean=X, slopes=jnp.ones((2, 3)))

# Configurations without a default for every field.
NEEDY: dict[str, Any] = {
    "Mahalanobis": {"whiten": jnp.eye(2)},
    "MaximumMeanDiscrepancy": {"scale": 1.0},
    "LinearSummary": {"mean": X, "scale": X, "slopes": jnp.ones((3, 40))},
    "KernelDensity": {
        **{"prior": PRIOR, "centre": jnp.ones((2, 3)), "log_weight": jnp.zeros(2)},
        **{"factor": jnp.eye(3)[None], "inverse": jnp.eye(3)[None], "bandwidth": jnp.array(0.5)},
    },
    "Contrast": {"summary": compression.Views(parts=(("a", networks.MLP(4)),))},
    "Frozen": {"method": jaxsbi.npe(), "summary": LINEAR},
    "IMNN": {"summary": networks.MLP(4)},
    "Regression": {"summary": networks.MLP(4)},
    "Score": {"log_likelihood": jax.nn.softplus, "theta": {"a": X}},  # a function of the user's own
    "GaussianScore": {"mean": X, "slopes": jnp.ones((2, 3))},
    "Summary": {"network": networks.MLP(4), "params": {}, "statistics": {"mean": X}},
    "GaussianNoise": {"cholesky": jnp.eye(2)},
    "ModelledNoise": {"function": jax.nn.softplus},  # others are classes of the user's own
    "StudentNoise": {"cholesky": jnp.eye(2), "degrees": jnp.array(3.0)},
    "Emulated": {
        "method": jaxsbi.emulator(),
        "variables": {"a": X},
        "prior": PRIOR,
    },
    "MaskedBinomial": {"total": 7},
    "MaskedCategorical": {"classes": 3},
}
CONFIGURATIONS = {name: cls for name, cls in registry(()).items() if is_configuration(cls)}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_comes_back(runs, name):
    cls = CONFIGURATIONS[name]
    value = {
        "methods.Emulator": jaxsbi.emulator(noise=noise.gaussian(jnp.eye(2))),
        "sequential.Atomic": jaxsbi.sequential.Atomic(method=jaxsbi.npe()),
        "methods.Ensemble": jaxsbi.methods.Ensemble(method=jaxsbi.nle(), size=2),
    }.get(name) or cls(**NEEDY.get(cls.__name__, {}))
    loaded = rebuilt(value)
    assert type(loaded) is cls
    if isinstance(value, nn.Module):
        assert loaded == value
    else:
        runs.equal(loaded, value)


def test_every_public_configuration_can_be_saved():
    """A new one is exported by its room, or named here as what a method makes for itself."""
    parts = {"Components", "Widths", "Logit", "Logits", "ModelClassifier"}
    parts |= {"Fixed", "Grouped"}  # holds a function of the user's; is only trained
    allowed = set(registry(()).values())
    for module in pkgutil.walk_packages(jaxsbi.__path__, "jaxsbi."):
        if module.name.startswith("jaxsbi.diagnostics"):
            continue  # no part of a posterior
        for name, cls in vars(importlib.import_module(module.name)).items():
            if is_configuration(cls) and not name.startswith("_") and name not in parts:
                assert not cls.__module__.startswith("jaxsbi.") or cls in allowed, cls


FAMILIES = {
    "normal": dist.Normal(1.0, 2.0),
    "log_normal": dist.LogNormal(jnp.zeros(3), 0.5),
    "uniform": dist.Uniform(-jnp.ones((2, 2)), 1.0).to_event(2),
    "log_uniform": dist.LogUniform(0.01, 10.0),
    "gamma": dist.Gamma(2.0, 3.0),
    "inverse_gamma": dist.InverseGamma(3.0, 2.0),
    "beta": dist.Beta(2.0, 3.0),
    "half_cauchy": dist.HalfCauchy(0.5),
    "student": dist.StudentT(3.0, 1.0, 2.0),
    "von_mises": dist.VonMises(0.0, 1.0),
    "dirichlet": dist.Dirichlet(jnp.ones(3)),
    "left": dist.TruncatedNormal(0.5, 2.0, low=0.0),
    "both": dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.5),
    "cauchy": dist.TruncatedCauchy(0.0, 1.0, high=1.0),
    "vector": dist.MultivariateNormal(jnp.arange(2.0), covariance_matrix=jnp.eye(2)),
    "low_rank": dist.LowRankMultivariateNormal(jnp.zeros(2), jnp.ones((2, 1)), jnp.ones(2)),
    "walk": dist.GaussianRandomWalk(0.5, 3),
    "car": dist.CAR(jnp.zeros(3), 0.3, 2.0, jnp.ones((3, 3)) - jnp.eye(3)),
    "zero_sum": dist.ZeroSumNormal(1.5, (3,)),
    "copula": dist.GaussianCopulaBeta(
        jnp.array([2.0, 3.0]), jnp.array([4.0, 2.0]), correlation_matrix=jnp.eye(2)
    ),
    "correlation": dist.LKJCholesky(3, 1.5),
    "expanded": dist.Exponential(2.0).expand([2, 2]),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.Normal(jnp.arange(2.0), 1.0)
    ),
    "mixed": dist.MixtureGeneral(
        dist.Categorical(probs=jnp.array([0.3, 0.7])),
        [dist.Normal(-1.0, 0.5), dist.StudentT(3.0)],
    ),
    "pushed": dist.TransformedDistribution(
        dist.Gamma(2.0, 1.0),
        [transforms.AffineTransform(1.0, 2.0), transforms.PowerTransform(0.5)],
    ),
    "sigmoid": dist.TransformedDistribution(
        dist.Normal(jnp.zeros(2), 1.0).to_event(1),
        transforms.ComposeTransform([transforms.SigmoidTransform(), transforms.ExpTransform()]),
    ),
    "inverse": dist.TransformedDistribution(dist.Beta(2.0, 2.0), transforms.SigmoidTransform().inv),
    "masked": dist.HalfNormal(jnp.ones(2)).mask(jnp.array([True, False])).to_event(1),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_back(runs, name):
    prior = jaxsbi.Prior(theta=FAMILIES[name])
    loaded = rebuilt(prior)
    assert isinstance(loaded, jaxsbi.Prior)
    runs.equal(loaded, prior)
    assert repr(loaded) == repr(prior)


def test_a_prior_keeps_the_order_of_its_names_and_its_coordinates(runs):
    prior = jaxsbi.Prior(**{name: FAMILIES[name] for name in ("von_mises", "left", "beta")})
    loaded = rebuilt(prior)
    assert loaded.names == ("von_mises", "left", "beta")
    runs.equal(loaded.from_latent(jnp.arange(3.0)), prior.from_latent(jnp.arange(3.0)))


def test_a_prior_in_other_coordinates_comes_back(runs):
    prior = recentre(PRIOR, jax.random.normal(jax.random.key(0), (20, 3)))
    runs.equal(rebuilt(prior), prior)
    box = boxed(PRIOR, -jnp.ones(PRIOR.dim), jnp.ones(PRIOR.dim))
    runs.equal(rebuilt(box), box)


def test_every_kind_of_array_comes_back(runs):
    dtypes = (
        "bool",
        "uint8",
        "int8",
        "int32",
        "float16",
        "float32",
        "bfloat16",
        "complex64",
        "float8_e5m2",
    )
    values: dict[str, Any] = {
        f"{dtype} {shape}": jnp.ones(shape, dtype)
        for dtype in dtypes
        for shape in ((), (2, 3), (5, 7), (0, 2))
    }
    values |= {
        "none": None,
        "empty": {},
        "pair": (1, [2.5, float("inf")]),
        "float64": np.arange(40.0),
        "odd": np.array([np.nan, -0.0, 1e-45], np.float32),
        "key": jax.random.key(3),
        "a.b": np.arange(20),
        "a": {"b": np.arange(30)},
        "transposed": np.arange(40).reshape(4, 10).T,
        "scalar": np.float32(0.1),
    }
    loaded = rebuilt(values)
    runs.equal(loaded, values)
    assert rebuilt(10**30) == 10**30
    assert isinstance(loaded["scalar"], np.float32)


def test_bits_that_are_no_numbers_come_back():
    payload = np.array([0x7FC00001, 0x7F800001, 0xFF800000], np.uint32).view(np.float32)
    assert rebuilt({"x": payload})["x"].tobytes() == payload.tobytes()
