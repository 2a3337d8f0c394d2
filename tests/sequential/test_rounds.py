"""Rounds: exact answers whatever was proposed, one program, nothing lost."""

import dataclasses
import importlib
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxsbi
from jaxsbi import loop, sequential
from jaxsbi.base import DataSpec, configuration
from jaxsbi.boxed import whole
from jaxsbi.recentred import Recentred
from jaxsbi.sequential import proposal as proposal_module

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel

dynamic_module = importlib.import_module("jaxsbi.sequential.dynamic")
truncated_module = importlib.import_module("jaxsbi.sequential.truncated")
# N(0, 1) prior, N(0, 0.25²) posterior for x = 0: x | theta has precision 16 - 1.
NARROW = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
NOISE = 15**-0.5
X = jnp.zeros(1)
METHODS = {
    "truncated": jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16)),
    "box": jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16)),
    "atomic": jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16)),
    "likelihood": jaxsbi.nle(density=jaxsbi.densities.MaskedAutoregressive(layers=2, hidden=16)),
    "dynamic": jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16)),
}


def simulator(key, theta):
    return theta["theta"][None] + NOISE * jax.random.normal(key, (1,))


def run(scheme, method=None, prior=NARROW, simulate=simulator, x=X, seed=0, **options):
    part = "step" if scheme == "dynamic" else "round"
    sizes = {f"num_{part}s": 3, f"simulations_per_{part}": 700}
    options = {**sizes, "progress": False, **options}
    function = getattr(sequential, "truncated" if scheme == "box" else scheme)
    if scheme == "box":
        options["region"] = "box"
    method = METHODS[scheme] if method is None else method
    return function(jax.random.key(seed), method, prior, simulate, x, **options)


@pytest.fixture(scope="module")
def results(compiled):
    made = {}

    def get(scheme):
        if scheme not in made:
            before = compiled()
            made[scheme] = run(scheme)
            # For all rounds: atomic's first has another loss, dynamic's last is longer.
            programs = 2 if scheme in ("atomic", "dynamic") else 1
            assert compiled() <= before + programs
        return made[scheme]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("scheme", METHODS)
