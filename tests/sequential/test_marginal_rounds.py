"""Rounds for marginal posteriors: exact answers in a shrinking box, one program, nothing lost."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import loop, sequential
from jaxsbi.base import configuration
from jaxsbi.latent import PriorError
from jaxsbi.sequential import proposal as proposal_module

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel
NAMES = ("a", "b", "c", "d")
PRIOR = jaxsbi.Prior(**{name: dist.Normal(0.0, 1.0) for name in NAMES})
MIXING = jnp.eye(4) + 0.5 * jnp.eye(4, k=1)
NOISE = 0.1
X = jnp.array([0.5, -0.5, 1.0, 0.0])
COVARIANCE = np.linalg.inv(np.eye(4) + MIXING.T @ MIXING / NOISE**2)
MEAN, WIDTH = COVARIANCE @ (MIXING.T @ X) / NOISE**2, np.sqrt(np.diag(COVARIANCE))
# A Gaussian's width would be a mean over the box, at whose faces posteriors are cut.
METHOD = jaxsbi.npe(density=jaxsbi.densities.SplineAutoregressive(layers=2, hidden=32))


def simulator(key, theta):
    vector = jnp.stack([theta[name] for name in NAMES])
    return MIXING @ vector + NOISE * jax.random.normal(key, (4,))


def run(seed=0, method=METHOD, prior=PRIOR, simulator=simulator, x=X, **options):
    options = {"num_rounds": 3, "simulations_per_round": 800, "progress": False, **options}
    return sequential.marginals(jax.random.key(seed), method, prior, simulator, x, **options)


@pytest.fixture(scope="module")
def result(compiled):
    before = compiled()
    made = run()
    assert compiled() <= before + 1  # for all rounds and all parameters
    return made


def inside(prior, theta) -> np.ndarray:
    return np.asarray(jax.vmap(prior.holds)(jax.tree.map(jnp.asarray, theta)))


@pytest.mark.slow
def test_marginals_are_exact_in_a_box_that_holds_the_posterior(result) -> None:
    assert list(result.marginals) == [(name,) for name in NAMES]
    for i, name in enumerate(NAMES):
        draws = result.marginals[name,].posterior.sample(jax.random.key(5), X, 4_000)[name]
        # Trainings on 1,000 to 1,600 simulations scatter by 0.1 widths and by 6 % (six of them).
        assert abs(draws.mean() - MEAN[i]) < 0.3 * WIDTH[i]
        assert draws.std() == pytest.approx(WIDTH[i], rel=0.2)
        # 10,000 draws reach 3.85 +- 0.25 widths of theirs; 1.15 for that, twice, and their scatter.
        assert float(result.prior.low[i]) < MEAN[i] - 2.7 * WIDTH[i]
        assert float(result.prior.high[i]) > MEAN[i] + 2.7 * WIDTH[i]


@pytest.mark.slow
def test_every_round_is_written_down(result) -> None:
    assert result.finished
    masses = [r.prior_mass for r in result.rounds]
    assert masses[0] == pytest.approx(1.0)
    # Eight widths of 0.1, of a prior of about 3: a thousandth in four dimensions, and less.
    assert masses[2] <= masses[1] < 0.01
    for each in result.rounds:
        theta = jax.tree.map(jnp.asarray, each.simulations.theta)
        log_prior = jax.vmap(PRIOR.log_prob)(theta)
        np.testing.assert_allclose(
            each.log_proposal - log_prior, -np.log(each.prior_mass), atol=1e-3
        )
        assert np.all(inside(each.prior, theta))
    kept = result.simulations
    assert len(kept) == result.rounds[-1].kept > 800
    assert np.all(inside(result.prior, kept.theta))


@pytest.mark.slow
def test_other_marginals_are_learned_in_the_box(result) -> None:
    # The box is a prior: what is simulated from it is added to what is left of the rounds.
    more = jaxsbi.simulate(jax.random.key(2), result.prior, simulator, 4_000, progress=False)
    rows = jax.tree.map(lambda *a: np.concatenate(a), result.simulations, more)
    pairs = [("a", "b"), ("c", "a")]
    fitted = jaxsbi.marginals(jax.random.key(1), METHOD, result.prior, rows, pairs, progress=False)
    for pair in pairs:
        draws = fitted[pair].posterior.sample(jax.random.key(2), X, 4_000)
        index = [NAMES.index(name) for name in pair]
        expected = COVARIANCE[np.ix_(index, index)] / np.outer(WIDTH[index], WIDTH[index])
        found = np.corrcoef(np.stack([draws[name] for name in pair]))
        # After 1,500 simulations correlations are off by 0.1; these are 5,500.
        np.testing.assert_allclose(found, expected, atol=0.15)


@pytest.mark.slow
def test_rounds_go_on_within_the_last_box(result) -> None:
    more = run(prior=result.prior, num_rounds=1, groups=["b"], seed=1)
    assert more.rounds[0].prior_mass == pytest.approx(result.rounds[-1].prior_mass)
    assert np.all(inside(result.prior, more.simulations.theta))
    draws = more.marginals["b",].posterior.sample(jax.random.key(5), X, 4_000)["b"]
    assert abs(draws.mean() - MEAN[1]) < 0.3 * WIDTH[1]
    assert draws.std() == pytest.approx(WIDTH[1], rel=0.2)


@pytest.mark.slow
def test_ratios_narrow_the_prior_too() -> None:
    # N(0, 1) prior, N(0, 0.25²) posterior for x = 0, and a parameter that nothing is asked of.
    def two(key, theta):
        return theta["a"][None] + 15**-0.5 * jax.random.normal(key, (1,))

    prior = PRIOR.marginal("a", "b")
    x = jnp.zeros(1)
    found = run(method=jaxsbi.nre(), prior=prior, simulator=two, x=x, groups=["a"])
    draws = found.marginals["a",].posterior.sample(jax.random.key(5), x, 4_000)["a"]
    assert abs(draws.mean()) < 0.15 * 0.25
    assert draws.std() == pytest.approx(0.25, rel=0.12)
    assert 0.4 < found.rounds[-1].prior_mass < 0.95  # four widths either way: 0.68
    assert (found.prior.low[1], found.prior.high[1]) == (-40.0, 40.0)


@configuration
class Known:
    """The exact marginal of one parameter with width 0.1 about x; nothing is trained."""

    latent = True
    width: float = 0.1

    def init(self, key, prior, simulations):
        return {"params": {"shift": 0.1 * jax.random.normal(key)}, "statistics": {}}

    def loss(self, variables, prior, key, batch):
        return (batch.theta["z"][:, 0] - batch.x[:, 0] - variables["params"]["shift"]) ** 2

    def sample(self, variables, prior, key, x, n):
        return {"z": self.width * jax.random.normal(key, (n, prior.dim))}, ()

    def log_prob(self, variables, prior, theta, x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(theta["z"], 0.0, self.width))


SMALL = {"method": Known(), "simulations_per_round": 60}


def same(one, other) -> None:
    """Assert that two results are the same, but for the seconds that they took."""
    assert one.finished
    assert other.finished
    for a, b in zip(one.rounds, other.rounds, strict=True):
        for name in ("simulations", "prior", "log_proposal", "prior_mass", "kept"):
            some, others = getattr(a, name), getattr(b, name)
            assert jax.tree.structure(some) == jax.tree.structure(others)
            for u, v in zip(*map(jax.tree.leaves, (some, others)), strict=True):
                np.testing.assert_array_equal(u, v)
        for group, fitted in a.marginals.items():
            losses = (f.history.validation_loss for f in (fitted, b.marginals[group]))
            np.testing.assert_array_equal(*losses)


def test_killed_rounds_end_in_the_same_bits(killed, tmp_path, monkeypatch) -> None:
    plain = run(**SMALL)
    for at in (1, 3, 4):
        killed(lambda: run(**SMALL, checkpoint=tmp_path), at)
    same(run(**SMALL, checkpoint=tmp_path), plain)

    # Afterwards nothing is simulated or trained again.
    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(proposal_module, "simulate_at", never)
    monkeypatch.setattr(loop, "_run", never)
    same(run(**SMALL, checkpoint=tmp_path), plain)
    with pytest.raises(ValueError, match="proposal"):  # of other groups
        run(**SMALL, checkpoint=tmp_path, groups=["a"])


def test_a_half_trained_round_is_lost(monkeypatch) -> None:
    trainings = itertools.count(1)
    train = loop._run

    def interrupted(run, state, *rest):
        return (state, True) if next(trainings) == 2 else train(run, state, *rest)

    monkeypatch.setattr(loop, "_run", interrupted)
    found = run(**SMALL)
    assert len(found.rounds) == 1
    assert not found.finished


def test_a_parameter_may_be_a_vector_and_be_in_several_groups() -> None:
    prior = jaxsbi.Prior(a=dist.Normal(jnp.zeros(2), 1.0), b=dist.Gamma(2.0), c=dist.Normal())

    def of_a(key, theta):
        return theta["a"] + jax.random.normal(key, (2,))

    found = run(
        method=Known(), prior=prior, simulator=of_a, x=jnp.zeros(2), num_rounds=2,
        simulations_per_round=60, groups=[("b", "a"), "b", ("c", "b")],
    )  # fmt: skip
    assert list(found.marginals) == [("b", "a"), ("b",), ("c", "b")]
    # 10,000 draws of width 0.1 end at 0.39 +- 0.03 on either side.
    np.testing.assert_allclose(found.prior.high, 0.39, atol=0.1)
    np.testing.assert_allclose(found.prior.low, -0.39, atol=0.1)


def test_rounds_run_in_double_precision(x64) -> None:
    found = run(**SMALL, x=jnp.asarray(X, float))
    assert found.prior.low.dtype == jnp.float64
    assert found.simulations.theta["a"].dtype == np.float64


def test_what_cannot_be_learned_is_refused_before_anything_is_simulated(monkeypatch) -> None:
    def simulate(*args, **options):
        raise AssertionError("simulated")

    monkeypatch.setattr(proposal_module, "simulate_at", simulate)
    with pytest.raises(PriorError, match=r"expected names among \['a', 'b', 'c', 'd'\]"):
        run(groups=["e"])
    with pytest.raises(ValueError, match="groups: expected names"):
        run(groups=[])
    with pytest.raises(TypeError, match="sees parameters by their latent numbers"):
        run(method=object())
    with pytest.raises(ValueError, match=r"expected shape \(4,\), got \(3,\)"):
        run(x=jnp.zeros(3))
    with pytest.raises(ValueError, match=r"num_rounds: expected an integer, got 1\.5"):
        run(num_rounds=1.5)
    with pytest.raises(ValueError, match="are mapped by their support"):
        run(prior=jaxsbi.Prior(angle=dist.VonMises(0.0, 1.0)))


def test_draws_that_are_all_one_make_no_box() -> None:
    with pytest.raises(
        ValueError, match=r"the posteriors of \[\('a',\), .* have draws that are not"
    ):
        run(method=Known(width=0.0), simulations_per_round=60)


def test_an_observation_outside_all_simulations_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"observation\[0\]: 50, where simulations"):
        run(**SMALL, num_rounds=1, x=X.at[0].set(50.0))
