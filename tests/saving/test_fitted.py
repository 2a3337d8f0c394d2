"""Saving and loading: the same posterior comes back, and nothing else gets in."""

import dataclasses
import subprocess
import sys
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from flax.core import FrozenDict

import jaxsbi
from jaxsbi import densities, fields, methods, networks, noise, samplers, sequential
from jaxsbi.base import Method, configuration, draw_program
from jaxsbi.boxed import boxed
from jaxsbi.recentred import recentre
from jaxsbi.saving.decode import Decoder
from jaxsbi.saving.registry import is_configuration

X = jnp.array([0.3, -1.0, 2.0])
SIR = samplers.sir(candidates=400, multiple=1)
ODE = fields.ode(solver="euler", steps=2, density_steps=2)
FIELD = fields.ResidualField(hidden=4, blocks=1)
NPE = jaxsbi.npe(density=densities.Gaussian(hidden=4))
NLE = jaxsbi.nle(density=densities.MaskedAutoregressive(layers=1, hidden=4), sampler=SIR)
LINE = methods.Emulated(
    method=jaxsbi.emulator(network=networks.MLP(4), components=2),
    prior=jaxsbi.Prior(a=dist.Normal(1.0, 4.0), b=dist.Normal(jnp.zeros(2), 4.0)),
    variables={
        "params": {
            "network": {
                "network": {"Dense_0": {"kernel": jnp.ones((6, 4)), "bias": jnp.zeros(4)}},
                "Dense_0": {"kernel": jnp.ones((6, 2))},
                "Dense_1": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)},
            }
        },
        "statistics": {"mean": X, "scale": X, "basis": jnp.eye(2, 3)},
    },
)
METHODS = {
    "npe": NPE,
    "npe, a flow and a summary": jaxsbi.npe(
        density=densities.SplineCoupling(layers=1, hidden=4),
        summary=networks.MLP(4),
    ),
    "nle": NLE,
    "nle, another prior": NLE.with_prior(
        jaxsbi.Prior(a=dist.StudentT(3.0), b=dist.Normal(jnp.zeros(2), 1.0))
    ),
    "nre": jaxsbi.nre(classifier=networks.MLP(4, 4), sampler=SIR, bound=5.0),
    "emulator": jaxsbi.emulator(
        network=networks.MLP(4), components=2, noise=noise.gaussian(0.5 * jnp.eye(3)), sampler=SIR
    ),
    "emulator of exact runs": jaxsbi.emulator(
        network=networks.CosmoPower(hidden=(4,)),
        transform={"": "none"},
        exact=True,
        noise=noise.student_t(0.5 * jnp.eye(3), 20),
        sampler=SIR,
    ),
    "emulator of an approximation's error": jaxsbi.emulator(
        network=networks.MLP(4),
        approximation=LINE,
        noise=noise.gaussian(9 * jnp.eye(3)),
        sampler=SIR,
    ),
    "fmpe": jaxsbi.fmpe(field=FIELD, sampler=ODE),
    "npse": jaxsbi.npse(field=FIELD, sampler=fields.sde(steps=2, density=ODE)),
    "joint": jaxsbi.joint(network=fields.JointTransformer(width=4, layers=1, heads=1), sampler=ODE),
    "atomic": sequential.Atomic(method=NPE),
    "ensemble": methods.Ensemble(method=NPE, size=2),
    "ensemble, likelihood": methods.Ensemble(method=NLE, size=2),
}


def again(path, fitted, **options):
    jaxsbi.save(path, fitted, **options)
    return jaxsbi.load(path, **options)


@pytest.mark.filterwarnings("ignore:emulator. asked outside")  # few runs, hardly trained
@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_and_draws_the_same(runs, name, tmp_path):
    fitted = runs.made(METHODS[name])
    loaded = again(tmp_path / "run", fitted)
    runs.same(loaded, fitted)
    draws = fitted.posterior.sample(jax.random.key(3), X, 8)
    sample = draw_program(loaded.posterior.method)
    programs = sample._cache_size()
    runs.equal(loaded.posterior.sample(jax.random.key(3), X, 8), draws)
    assert sample._cache_size() == programs


def test_all_methods_are_tested():
    rooms = (*vars(methods).values(), *vars(sequential).values())
    public = {c for c in rooms if is_configuration(c) and issubclass(c, Method)}
    assert {type(method) for method in METHODS.values()} == public


class Pair(NamedTuple):
    first: Any
    second: Any


