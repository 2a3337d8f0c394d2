"""Rounds that new ones are added to: those that they can be trained on as well, and no others."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import sequential
from jaxsbi.sequential import rounds

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel
# 0.1 is another number in single precision. x | m has precision 15: a posterior of width 0.25.
PRIOR = jaxsbi.Prior(m=dist.Normal(0.1, 1.0))
NPE = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8))
NLE = jaxsbi.nle(density=jaxsbi.densities.Gaussian(hidden=8))
X = jnp.zeros(1)
OTHER = np.array([-2.0])


def simulator(key, theta):
    return theta["m"][None] + 15**-0.5 * jax.random.normal(key, (1,))


def run(scheme, method=NPE, number=1, size=60, prior=PRIOR, simulate=simulator, x=X, **options):
    part = "step" if scheme == "dynamic" else "round"
    sizes = {f"num_{part}s": number, f"simulations_per_{part}": size}
    function = getattr(sequential, scheme)
    return function(
        jax.random.key(len(scheme)), method, prior, simulate, x, progress=False, **sizes, **options
    )


@pytest.fixture(scope="module")
def made():
    """Return results of two rounds each, and of one: from the prior."""
    return {
        "atomic": run("atomic", number=2),
        "truncated": run("truncated", number=2),
        "likelihood": run("likelihood", NLE, number=2),
        "one": run("atomic", number=1),
    }


@pytest.mark.parametrize("before", ["atomic", "likelihood"])
@pytest.mark.parametrize("scheme", ["truncated", "dynamic"])
def test_draws_of_a_posterior_are_no_part_of_the_prior(made, scheme, before):
    with pytest.raises(ValueError, match=r"previous: expected .* got draws .* round 1.*NPE"):
        run(scheme, previous=made[before])


@pytest.mark.parametrize("scheme", ["truncated", "dynamic"])
def test_a_region_of_another_observation_is_refused(made, scheme):
    with pytest.raises(ValueError, match="previous: expected rounds for this observation"):
        run(scheme, x=OTHER, previous=made["truncated"])


def test_rounds_for_another_observation_stay_another_s(made):
    moved = run("truncated", NLE, x=OTHER, previous=made["truncated"])
    assert [float(r.x[0]) for r in moved.rounds] == [0.0, 0.0, -2.0]
    with pytest.raises(ValueError, match=r"chosen for another in round 1"):
        run("truncated", x=OTHER, previous=moved)


@pytest.mark.parametrize(
    ("scheme", "method", "before", "x"),
    [
        ("truncated", NPE, "truncated", X),
        ("truncated", NPE, "one", OTHER),  # all from the prior
        ("truncated", NLE, "atomic", X),
        ("atomic", NPE, "truncated", OTHER),
        ("likelihood", NLE, "atomic", OTHER),
        ("dynamic", NPE, "truncated", X),
        ("dynamic", NLE, "likelihood", X),
        ("dynamic", NLE, "atomic", X),  # of another method: trained afresh
    ],
)
def test_what_can_be_trained_on_is(made, scheme, method, before, x):
    more = run(scheme, method, x=x, previous=made[before])
    assert more.rounds[:-1] == made[before].rounds
    assert more.posterior.method == method
    np.testing.assert_array_equal(more.rounds[-1].x, np.asarray(x, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "method"), [("atomic", NPE), ("likelihood", NLE)])
def test_another_observation_s_rounds_give_the_exact_posterior(scheme, method):
    first = run(scheme, method, number=3, size=700)
    moved = run(scheme, method, number=2, size=700, x=OTHER, previous=first)
    draws = np.asarray(moved.posterior.sample(jax.random.key(5), OTHER, 4000)["m"])
    # Exact: mean (15 * -2 + 0.1) / 16. About 700 simulations near it fix it to 5 % of a width.
    assert draws.mean() == pytest.approx(-1.869, abs=0.2 * 0.25)
    assert draws.std() == pytest.approx(0.25, rel=0.15)


PRIORS = {
    "normal": lambda a: dist.Normal(a, 1.0),
    "uniform": lambda a: dist.Uniform(-1.0, 1.0 + a),
    "truncated": lambda a: dist.TruncatedNormal(0.0, 1.0, low=-a, high=3.3),
    "transformed": lambda a: dist.LogNormal(a, 0.3),
    "mixed": lambda a: dist.MixtureSameFamily(
        dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.array([0.0, a]), 1.1)
    ),
    "piled": lambda a: dist.VonMises(0.0, 1.0 + a),
}


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_is_the_same_by_its_numbers(name):
    one, again, other = (rounds.unmoved(jaxsbi.Prior(m=PRIORS[name](a))) for a in (0.1, 0.1, 0.2))
    assert rounds._same(one, jax.jit(lambda prior: prior)(again))
    assert not rounds._same(one, other)


@pytest.mark.parametrize(
    ("scheme", "method"),
    [("truncated", NPE), ("atomic", NPE), ("likelihood", NLE), ("dynamic", NPE)],
)
def test_rounds_under_another_prior_are_refused(made, scheme, method):
    other = jaxsbi.Prior(m=dist.Normal(0.1, 1.1))
    with pytest.raises(ValueError, match="previous: expected rounds under this prior"):
        run(scheme, method, prior=other, previous=made["one"])


def test_what_are_no_rounds_is_refused(made):
    for scheme in ("truncated", "atomic", "dynamic"):
        with pytest.raises(TypeError, match=r"previous: expected what .* got str\. Pass"):
            run(scheme, previous="x")
        with pytest.raises(ValueError, match="previous: expected at least one round, got none"):
            run(scheme, previous=sequential.Result(()))
    with pytest.raises(ValueError, match=r"parameters \{'b': \(\)\}, got \{'m': \(\)\}"):
        run("atomic", prior=jaxsbi.Prior(b=dist.Normal(0.0, 1.0)), previous=made["one"])

    def twice(key, theta):
        return jnp.repeat(simulator(key, theta), 2)

    with pytest.raises(ValueError, match=r"of data float32\[2\].*got float32\[1\]"):
        run("atomic", simulate=twice, x=jnp.zeros(2), previous=made["one"])
