"""What every sampler must do. A new one enters `SAMPLERS`; a test fails if it does not.

All densities are members of one family, so that each sampler is compiled once for all of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import samplers
from jaxsbi.base import configuration
from jaxsbi.methods import likelihood
from jaxsbi.samplers.bridge import two_errors

DIM, N = 5, 2000
FIELDS = ("r_hat", "ess_bulk", "ess_tail", "divergences", "acceptance", "log_density")
LARGEST = 4.0  # standard errors: with fixed keys, about 200 numbers pass or fail once

CHAINS = {
    "nuts": samplers.nuts(chains=20),
    "hmc": samplers.hmc(chains=20),
    "ensemble": samplers.ensemble(walkers=40, warmup=200, thin=5),
    "slice": samplers.slice(chains=40),
}
# These report the evidence.
EVIDENCE = {
    "smc": samplers.smc(particles=512),
    "smc, gradients": samplers.smc(particles=512, kernel=samplers.Hamiltonian()),
    "sir": samplers.sir(),
    "rejection": samplers.rejection(rounds=50),
}
SAMPLERS = CHAINS | EVIDENCE
# These claim the right weights of separated modes.
FIND_MODES = {"ensemble", *EVIDENCE}
# NumPyro's kernels promote ranks.
EVERY = [
    pytest.param(name, marks=pytest.mark.rank_promotion) if name in ("nuts", "hmc") else name
    for name in SAMPLERS
]


class Density(NamedTuple):
    """A mixture of two Gaussians of one covariance; `outside` where z_0 is below `cut`."""

    weight: jax.Array
    mean: jax.Array  # (2, d)
    whiten: jax.Array  # (d, d)
    cut: jax.Array
    outside: jax.Array

    def __call__(self, z):
        white = (z[None] - self.mean) @ self.whiten.T
        normal = -0.5 * jnp.sum(white**2, 1) + jnp.sum(jnp.log(jnp.diagonal(self.whiten)))
        normal = normal - 0.5 * DIM * math.log(2 * math.pi)
        weight = jnp.stack([self.weight, 1.0 - self.weight])
        inside = jax.scipy.special.logsumexp(normal + jnp.log(weight))
        return jnp.where(z[0] > self.cut, inside, self.outside)


def density(mean=(0.0, 0.0), scale=0.7, correlation=0.0, cut=-jnp.inf, outside=-jnp.inf):
    covariance = scale**2 * ((1 - correlation) * np.eye(DIM) + correlation)
    centre = np.zeros((2, DIM))
    centre[:, 0] = mean
    leaves = (0.3, centre, np.linalg.inv(np.linalg.cholesky(covariance)), cut, outside)
    return Density(*(jnp.asarray(a, jnp.float32) for a in leaves))


class Case(NamedTuple):
    density: Density
    mean: float  # of the first dimension
    std: float
    log_evidence: float


WIDE, NARROW = 0.7, 0.4
# A normal cut at its centre.
HALF_MEAN, HALF_STD = WIDE * math.sqrt(2 / math.pi), WIDE * math.sqrt(1 - 2 / math.pi)
FAR = 3 * NARROW  # six standard deviations apart, with weights 0.3 and 0.7
CASES = {
    "gaussian": Case(density((0.5, 0.5)), 0.5, WIDE, 0.0),
    "correlated": Case(density(scale=0.5, correlation=0.6), 0.0, 0.5, 0.0),
    "two modes": Case(density((-FAR, FAR), NARROW), 0.4 * FAR, math.nan, 0.0),
    "zero": Case(density(cut=0.0), HALF_MEAN, HALF_STD, -math.log(2)),
    "nan": Case(density(cut=0.0, outside=jnp.nan), HALF_MEAN, HALF_STD, -math.log(2)),
    "zero everywhere": Case(density(cut=jnp.inf), math.nan, math.nan, -math.inf),
}
STACKED = jax.tree.map(lambda *a: jnp.stack(a), *(case.density for case in CASES.values()))


@jax.jit
def _run(sampler, keys, densities):
    return jax.vmap(lambda k, p: sampler(k, p, DIM, N))(keys, densities)


_results: dict[str, tuple] = {}


def run(name):
    """Return draws and reports of all cases, computed once."""
    if name not in _results:
        keys = jax.random.split(jax.random.key(0), len(CASES))
        _results[name] = _run(SAMPLERS[name], keys, STACKED)
    return _results[name]


def result(name, case):
    return jax.tree.map(lambda a: a[list(CASES).index(case)], run(name))


def effective(info):
    """Return for how many independent draws those returned count, by the report, shape (d,)."""
    # Draws are picked at random from all that were made: the pick adds its own noise.
    return 1.0 / (1.0 / jnp.minimum(info.ess_bulk, info.ess_tail) + 1.0 / N)


def test_every_sampler_is_here():
    public = {name: getattr(samplers, name) for name in samplers.__all__}
    classes = {c for c in public.values() if isinstance(c, type) and "__call__" in vars(c)}
    assert classes == {type(sampler) for sampler in SAMPLERS.values()}
    for name, sampler in SAMPLERS.items():
        make = public[name.split(",")[0]]
        assert make() == type(sampler)()  # the function that makes it, and its defaults
        assert hash(make()) == hash(type(sampler)())


@pytest.mark.parametrize("name", EVERY)
def test_the_report_is_complete(name):
    z, info = result(name, "gaussian")
    assert set(FIELDS) <= set(info._fields)
    assert z.shape == (N, DIM)
    assert info.r_hat.shape == info.ess_bulk.shape == info.ess_tail.shape == (DIM,)
    assert info.divergences.shape == info.acceptance.shape == ()
    assert 0.0 < float(info.acceptance) <= 1.0
    np.testing.assert_allclose(info.log_density, jax.vmap(CASES["gaussian"].density)(z), atol=1e-3)


@pytest.mark.parametrize("case", ["gaussian", "correlated", "zero", "nan"])
@pytest.mark.parametrize("name", EVERY)
def test_moments(name, case, recwarn):
    z, info = result(name, case)
    size = effective(info)
    known = CASES[case]
    error = known.std / jnp.sqrt(size[0])
    assert abs(float(jnp.mean(z[:, 0])) - known.mean) < LARGEST * error
    # The fourth moment of a half normal is below that of a normal.
    spread = jnp.std(z[:, 0]) / known.std
    assert abs(float(spread) - 1.0) < LARGEST / jnp.sqrt(2.0 * size[0])
    # The last dimension is a normal in all of them.
    scale = 0.5 if case == "correlated" else WIDE
    assert abs(float(jnp.mean(z[:, -1]))) < LARGEST * scale / jnp.sqrt(size[-1])
    assert abs(float(jnp.std(z[:, -1])) / scale - 1.0) < LARGEST / jnp.sqrt(2.0 * size[-1])
    if case == "correlated":
        correlation = float(jnp.corrcoef(z[:, 0], z[:, -1])[0, 1])
        assert abs(correlation - 0.6) < LARGEST * (1 - 0.6**2) / jnp.sqrt(jnp.min(size))
    if case in ("zero", "nan"):
        assert float(jnp.min(z[:, 0])) > 0.0
    if name in ("nuts", "hmc") and case in ("zero", "nan"):
        return  # a gradient says nothing of an edge: they are slow there, and say so
    assert float(jnp.min(size)) > 200
    info.warn()
    assert not recwarn.list


@pytest.mark.parametrize("name", EVERY)
def test_separated_modes(name):
    z, info = result(name, "two modes")
    share, size = float(jnp.mean(z[:, 0] > 0.0)), float(effective(info)[0])
    if name in FIND_MODES:
        assert size > 50
        assert abs(share - 0.7) < LARGEST * math.sqrt(0.3 * 0.7 / size)
    elif float(info.r_hat[0]) > samplers.convergence.MAX_R_HAT:
        with pytest.warns(UserWarning, match="R-hat"):
            info.warn()
    else:  # not stuck: then the weights must be right
        assert abs(share - 0.7) < LARGEST * math.sqrt(0.3 * 0.7 / size)


NOWHERE = "log-density was -inf or NaN at every .* drawn from the prior.*Check the observation"


@pytest.mark.parametrize("name", EVERY)
def test_nothing_to_sample_ends_and_reads_as_failed(name):
    z, info = result(name, "zero everywhere")
    assert z.shape == (N, DIM)
    assert float(jnp.max(info.r_hat)) > 1.5
    with pytest.warns(UserWarning, match=NOWHERE):
        info.warn()


@pytest.mark.parametrize("name", ["nuts", "hmc", "slice", "ensemble", "sir"])
def test_nan_everywhere_is_blamed_on_the_density(name):
    few = {"candidates": 400} if name == "sir" else {"warmup": 20}
    few |= {"chains": 20} if name in ("nuts", "hmc", "slice") else {}
    z, info = getattr(samplers, name)(**few)(jax.random.key(0), lambda z: jnp.nan * z.sum(), 2, 200)
    assert np.unique(z, axis=0).shape[0] >= 20  # the prior's draws, and not one of them
    with pytest.warns(UserWarning, match=NOWHERE) as caught:
        info.warn()
    assert len(caught) == 1


@pytest.mark.parametrize("name", EVIDENCE)
@pytest.mark.parametrize("case", CASES)
def test_evidence(name, case):
    _, info = result(name, case)
    if case == "zero everywhere":
        assert float(info.log_evidence) == -math.inf
    else:
        # SMC's error has only seven degrees of freedom, in which 5.4 is as rare as 3.3.
        error = float(info.log_evidence_error)
        assert error < 0.15
        assert abs(float(info.log_evidence) - CASES[case].log_evidence) < 5.4 * error


@pytest.mark.parametrize("name", EVIDENCE)
def test_the_evidence_error_is_right(name):
    """The error covers what it should, on repeats; another density is not another program."""
    run(name)
    traced = _run._cache_size()
    errors = []
    for seed in range(12):
        keys = jax.random.split(jax.random.key(seed + 1), len(CASES))
        case = CASES["gaussian"]
        _, info = _run(
            SAMPLERS[name],
            keys,
            jax.tree.map(lambda a: jnp.stack([a] * len(CASES)), case.density),
        )
        errors.append(np.asarray(info.log_evidence / info.log_evidence_error))
    assert _run._cache_size() == traced
    errors = np.concatenate(errors)
    # A 90 % interval; SMC's Student t has seven degrees of freedom, and its error grows for it.
    inside = np.abs(errors) < (1.895 / two_errors(8) if name.startswith("smc") else 1.645)
    assert abs(np.mean(inside) - 0.9) < LARGEST * math.sqrt(0.9 * 0.1 / len(errors))
    assert abs(np.mean(errors)) < LARGEST * 1.2 / math.sqrt(len(errors))


@pytest.mark.parametrize("name", EVERY)
def test_a_key_decides_the_draws(name):
    run(name)
    data = jax.random.key_data(jax.random.split(jax.random.key(1), len(CASES)))
    keys = jax.random.wrap_key_data(data.at[1].set(data[0]))
    same = jax.tree.map(lambda a: jnp.stack([a] * len(CASES)), CASES["gaussian"].density)
    traced = _run._cache_size()
    z, _ = _run(SAMPLERS[name], keys, same)
    assert _run._cache_size() == traced
    np.testing.assert_array_equal(z[0], z[1])
    assert not np.array_equal(z[0], z[2])


@configuration
class Conjugate:
    """A road whose likelihood is known: one datum N(x; theta, 1/4), one parameter."""

    sampler: object
    target: object = None

    def log_likelihood(self, variables, prior, z, x):
        theta = prior.from_latent(z)["theta"]
        return variables["height"] - 0.5 * ((x - theta) / 0.5) ** 2


@jax.jit
def _sample(method, prior, key, x):
    return likelihood.sample(method, {"height": jnp.array(3.0)}, prior, key, x, N)


@pytest.mark.parametrize("name", EVERY)
def test_one_dimension_and_a_posterior(name):
    prior = jaxsbi.Prior(theta=dist.Normal(1.0, 2.0))
    theta, info = _sample(Conjugate(sampler=SAMPLERS[name]), prior, jax.random.key(3), 2.0)
    variance = 1.0 / (1.0 / 4.0 + 1.0 / 0.25)
    mean, std = variance * (1.0 / 4.0 + 2.0 / 0.25), math.sqrt(variance)
    size = float(effective(info)[0])
    assert size > 200
    assert abs(float(jnp.mean(theta["theta"])) - mean) < LARGEST * std / math.sqrt(size)
    assert abs(float(jnp.std(theta["theta"])) / std - 1.0) < LARGEST / math.sqrt(2 * size)
    if name in EVIDENCE:
        predictive = dist.Normal(1.0, math.sqrt(4.25)).log_prob(2.0)
        exact = float(predictive) + 3.0 + 0.5 * math.log(2 * math.pi * 0.25)
        assert abs(float(info.log_evidence) - exact) < 0.05
        assert abs(float(info.log_evidence) - exact) < 5.4 * float(info.log_evidence_error)


@pytest.mark.parametrize("steps", [1, 3])
def test_smc_ends_where_its_temperatures_do(steps):
    def narrow(z):
        return -0.5 * jnp.sum(((z - 1.0) / 1e-3) ** 2)

    sampler = samplers.smc(max_temperatures=steps)
    z, info = jax.jit(lambda key: sampler(key, narrow, 2, 500))(jax.random.key(0))
    assert int(info.temperatures) == steps
    assert 0.0 < float(info.temperature) < 1.0
    assert math.isinf(float(jnp.max(info.r_hat)))
    # As far as the particles came: nearer to the mode than the prior's draws.
    distance = float(jnp.mean(jnp.linalg.norm(z - jnp.ones((1, 2)), axis=1)))
    assert distance < 1.65  # of N(0, I) it is 1.81 on average
    np.testing.assert_allclose(info.log_density, jax.vmap(narrow)(z), rtol=1e-3)
    with pytest.warns(UserWarning, match="Raise max_temperatures"):
        info.warn()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SMC")  # a likelihood this little trained may be anything
def test_a_learned_likelihood_is_sampled_under_vmap():
    def simulator(key, theta):
        return theta["theta"] + jax.random.normal(key, (2,))

    prior = jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    simulations = jaxsbi.simulate(jax.random.key(0), prior, simulator, 200, progress=False)
    method = jaxsbi.nle(
        density=jaxsbi.densities.MaskedAutoregressive(layers=1, hidden=8),
        sampler=samplers.smc(particles=40),
    )
    fitted = jaxsbi.fit(jax.random.key(1), method, prior, simulations, max_epochs=2, progress=False)
    x = jnp.array([[0.0, 0.0], [1.0, -1.0]])
    keys = jax.random.split(jax.random.key(2))
    draw = jax.vmap(lambda k, x: fitted.posterior.sample_with_info(k, x, 100))
    theta, info = draw(keys, x)
    assert theta["theta"].shape == (2, 100, 2)
    assert bool(jnp.all(jnp.isfinite(info.log_evidence)))
    alone, _ = fitted.posterior.sample_with_info(jax.random.key(3), x[0], 1)
    assert alone["theta"].shape == (1, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samplers.hmc(chains=1), "hmc: expected chains >= 2.*got chains=1"),
        (lambda: samplers.hmc(leapfrog_steps=0), "leapfrog_steps >= 1, got 0"),
        (lambda: samplers.smc(particles=3), "particles >= 40.*got particles=3"),
        (lambda: samplers.smc(ess=1.0), "between 0 and 1, got.*ess=1.0"),
        (lambda: samplers.ensemble(walkers=7), "even number of walkers.*walkers=7"),
        (lambda: samplers.slice(thin=0), "slice: expected.*thin=0"),
        (lambda: samplers.sir(candidates=10), "candidates >= 400.*candidates=10"),
        (lambda: samplers.rejection(batch=1), "batch >= 100.*batch=1"),
        (
            lambda: samplers.ensemble()(jax.random.key(0), lambda z: -z @ z, 40, 10),
            "at least 160 walkers in 40 dimensions, got 100",
        ),
    ],
)
def test_bad_configuration(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_there_may_be_more_chains_than_candidates(key):
    sampler = samplers.Slice(chains=50, candidates=10, warmup=1)
    z, _ = sampler(key, lambda z: -0.5 * z @ z, 2, 100)
    assert z.shape == (100, 2)


@pytest.mark.parametrize("kernel", ["hmc", samplers.Hamiltonian])
def test_a_kernel_is_one(kernel):
    with pytest.raises(TypeError, match=r"kernel: expected .*Hamiltonian\(\), got '?[hH]"):
        samplers.smc(kernel=kernel)


@pytest.mark.parametrize("name", ["smc", "slice"])
def test_few_dimensions_need_no_lapack(name):
    """JAX waits for ever where two of LAPACK's batched calls run at the same time on two cores.

    It did so with 100 observations of two_moons in one program; which programs do is a matter of
    timing, so this looks at what they call.
    """
    draw = jax.vmap(lambda key: SAMPLERS[name](key, CASES["gaussian"].density, DIM, N))
    keys = jax.random.split(jax.random.key(0), 3)
    assert "lapack" not in jax.jit(draw).lower(keys).as_text()