class MyNet(nn.Module):
    """A network of a user, with functions among its fields."""

    width: int = 3
    activation: Any = nn.gelu
    start: Any = nn.initializers.zeros_init()
    final: Any = jnp.tanh

    @nn.compact
    def __call__(self, x):
        hidden = nn.Dense(self.width, kernel_init=self.start)(jnp.concatenate(jax.tree.leaves(x)))
        return self.final(self.activation(hidden))


def test_types_of_a_user(runs, tmp_path):
    rows = runs.simulations()
    rows = dataclasses.replace(rows, x=Pair(rows.x, {"more": (rows.x[:, :1], None)}))
    fitted = runs.made(jaxsbi.npe(density=densities.Gaussian(hidden=4), summary=MyNet()), rows=rows)
    path = tmp_path / "run"
    with pytest.raises(TypeError, match=r"method.summary: .*got MyNet.*types=\[MyNet\]"):
        jaxsbi.save(path, fitted)
    with pytest.raises(TypeError, match=r"data: .*got Pair"):
        jaxsbi.save(path, fitted, types=[MyNet])
    runs.same(again(path, fitted, types=[MyNet, Pair]), fitted)
    with pytest.raises(ValueError, match=r"method.summary: .*got 'MyNet'.*your own, pass it"):
        jaxsbi.load(path, types=[Pair])
    other = dataclasses.make_dataclass("MyNet", ["width"])
    with pytest.raises(ValueError, match=r"method.summary: expected the fields \['width'\]"):
        jaxsbi.load(path, types=[other, Pair])
    with pytest.raises(ValueError, match="got two named 'MyNet'"):
        jaxsbi.load(path, types=[MyNet, other])


class OwnNNX(nnx.Module):
    """An NNX module of a user."""

    def __init__(self, width: int, *, out: int = 2, rngs: nnx.Rngs):
        self.first, self.last = nnx.Linear(3, width, rngs=rngs), nnx.Linear(width, out, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


@pytest.mark.key_reuse  # the bridge makes its module anew, from the same key, in each call
@pytest.mark.parametrize("kwargs", [{}, {"kwargs": FrozenDict(out=3)}])
def test_a_module_of_nnx(runs, kwargs, tmp_path):
    summary = nnx.bridge.ToLinen(OwnNNX, args=(4,), **kwargs)
    fitted = runs.made(jaxsbi.npe(density=densities.Gaussian(hidden=4), summary=summary))
    path, types = tmp_path / "run", [nnx.bridge.ToLinen, OwnNNX]
    with pytest.raises(TypeError, match=r"got ToLinen. Register .*types=\[ToLinen\]"):
        jaxsbi.save(path, fitted)
    with pytest.raises(TypeError, match=r"nnx_class: .*got OwnNNX. Register .*beside the others"):
        jaxsbi.save(path, fitted, types=types[:1])
    runs.same(again(path, fitted, types=types), fitted)
    with pytest.raises(ValueError, match=r"nnx_class: .*got 'OwnNNX'.*your own, pass it"):
        jaxsbi.load(path, types=types[:1])
    # No file makes one by itself, or names another class in its place.
    for forged in ({"$type": "OwnNNX"}, {"$class": "ToLinen"}, {"$class": 3}):
        with pytest.raises(ValueError, match=r"made from its fields|NNX module's|got 3"):
            Decoder(types, {}, newer=False).decode(forged, "value")


@pytest.mark.parametrize("wrong", [3, int, print, "MyNet"])
def test_what_is_no_type(runs, wrong, tmp_path):
    with pytest.raises(TypeError, match="types: expected classes that are rebuilt from"):
        jaxsbi.save(tmp_path / "run", runs.small(), types=[wrong])


@configuration
class Holder:
    value: Any


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, r"save: method.value: .*got the function .*activation by name"),
        ({3: 4}, r"method.value: expected names that are strings"),
        ({"$type": 4}, r"method.value: .*begin with '\$', got '\$type'"),
        (object(), r"method.value: expected numbers, .*got object"),
        (np.array(["text"]), r"method.value: expected an array of bool, .*got str"),
    ],
)
def test_what_cannot_be_saved(runs, value, message, tmp_path):
    posterior = dataclasses.replace(runs.small().posterior, method=Holder(value=value))
    with pytest.raises(TypeError, match=message):
        jaxsbi.save(
            tmp_path / "run", jaxsbi.Fitted(posterior, runs.small().history), types=[Holder]
        )
    assert not list(tmp_path.iterdir())


