"""Rejection against exact posteriors, the promises about keys and chunks, and every error."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import abc
from jaxsbi.abc.rejection import _keep

NORMAL = jaxsbi.Prior(mean=dist.Normal(0.0, 1.0))
OBSERVED = jnp.array([0.5, -0.2])
# Under vmap the checker takes the transpose of scanned keys for a use of them.
vmapped = pytest.mark.key_reuse
FEW = {"num_simulations": 1_000, "keep": 50}


def normal(key, theta):
    return theta["mean"] + jax.random.normal(key, (2,))


def fails_above_one(key, theta):
    return jnp.where(theta["mean"] > 1.0, jnp.nan, normal(key, theta))


def rejection(seed=0, x=OBSERVED, **options):
    return abc.rejection(jax.random.key(seed), NORMAL, normal, x, **{**FEW, **options})


@vmapped
@pytest.mark.parametrize(
    ("n", "keep", "course", "rounding"),
    [(200, 20, 0.24, 0.005), (2000, 200, 0.25, 0.005), (2000, 1800, 7.0, 0.05),
     (20_000, 200, 0.025, 0.0005)],
)  # fmt: skip
def test_effective_tolerances_of_the_course(ball, n, keep, course, rounding):
    def tolerance(key):
        return abc.rejection(
            key, ball.prior, ball.simulator, ball.x, num_simulations=n, keep=keep,
            distance=ball.metres,
        )[1].tolerance  # fmt: skip

    repeats = jax.vmap(tolerance)(jax.random.split(jax.random.key(0), 30))
    # The course ran it once, and so its number has the spread of a single run.
    assert abs(course - float(jnp.mean(repeats))) < 3 * float(jnp.std(repeats)) + rounding


def test_both_modes_have_half_the_draws(ball):
    keep = 1_000
    draws, info = abc.rejection(
        jax.random.key(1), ball.prior, ball.simulator, ball.x, num_simulations=100_000, keep=keep
    )
    share = float(jnp.mean(draws["angle"] < np.pi / 4))
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(keep)
    # A uniform kernel of half-width ε adds ε²/3 to the variance of the noise.
    reached = float(info.tolerance) * float(info.distance.scale[0])
    density = ball.posterior(np.sqrt(ball.noise**2 + reached**2 / 3))
    assert ball.kolmogorov(draws["angle"], density) < ball.critical / np.sqrt(keep)


def test_a_nuisance_is_integrated_over(ball):
    prior = jaxsbi.Prior(
        speed=dist.Normal(10.0, 0.2), angle=dist.Uniform(np.deg2rad(5.0), np.deg2rad(85.0))
    )

    def cannon(key, theta):
        reach = theta["speed"] ** 2 / 9.81 * jnp.sin(2.0 * theta["angle"])
        return reach + 0.5 * jax.random.normal(key)

    keep = 1_000
    draws, info = abc.rejection(
        jax.random.key(2), prior, cannon, jnp.array(9.0), num_simulations=100_000, keep=keep,
        distance=ball.metres,
    )  # fmt: skip
    grid = np.linspace(np.deg2rad(5.0), np.deg2rad(85.0), 2_001)
    speed = np.linspace(9.0, 11.0, 201)
    reach = speed[:, None] ** 2 / 9.81 * np.sin(2 * grid)
    variance = 0.5**2 + float(info.tolerance) ** 2 / 3
    joint = np.exp(-0.5 * (reach - 9.0) ** 2 / variance - 0.5 * ((speed[:, None] - 10) / 0.2) ** 2)
    density = joint.sum(0) / np.trapezoid(joint.sum(0), grid)
    far = ball.kolmogorov(draws["angle"], density, grid=grid)
    assert far < ball.critical / np.sqrt(keep)


@vmapped
def test_the_curse_of_dimensionality(ball):
    """The more pure noise is compared, the less the draws know."""

    def error(padding):
        def simulator(key, theta):
            key_noise, key_throw = jax.random.split(key)
            noise = 2.0 * jax.random.normal(key_noise, (padding,))
            return jnp.append(noise, ball.simulator(key_throw, theta))

        def far(key):
            draws = abc.rejection(
                key, ball.prior, simulator, jnp.append(jnp.zeros(padding), ball.x),
                num_simulations=20_000, keep=200, distance=ball.metres,
            )[0]  # fmt: skip
            return draws["angle"]

        draws = jax.vmap(far)(jax.random.split(jax.random.key(3), 8))
        return np.array([ball.kolmogorov(angle, ball.posterior()) for angle in draws])

    errors = [error(padding) for padding in (1, 5, 20)]
    for less, more in itertools.pairwise(errors):
        spread = np.sqrt((less.var(ddof=1) + more.var(ddof=1)) / less.size)
        assert more.mean() - less.mean() > 3 * spread


def test_simulations_are_those_of_simulate_and_no_other_nearer():
    draws, info = rejection(distance=abc.Euclidean())
    simulations = jaxsbi.simulate(jax.random.key(0), NORMAL, normal, 1_000, progress=False)
    far = np.sqrt(np.sum((np.asarray(simulations.x) - np.asarray(OBSERVED)) ** 2, 1))
    nearest = np.argsort(far, kind="stable")[:50]
    np.testing.assert_array_equal(draws["mean"], simulations.theta["mean"][nearest])
    np.testing.assert_allclose(info.x, simulations.x[nearest], rtol=1e-6)
    np.testing.assert_allclose(info.distances, far[nearest], rtol=1e-5)
    assert float(info.tolerance) == float(info.distances[-1])
    assert float(info.kept_fraction) == pytest.approx(0.05)
    assert (int(info.num_simulations), int(info.num_nonfinite)) == (1_000, 0)


@pytest.mark.parametrize("how", [{"keep": 50}, {"keep": None, "epsilon": 0.4}])
def test_chunks_change_nothing(how):
    options = {"num_simulations": 2_500, **how}
    expected, info = rejection(**options)
    for size in (2_500, 999, 100):
        draws, other = rejection(**options, chunk_size=size)
        np.testing.assert_array_equal(draws["mean"], expected["mean"])
        np.testing.assert_allclose(other.distances, info.distances, rtol=1e-5)


def test_ties_go_to_the_earlier_simulation():
    def coarse(key, theta):
        return jnp.round(normal(key, theta)).astype(jnp.int32)

    x = jnp.array([1, 0])
    all_draws = [
        abc.rejection(jax.random.key(0), NORMAL, coarse, x, **FEW, chunk_size=size)[0]["mean"]
        for size in (1_000, 70)
    ]
    np.testing.assert_array_equal(*all_draws)


def test_a_tolerance_keeps_what_keep_does_within_it():
    expected, info = rejection()
    draws, other = rejection(keep=None, epsilon=float(info.tolerance))
    np.testing.assert_array_equal(draws["mean"], expected["mean"])
    np.testing.assert_allclose(other.distance.scale, info.distance.scale)
    assert float(other.kept_fraction) == pytest.approx(0.05)
    assert float(other.isolation) == pytest.approx(float(info.isolation), rel=1e-5)


def test_nothing_is_traced_again():
    rejection()
    before = _keep._cache_size()
    for seed, x in enumerate((jnp.zeros(2), np.ones(2), np.ones(2, np.float32))):
        rejection(seed, x)
    wider = jaxsbi.Prior(mean=dist.Normal(0.1, 1.5))
    abc.rejection(jax.random.key(1), wider, normal, OBSERVED, **FEW)
    assert _keep._cache_size() == before


def test_another_scale_is_no_new_program():
    rejection(distance=abc.Euclidean(scale=jnp.ones(2)))
    before = _keep._cache_size()
    rejection(distance=abc.Euclidean(scale=jnp.array([1.0, 3.0])))
    assert _keep._cache_size() == before


@vmapped
def test_vmap_over_observations_and_keys():
    xs = jnp.stack([OBSERVED, OBSERVED + 0.3])
    keys = jax.random.split(jax.random.key(5), 2)
    many, info = jax.vmap(lambda k, x: abc.rejection(k, NORMAL, normal, x, **FEW))(keys, xs)
    for i in range(2):
        one, _ = abc.rejection(keys[i], NORMAL, normal, xs[i], **FEW)
        np.testing.assert_allclose(many["mean"][i], one["mean"], rtol=1e-5)
    assert info.distances.shape == (2, 50)


def test_failed_simulations_are_counted_and_never_kept():
    with pytest.warns(UserWarning, match="of 1000 simulations are not finite"):
        draws, info = abc.rejection(
            jax.random.key(0), NORMAL, fails_above_one, jnp.full(2, 1.2), **FEW
        )
    theta = jaxsbi.simulate(jax.random.key(0), NORMAL, normal, 1_000, progress=False).theta
    assert int(info.num_nonfinite) == int(jnp.sum(theta["mean"] > 1.0))
    assert float(jnp.max(draws["mean"])) <= 1.0
    assert bool(jnp.all(jnp.isfinite(info.x)))
    with pytest.warns(UserWarning, match="not finite"):
        within = abc.rejection(
            jax.random.key(0), NORMAL, fails_above_one, jnp.full(2, 1.2),
            num_simulations=1_000, epsilon=float(info.tolerance),
        )[1]  # fmt: skip
    assert int(within.num_nonfinite) == int(info.num_nonfinite)


def test_an_observation_out_of_reach_warns_with_its_distance():
    with pytest.warns(UserWarning, match=r"outside what was simulated.*distance \d"):
        _, info = rejection(x=jnp.array([20.0, 20.0]))
    assert float(info.isolation) > 2.0


def test_a_tolerance_that_reaches_an_observation_out_of_reach_warns():
    with pytest.warns(UserWarning, match=r"outside what was simulated.*distance \d"):
        _, info = rejection(x=jnp.array([20.0, 20.0]), keep=None, epsilon=18.0)
    assert float(info.isolation) > 2.0
    assert 20 < info.distances.size < 900


@pytest.mark.parametrize("how", [{"keep": 1_000}, {"keep": 960}, {"keep": None, "epsilon": 100.0}])
def test_keeping_nearly_everything_warns(how):
    with pytest.warns(UserWarning, match=r"of 1000 finite simulations are kept.*the prior's"):
        rejection(**how)


def test_the_share_kept_is_of_the_finite_simulations():
    theta = jaxsbi.simulate(jax.random.key(0), NORMAL, normal, 1_000, progress=False).theta
    finite = int(jnp.sum(theta["mean"] <= 1.0))
    with (
        pytest.warns(UserWarning, match="simulations are not finite"),
        pytest.warns(UserWarning, match=f"{finite} of {finite} finite simulations are kept"),
    ):
        abc.rejection(
            jax.random.key(0), NORMAL, fails_above_one, OBSERVED, num_simulations=1_000, keep=finite
        )


@vmapped
def test_observations_like_the_simulated_ones_do_not_warn():
    """Isolation is larger than 1 less often than once in 100; 200 observations, 3 deviations."""
    keys = jax.random.split(jax.random.key(6), 200)
    xs = jax.vmap(lambda key: normal(key, NORMAL.sample(jax.random.fold_in(key, 1))))(
        jax.random.split(jax.random.key(7), 200)
    )
    info = jax.vmap(lambda k, x: abc.rejection(k, NORMAL, normal, x, **FEW)[1])(keys, xs)
    assert int(jnp.sum(info.isolation > 1.0)) <= 2 + 3 * np.sqrt(2)


def test_draws_keep_the_order_of_the_prior():
    prior = jaxsbi.Prior(width=dist.LogNormal(0.0, 1.0), mean=dist.Normal(0.0, 1.0))

    def simulator(key, theta):
        return {"x": theta["mean"] + theta["width"] * jax.random.normal(key, (2,))}

    for how in ({"keep": 10}, {"epsilon": 3.0}):
        draws, info = abc.rejection(
            jax.random.key(0), prior, simulator, {"x": OBSERVED}, num_simulations=100, **how
        )
        assert list(draws) == ["width", "mean"]
        assert info.x["x"].shape == (*draws["mean"].shape, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": 1.0}, ValueError, "exactly one of keep"),
        ({"keep": None}, ValueError, "exactly one of keep"),
        ({"keep": 1_001}, ValueError, "at most num_simulations=1000, got 1001"),
        ({"keep": 0}, ValueError, "keep: expected a positive integer"),
        ({"keep": 2.0}, ValueError, "keep: expected a positive integer"),
        ({"num_simulations": 0}, ValueError, "num_simulations: expected a positive"),
        ({"chunk_size": 0}, ValueError, "chunk_size: expected a positive"),
        ({"keep": None, "epsilon": -1.0}, ValueError, "epsilon: expected a finite distance"),
        ({"keep": None, "epsilon": 1e-7}, ValueError, r"smallest distance is 0\.\d+.* Raise"),
        ({"keep": None, "epsilon": "a"}, ValueError, "epsilon: expected a finite distance.*'a'"),
        ({"keep": None, "epsilon": jnp.ones(1)}, ValueError, "epsilon: expected a finite distance"),
        ({"keep": None, "epsilon": [1.0]}, ValueError, "epsilon: expected a finite distance"),
        ({"keep": None, "epsilon": {}}, ValueError, "epsilon: expected a finite distance"),
        ({"keep": None, "epsilon": 1j}, ValueError, "epsilon: expected a finite distance"),
        ({"x": jnp.zeros(3)}, ValueError, r"expected shape \(2,\), got \(3,\)"),
        ({"x": {"x": OBSERVED}}, TypeError, "structure the simulator returned"),
        ({"x": jnp.array([0.0, jnp.nan])}, ValueError, "1 NaN or infinite"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        rejection(**options)


@vmapped
def test_a_traced_epsilon_is_refused():
    with pytest.raises(ValueError, match=r"epsilon: .*Under jit and vmap pass keep"):
        jax.jit(lambda epsilon: rejection(keep=None, epsilon=epsilon))(1.0)


@pytest.mark.parametrize("how", [{"keep": 50}, {"keep": None, "epsilon": 1.0}])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"distance": "euclidean"}, TypeError, "distance: expected a function.*'euclidean'"),
        ({"summary": jnp.ones(2)}, TypeError, "summary: expected a function"),
        ({"distance": lambda x, y: x - y}, ValueError, r"distance: expected one number.*\[2\]"),
        ({"distance": lambda x, y: (x[0], y[0])}, ValueError, "distance: expected one number"),
        ({"distance": lambda x, y: None}, ValueError, "distance: expected one number"),
        ({"distance": lambda x, y: 1j * x[0]}, TypeError, "distance: expected a real number"),
        ({"distance": lambda x, y: -jnp.linalg.norm(x - y)}, ValueError, "numbers >= 0.*got -"),
        ({"distance": lambda x, y: x[0] - y[0]}, ValueError, "numbers >= 0.*got -"),
    ],
)
def test_errors_of_distances(how, options, error, message):
    with pytest.raises(error, match=message):
        rejection(**how, **options)


def test_distances_may_be_counts_and_lie_below_zero_by_rounding():
    _, info = rejection(distance=lambda x, y: jnp.sum(jnp.abs(x - y) > 0.5))
    assert float(info.tolerance) in (0.0, 1.0)
    rejection(distance=lambda x, y: jnp.sum((x - y) ** 2) - 1e-6)


def test_legacy_keys_are_refused():
    with pytest.raises(TypeError, match="typed key"):
        abc.rejection(jax.random.PRNGKey(0), NORMAL, normal, OBSERVED, **FEW)


@pytest.mark.parametrize("how", [{"keep": 900}, {"epsilon": 1.0}])
def test_too_few_finite_simulations(how):
    def broken(key, theta):
        return normal(key, theta) * jnp.nan

    with pytest.raises(ValueError, match="finite"):
        abc.rejection(jax.random.key(0), NORMAL, broken, OBSERVED, num_simulations=1_000, **how)
