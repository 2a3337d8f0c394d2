"""Training on a stream: what `fit` would learn from endless simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxsbi
from jaxsbi import loop
from jaxsbi.latent import PriorError

PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
METHOD = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=16))
BACKEND = "cpu" if jax.default_backend() == "cpu" else "accelerator"


def signal(key, theta):
    del key
    return theta["theta"][None]


def noise(key, theta, x):
    del theta
    return x + 0.5 * jax.random.normal(key, x.shape)


def simulator(key, theta):
    return noise(key, theta, signal(key, theta))


def run(what=simulator, seed=0, method=METHOD, prior=PRIOR, **options):
    options = {"num_steps": 600, "batch_size": 64, "progress": False, **options}
    return jaxsbi.fit_online(jax.random.key(seed), method, prior, what, **options)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.posterior, other.posterior)
    np.testing.assert_array_equal(one.history.train_loss, other.history.train_loss)


@pytest.fixture(scope="module")
def plain():
    return run()


def gain(fitted):
    """Return mean log q(theta | x) - log p(theta | x) over fresh simulations; 0 is exact."""
    fresh = jaxsbi.simulate(jax.random.key(9), PRIOR, simulator, 4000, progress=False)
    learned = jax.vmap(fitted.posterior.log_prob)(fresh.theta, fresh.x)
    exact = jax.scipy.stats.norm.logpdf(fresh.theta["theta"], 0.8 * fresh.x[:, 0], 0.2**0.5)
    return float(jnp.mean(learned - exact))


def test_it_learns(plain):
    # 600 steps, of which the average is kept: a hundredth of a nat.
    assert -0.01 < gain(plain) < 1e-3
    assert plain.posterior.sample(jax.random.key(1), jnp.zeros(1), 10)["theta"].shape == (10,)


def test_the_history_counts_simulations_and_hundreds_of_steps(plain):
    history = plain.history
    assert history.num_simulations == (600 * 64, 2048)
    assert history.num_invalid == 0
    assert history.train_loss.shape == history.validation_loss.shape == (6,)
    assert history.best_epoch == 6  # the last
    assert history.stopped == "max_epochs"
    few = run(num_steps=7, optimizer=optax.sgd(0.0)).history
    assert (few.epochs, few.num_simulations[0]) == (1, 7 * 64)


def test_a_key_is_a_reproducible_source_however_long_chunks_are(plain, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    size = loop.PROGRAMS[BACKEND][1]._cache_size
    compiled = size()
    same(run(), plain)
    other = run(seed=1)
    assert size() == compiled  # nor does another key compile anything
    assert other.history.best_loss != plain.history.best_loss


def test_training_goes_on_and_members_differ(plain):
    more = run(initial=plain.posterior, num_steps=100, optimizer=optax.sgd(0.0))
    jax.tree.map(np.testing.assert_array_equal, more.posterior.variables, plain.posterior.variables)
    two = run(num_steps=100, ensemble=2)
    assert two.history.train_loss.shape == (2, 1)
    assert two.history.train_loss[0] != two.history.train_loss[1]


def test_signals_with_new_noise_are_worth_more_than_with_old():
    signals = jaxsbi.simulate(jax.random.key(3), PRIOR, signal, 80, progress=False)
    x = jax.vmap(noise)(jax.random.split(jax.random.key(4), 80), signals.theta, signals.x)
    old = jaxsbi.Simulations(signals.theta, x, signals.weight)
    fixed = jaxsbi.fit(jax.random.key(0), METHOD, PRIOR, old, progress=False)
    fresh = run(jaxsbi.Signals(signals, noise))
    assert fresh.history.num_simulations == (600 * 64, 2048)
    assert gain(fresh) > gain(fixed) + 0.005


def test_extrinsic_parameters_of_signals_are_drawn_anew():
    # Of 20 stored scales alone, the shift could not be learned: there would be 20 of them.
    prior = jaxsbi.Prior(scale=dist.Normal(0.0, 1.0), shift=dist.Normal(0.0, 1.0))

    def apply(key, theta, x):
        return jnp.stack([x[0], theta["shift"]]) + 0.5 * jax.random.normal(key, (2,))

    signals = jaxsbi.simulate(
        jax.random.key(3), prior, lambda key, t: t["scale"][None], 20, progress=False
    )
    what = jaxsbi.Signals(signals, apply, extrinsic=("shift",))
    posterior = run(what, prior=prior).posterior
    draws = posterior.sample(jax.random.key(1), jnp.array([0.0, 2.0]), 4000)["shift"]
    # Exact: mean 0.8 x, variance 0.2; as close as 600 steps come.
    assert abs(float(jnp.mean(draws)) - 1.6) < 0.05
    assert abs(float(jnp.std(draws)) - 0.2**0.5) < 0.03
    with pytest.raises(PriorError, match="expected names among"):
        run(jaxsbi.Signals(signals, apply, extrinsic=("time",)), prior=prior)


def test_what_is_not_finite_is_counted_and_left_out():
    def fails(key, theta):
        return jnp.where(theta["theta"] > 0.0, jnp.nan, simulator(key, theta))

    with pytest.warns(UserWarning, match="simulations are not finite"):
        fitted = run(fails, num_steps=200)
    used, invalid = fitted.history.num_simulations[0], fitted.history.num_invalid
    assert used + invalid == 200 * 64
    # Half of them, within four standard deviations.
    assert abs(invalid / (used + invalid) - 0.5) < 4 * 0.5 / (200 * 64) ** 0.5
    assert np.all(np.isfinite(fitted.history.train_loss))
    draws = fitted.posterior.sample(jax.random.key(1), jnp.array([-0.5]), 2000)["theta"]
    assert jnp.mean(draws > 0.1) < 0.05
    with pytest.raises(ValueError, match="NaN or infinity in all"):
        run(lambda key, theta: jnp.nan * simulator(key, theta))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_steps": 0}, ValueError, "expected at least 1 and 2, got 0 and 64"),
        ({"batch_size": 1}, ValueError, "expected at least 1 and 2, got 600 and 1"),
        ({"method": jaxsbi.npe}, TypeError, "Did you forget to call it"),
        ({"optimizer": "adam"}, TypeError, "Optax transformation"),
        ({"ensemble": 0}, ValueError, "positive number of members"),
        ({"what": lambda key, theta: "x"}, TypeError, "expected a pytree of arrays"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


def test_signals_of_another_prior():
    other = jaxsbi.Prior(phi=dist.Normal(0.0, 1.0))
    signals = jaxsbi.simulate(
        jax.random.key(3), other, lambda k, t: t["phi"][None], 80, progress=False
    )
    with pytest.raises(ValueError, match=r"expected the prior's parameters.*theta.*phi"):
        run(jaxsbi.Signals(signals, noise))