def test_the_posterior_is_exact_whatever_the_rounds_proposed(results, scheme):
    result = results(scheme)
    draws = np.asarray(result.posterior.sample(jax.random.key(5), X, 4000)["theta"])
    # 2,100 simulations, most of them within the region, fix mean and width to about 3 % of a width.
    assert abs(draws.mean()) < 0.12 * 0.25
    assert draws.std() == pytest.approx(0.25, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", METHODS)
def test_every_round_is_written_down(results, scheme):
    result = results(scheme)
    assert result.finished
    assert len(result.rounds) == 3
    assert len(result.simulations) == 2100
    first, *later = result.rounds
    theta = {"theta": jnp.asarray(first.simulations.theta["theta"])}
    np.testing.assert_allclose(first.log_proposal, jax.vmap(NARROW.log_prob)(theta), rtol=1e-5)
    assert first.prior_mass == 1.0
    for each in later:
        assert each.simulations.theta["theta"].shape == (700,)
        assert np.std(each.simulations.theta["theta"]) < 0.7  # where the posterior is
        assert np.all(np.isfinite(each.log_proposal))
        assert isinstance(each.posterior.prior, Recentred)
        assert each.kept > 700
        if scheme in ("truncated", "box", "dynamic"):
            # The prior within the region: proposal / prior = 1 / mass.
            theta = {"theta": jnp.asarray(each.simulations.theta["theta"])}
            excess = each.log_proposal - np.asarray(jax.vmap(NARROW.log_prob)(theta))
            np.testing.assert_allclose(excess, -np.log(each.prior_mass), atol=1e-4)
            assert 0.4 < each.prior_mass < 0.95  # four widths of 0.25 either way: 0.68


@pytest.mark.parametrize("scheme", METHODS)
def test_rounds_run_in_double_precision(scheme, x64):
    part = "step" if scheme == "dynamic" else "round"
    sizes = {f"num_{part}s": 2, f"simulations_per_{part}": 100}
    result = run(scheme, x=jnp.zeros(1), **sizes)
    draws = result.posterior.sample(jax.random.key(5), jnp.zeros(1), 100)["theta"]
    assert draws.dtype == jnp.float64
    assert bool(jnp.all(jnp.isfinite(draws)))


@pytest.mark.slow
def test_rounds_can_be_added(results):
    first = results("truncated")
    more = run("truncated", previous=first, num_rounds=1, seed=1)
    assert len(more.rounds) == 4
    assert more.rounds[:3] == first.rounds


def test_an_interrupted_round_is_all_that_is_lost(monkeypatch):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return simulate_at(*args, **kwargs)

    simulate_at = proposal_module.simulate_at
    monkeypatch.setattr(proposal_module, "simulate_at", interrupted)
    result = run("truncated", method=Exact(), prior=SQUARE, simulate=of_square, x=jnp.zeros(2))
    assert len(result.rounds) == 1
    assert not result.finished
    calls[:] = [1]
    with pytest.raises(KeyboardInterrupt):
        run("truncated", method=Exact(), prior=SQUARE, simulate=of_square, x=jnp.zeros(2))


@pytest.mark.parametrize("scheme", ["truncated", "dynamic"])
def test_a_half_trained_round_is_lost(scheme, monkeypatch):
    trainings = []

    def interrupted(run, state, *rest):
        trainings.append(1)
        return (state, True) if len(trainings) == 2 else train(run, state, *rest)

    train = loop._run
    monkeypatch.setattr(loop, "_run", interrupted)
    part = "step" if scheme == "dynamic" else "round"
    options = {"method": Exact(), "prior": SQUARE, "simulate": of_square, "x": jnp.zeros(2),
               f"simulations_per_{part}": 60}  # fmt: skip
    result = run(scheme, **options)
    assert [r.history.stopped == "interrupted" for r in result.rounds] == [False]
    assert not result.finished
    trainings[:] = [1]
    with pytest.raises(KeyboardInterrupt):
        run(scheme, **options)


# A posterior that needs no training: N((0.4, -0.3), sd (0.18, 0.12)) turned by 0.6, prior
# U[-2.2, 2.2]². 1.40 % of the prior lies in its 2-sigma ellipse.
SQUARE = jaxsbi.Prior(theta=dist.Uniform(-2.2 * jnp.ones(2), 2.2 * jnp.ones(2)).to_event(1))
CENTRE, SDS = jnp.array([0.4, -0.3]), jnp.array([0.18, 0.12])
TURN = jnp.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])


def of_square(key, theta):
    return theta["theta"] + jax.random.normal(key, (2,))