def test_only_what_fit_returns_is_saved(runs, tmp_path):
    with pytest.raises(TypeError, match=r"got Posterior.*Fitted\(posterior, history\)"):
        jaxsbi.save(tmp_path / "run", runs.small().posterior)


def model():
    scale = numpyro.sample("a", dist.HalfNormal(1.0))
    numpyro.sample("b", dist.Normal(0.0, scale).expand([2]))


def steep():
    scale = numpyro.sample("a", dist.Gamma(2.0, 1.0))
    numpyro.sample("b", dist.Normal(0.0, scale).expand([2]))


@pytest.mark.parametrize("recentred", [False, True])
def test_a_prior_made_from_a_function_is_supplied(runs, recentred, tmp_path):
    path, plain = tmp_path / "run", jaxsbi.Prior(model)
    prior = recentre(plain, jax.random.normal(jax.random.key(0), (20, 3))) if recentred else plain
    fitted = runs.made(NPE, prior)
    jaxsbi.save(path, fitted)
    runs.same(jaxsbi.load(path, prior=plain), fitted)
    with pytest.raises(ValueError, match=r"a Python function.*load\(path, prior="):
        jaxsbi.load(path)
    for other in (runs.prior, jaxsbi.Prior(steep)):
        with pytest.raises(ValueError, match=r"expected the prior that was saved.*got one of"):
            jaxsbi.load(path, prior=other)
    with pytest.raises(TypeError, match=r"expected a jaxsbi.Prior, got function"):
        jaxsbi.load(path, prior=model)


@pytest.mark.parametrize("cut", [False, True])
def test_a_posterior_in_other_coordinates(runs, cut, tmp_path):
    z = jax.random.normal(jax.random.key(0), (20, 3))
    prior = boxed(runs.prior, jnp.min(z, 0), jnp.max(z, 0)) if cut else recentre(runs.prior, z)
    fitted = runs.made(NPE, prior)
    runs.same(again(tmp_path / "run", fitted), fitted)


def test_a_prior_that_the_file_holds_is_not_supplied(runs, tmp_path):
    jaxsbi.save(tmp_path / "run", runs.small())
    with pytest.raises(ValueError, match="Leave it out"):
        jaxsbi.load(tmp_path / "run", prior=runs.prior)


@pytest.mark.filterwarnings("ignore:with_prior")  # it is wider
def test_another_prior_made_from_a_function_is_refused(runs, tmp_path):
    fitted = runs.made(NLE)
    moved = fitted.posterior.with_prior(jaxsbi.Prior(model))
    with pytest.raises(TypeError, match=r"method.target: .*before `with_prior`"):
        jaxsbi.save(tmp_path / "run", jaxsbi.Fitted(moved, runs.small().history))


PROGRAM = """
import sys, jax, numpy, jaxsbi
posterior = jaxsbi.load(sys.argv[1]).posterior
draws = posterior.sample(jax.random.key(3), numpy.array([0.3, -1.0, 2.0], "float32"), 8)
print(*(a.tobytes().hex() for a in map(numpy.asarray, draws.values())))
"""


def test_a_trained_posterior_draws_the_same_in_another_process(runs, tmp_path):
    def simulator(key, theta):
        return theta["a"] + jnp.concatenate([theta["b"], jax.random.normal(key, (1,))])

    rows = jaxsbi.simulate(jax.random.key(1), runs.prior, simulator, 100, progress=False)
    fitted = jaxsbi.fit(jax.random.key(2), NPE, runs.prior, rows, max_epochs=2, progress=False)
    runs.same(again(tmp_path / "run", fitted), fitted)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    draws = fitted.posterior.sample(jax.random.key(3), X, 8)
    assert printed == [np.asarray(a).tobytes().hex() for a in draws.values()]


def test_double_precision_is_kept_or_refused(runs, tmp_path):
    with jax.enable_x64(True):
        prior = jaxsbi.Prior(a=dist.Normal(0.0, 1.0))
        rows = jaxsbi.Simulations({"a": jnp.ones(40)}, jnp.ones((40, 2)), jnp.ones(40))
        fitted = runs.made(NPE, prior, rows)
        runs.same(again(tmp_path / "run", fitted), fitted)
    with pytest.raises(ValueError, match=r"float64, which JAX does not .*jax_enable_x64"):
        jaxsbi.load(tmp_path / "run")