@configuration
class Exact:
    """The density above; training changes nothing."""

    def init(self, key, prior, simulations):
        return {"params": {"nothing": jnp.zeros(())}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return jnp.broadcast_to(variables["params"]["nothing"] ** 2, batch.weight.shape)

    def sample(self, variables, prior, key, x, n):
        noise = SDS[None] * jax.random.normal(key, (n, 2))
        return {"theta": CENTRE[None] + noise @ TURN.T}, ()

    def log_prob(self, variables, prior, theta, x):
        u = (TURN.T @ (theta["theta"] - CENTRE)) / SDS
        return jnp.sum(jax.scipy.stats.norm.logpdf(u)) - jnp.sum(jnp.log(SDS))


def square(theta):
    """Return the squared radius, in sigmas, of points `(n, 2)`."""
    u = (np.asarray(theta) - np.asarray(CENTRE)) @ np.asarray(TURN) / np.asarray(SDS)
    return np.sum(u**2, 1)


@pytest.mark.parametrize("few", [False, True])
def test_the_region_is_an_ellipse_filled_evenly(few, monkeypatch):
    if few:  # as if the prior hit the region too seldom
        monkeypatch.setattr(truncated_module, "MAX_BATCHES", 0)
        jax.clear_caches()
    result = run(
        "truncated", method=Exact(), prior=SQUARE, simulate=of_square, x=jnp.zeros(2), num_rounds=2,
        simulations_per_round=2000,
    )  # fmt: skip
    if few:
        jax.clear_caches()
    second = result.rounds[1]
    inside = square(second.simulations.theta["theta"])
    edge = inside.max()
    # The least likely of 10,000 draws: squared radius 2 log(10,000) = 18.4, give or take 2.6.
    assert 14.0 < edge < 28.0
    area = np.pi * float(SDS[0] * SDS[1]) * edge / 4.4**2
    # The mean of exp(-r²/2) over 2,000 points of an even disc of squared radius 18 scatters by
    # sqrt(18 / 4 - 1) / sqrt(2000) = 4 %; hits and misses by 1 / sqrt(2000) = 2 %.
    assert second.prior_mass == pytest.approx(area, rel=0.16 if few else 0.08)
    # An ellipse filled evenly has a uniform squared radius.
    share = np.sort(inside / edge)
    off = np.abs(share - (np.arange(2000) + 0.5) / 2000).max()
    assert off < 1.95 / 2000**0.5  # Kolmogorov-Smirnov at 0.1 %


@pytest.mark.slow
def test_a_live_set_is_bounded_renewed_and_goes_on(results):
    first = results("dynamic")
    assert [r.history.epochs for r in first.rounds[:2]] == [dynamic_module.EPOCHS] * 2
    more = run("dynamic", previous=first, num_steps=2, live=1000, seed=1)
    assert more.rounds[:3] == first.rounds
    assert [r.kept for r in more.rounds[3:]] == [1000, 1000]
    with pytest.raises(ValueError, match="live: expected at least the 700 simulations"):
        run("dynamic", live=600)
    with pytest.raises(ValueError, match="num_steps and simulations_per_step: expected at least 1"):
        run("dynamic", num_steps=0)


@pytest.mark.slow
def test_a_live_set_finds_coordinates_that_fit_it(monkeypatch):
    starts = []
    fit = dynamic_module.fit

    def watched(*args, **options):
        starts.append((args[2], options["initial"]))
        return fit(*args, **options)

    monkeypatch.setattr(dynamic_module, "fit", watched)
    # The ellipse holds 1.4 % of the prior: its volume shrinks more than tenfold in the first step.
    run("dynamic", method=Exact(), prior=SQUARE, simulate=of_square, x=jnp.zeros(2), num_steps=4,
        simulations_per_step=500, live=1000)  # fmt: skip
    (first, _), *_, (last, _) = starts
    assert starts[0][1] is None
    np.testing.assert_array_equal(first.factor, np.eye(2))
    assert np.linalg.det(last.factor) < 0.1
    moved = [start is None for _, start in starts[1:]]
    assert 1 <= sum(moved) < 3  # once or twice afresh, then it goes on
    assert not moved[-1]


def test_a_wrong_observation_is_refused_before_anything_is_simulated(monkeypatch):
    def simulate(*args, **options):
        raise AssertionError("simulated")

    monkeypatch.setattr(proposal_module, "simulate_at", simulate)
    for scheme in ("atomic", "dynamic"):
        with pytest.raises(ValueError, match=r"expected shape \(1,\), got \(3,\)"):
            run(scheme, x=jnp.zeros(3))
        with pytest.raises(ValueError, match="expected finite numbers"):
            run(scheme, x=jnp.full(1, jnp.nan))


def test_failed_simulations_are_counted():
    def fails(key, theta):
        x = simulator(key, theta)
        return jnp.where(theta["theta"] > 1.0, jnp.nan, x)

    with pytest.warns(UserWarning, match="are not finite"):
        first = run("likelihood", simulate=fails, num_rounds=1, simulations_per_round=200)
    failed = int(np.sum(np.asarray(first.simulations.theta["theta"]) > 1.0))
    assert failed > 0
    assert first.rounds[0].history.num_invalid == failed


class Evidence(NamedTuple):
    log_evidence: jax.Array


@configuration
class Sharp(Exact):
    """An exact likelihood of width 0.001 about x, as a learned one; draws of its posterior."""

    def log_likelihood(self, variables, prior, z, x):
        return jax.scipy.stats.norm.logpdf(x[0], prior.from_latent(z)["theta"], 1e-3)

    def sample(self, variables, prior, key, x, n):
        # The prior is flat over such a width.
        evidence = Evidence(jax.scipy.stats.norm.logpdf(x[0]))
        return {"theta": x[0] + 1e-3 * jax.random.normal(key, (n,))}, evidence

    def log_prob(self, variables, prior, theta, x):
        return self.log_likelihood(variables, prior, prior.to_latent(theta), x) + prior.log_prob(
            theta
        )


def test_the_share_of_a_small_region_of_a_learned_likelihood_is_known():
    posterior = jaxsbi.Posterior({}, NARROW, Sharp(), DataSpec.of(X))
    centred = Recentred(NARROW, jnp.zeros(1), jnp.eye(1))
    posterior = dataclasses.replace(posterior, prior=centred)
    x = jnp.array([0.7])
    found = truncated_module._by_density(jax.random.key(0), posterior, centred, x, 1000)
    theta = np.asarray(found.theta["theta"], float)
    mass = np.diff(scipy.stats.norm.cdf([theta.min(), theta.max()]))[0]
    assert mass < 0.01
    # 1,000 points miss 1/500 of the interval; the mean of the ratio over them scatters by
    # 1 / sqrt(1,000) of its own scatter, which is 1.5 means in an interval of +-4 widths.
    assert found.prior_mass == pytest.approx(mass, rel=0.2)


@configuration
class Tail(Exact):
    """A posterior far out in the prior's upper tail."""

    def sample(self, variables, prior, key, x, n):
        return {"theta": jnp.linspace(5.1, 5.5, n)}, ()


def test_a_box_in_the_tail_of_the_prior_has_the_prior_s_law():
    posterior = jaxsbi.Posterior({}, NARROW, Tail(), DataSpec.of(X))
    centred = Recentred(NARROW, jnp.zeros(1), jnp.eye(1))
    keys = jax.random.split(jax.random.key(3))
    found = truncated_module._by_box(keys[0], posterior, centred, X, 1000)
    low, high = 5.1, 5.5
    log_mass = np.log(scipy.stats.norm.sf(low) - scipy.stats.norm.sf(high))
    theta = np.asarray(found.theta["theta"], float)
    expected = scipy.stats.norm.logpdf(theta) - log_mass
    np.testing.assert_allclose(found.log_prob, expected, atol=1e-3)
    law = scipy.stats.truncnorm(low, high)
    assert len(np.unique(theta)) > 900  # of 1,000
    assert scipy.stats.kstest(theta, law.cdf).pvalue > 0.001


def test_what_lies_outside_all_simulations_is_warned_of():
    with pytest.warns(UserWarning, match=r"observation\[0\]: 50, where simulations"):
        run("truncated", method=Exact(), prior=SQUARE, simulate=of_square,
            x=jnp.array([50.0, 0.0]), num_rounds=1, simulations_per_round=200)  # fmt: skip


def test_options_out_of_range():
    with pytest.raises(TypeError, match=r"got NPE.*sequential\.truncated"):
        run("likelihood", method=METHODS["truncated"])
    with pytest.raises(TypeError, match=r"expected npe.*got NLE"):
        run("atomic", method=METHODS["likelihood"])
    with pytest.raises(ValueError, match="expected at least 1 and 10, got 0 and 700"):
        run("truncated", num_rounds=0)
    for scheme, name, value in (
        ("truncated", "num_rounds", 1.5),
        ("truncated", "num_rounds", True),
        ("atomic", "simulations_per_round", 200.0),
        ("dynamic", "num_steps", "3"),
        ("dynamic", "live", 1500.0),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected an integer, got {value!r}"):
            run(scheme, **{name: value})
    with pytest.raises(ValueError, match='expected "density" or "box"'):
        sequential.truncated(jax.random.key(0), Exact(), SQUARE, of_square, jnp.zeros(2),
                             num_rounds=1, simulations_per_round=100, region="ball")  # fmt: skip
    piled = jaxsbi.Prior(theta=dist.VonMises(0.0, 1.0))
    with pytest.raises(ValueError, match=r"\['theta'\] are mapped by their support"):
        run("box", prior=piled)
    with pytest.raises(ValueError, match=r"\['theta'\] lie in a box already"):
        run("box", prior=whole(SQUARE))
    with pytest.raises(TypeError, match="typed key"):
        sequential.truncated(jax.random.PRNGKey(0), Exact(), SQUARE, of_square, jnp.zeros(2),
                             num_rounds=1, simulations_per_round=100)  # fmt: skip


def test_a_density_that_is_not_a_number_is_an_empty_region():
    @configuration
    class Broken(Exact):
        def log_prob(self, variables, prior, theta, x):
            return jnp.nan * theta["theta"][0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="the region is empty"):
            run("truncated", method=Broken(), prior=SQUARE, simulate=of_square, x=jnp.zeros(2),
                simulations_per_round=100)  # fmt: skip
