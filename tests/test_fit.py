"""Training: reproducible, honest about validation, and never silent about what went wrong.

Most tests train a line of two numbers, for which compiling costs next to nothing.
"""

import dataclasses
import importlib
import os
import signal
import threading
import time
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxsbi
from jaxsbi import loop
from jaxsbi.base import configuration

fit_module = importlib.import_module("jaxsbi.fit")
BACKEND = "cpu" if jax.default_backend() == "cpu" else "accelerator"
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
ADAM = optax.adam(0.02)
# Every parameter rises by 0.01 a step: the loss falls, and then rises again.
RISING = optax.GradientTransformation(
    lambda params: (),
    lambda gradient, state, params=None: (jax.tree.map(lambda a: 0.01 + 0.0 * a, gradient), state),
)


@configuration
class Line:
    """Least squares of theta on x: the smallest method there is."""

    def init(self, key, prior, simulations):
        slope = -0.3 * jax.random.uniform(key)
        statistics = {"mean": jnp.mean(simulations.x), "rows": jnp.array(len(simulations))}
        return {"params": {"slope": slope}, "statistics": statistics}

    def loss(self, variables, prior, key, batch):
        centred = batch.x - variables["statistics"]["mean"]
        return (batch.theta["theta"] - variables["params"]["slope"] * centred) ** 2

    def sample(self, variables, prior, key, x, n):
        return jax.vmap(prior.sample)(jax.random.split(key, n)), ()

    def log_prob(self, variables, prior, theta, x):
        raise NotImplementedError("Line has no density.")


def make_simulations(n=200, seed=3):
    key_theta, key_x = jax.random.split(jax.random.key(seed))
    theta = jax.random.normal(key_theta, (n,))
    x = theta + 0.5 * jax.random.normal(key_x, (n,)) + 2.0
    return jaxsbi.Simulations({"theta": theta}, x, jnp.ones(n))


SIMULATIONS = make_simulations()


@configuration
class LineFromZero(Line):
    """The same for every key, but for the order of its batches, which `RISING` does not see."""

    def init(self, key, prior, simulations):
        return super().init(key, prior, simulations) | {"params": {"slope": jnp.zeros(())}}


def fit(simulations=SIMULATIONS, seed=1, method=None, prior=PRIOR, **options):
    options = {"optimizer": ADAM, "batch_size": 20, "max_epochs": 12, **options}
    method = Line() if method is None else method
    return jaxsbi.fit(jax.random.key(seed), method, prior, simulations, progress=False, **options)


def same(one, other):
    """Assert that two fits ended in the same numbers, bit by bit."""
    jax.tree.map(np.testing.assert_array_equal, one.posterior, other.posterior)
    for name in ("train_loss", "validation_loss", "best_epoch"):
        np.testing.assert_array_equal(getattr(one.history, name), getattr(other.history, name))
    assert one.history.stopped == other.history.stopped


@pytest.fixture(scope="module")
def plain():
    return fit()


def test_it_learns(plain):
    # The least-squares slope of theta on x is 1 / 1.25; its error is 0.45 / sqrt(180 * 1.25).
    assert float(plain.posterior.variables["params"]["slope"]) == pytest.approx(0.8, abs=0.12)
    assert plain.history.train_loss[-1] < plain.history.train_loss[0]


def test_history_tells_what_happened(plain):
    history = plain.history
    assert history.epochs == 12
    assert history.stopped == "max_epochs"
    assert history.num_simulations == (180, 20)
    assert history.num_invalid == 0
    assert history.train_loss.shape == history.validation_loss.shape == (12,)
    assert history.compile_seconds > 0
    assert history.run_seconds > 0


def test_a_key_is_a_reproducible_source(plain):
    same(fit(), plain)
    assert np.all(fit(seed=2).history.train_loss != plain.history.train_loss)


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
def test_chunks_do_not_change_the_result(plain, seconds, monkeypatch):
    calls = []
    initial, chunk = loop.PROGRAMS[BACKEND]
    counted = (initial, lambda *a: calls.append(1) or chunk(*a))
    monkeypatch.setitem(loop.PROGRAMS, BACKEND, counted)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", seconds)
    same(fit(), plain)
    # One call compiles. The host waits for every epoch, or for hardly any.
    assert len(calls) == 13 if seconds < 1 else len(calls) <= 4


def test_the_whole_validation_set_is_scored_and_the_best_variables_are_kept(plain):
    held_out = SIMULATIONS[180:]
    own = Line().loss(plain.posterior.variables, PRIOR, jax.random.key(0), held_out).mean()
    np.testing.assert_allclose(plain.history.best_loss, own, rtol=1e-5)
    assert np.argmin(plain.history.validation_loss) == plain.history.best_epoch - 1


def test_padding_of_validation_batches_changes_nothing(plain, monkeypatch):
    monkeypatch.setattr(fit_module, "MAX_EVALUATION_BATCH", 7)
    again = fit()
    np.testing.assert_allclose(
        again.history.validation_loss, plain.history.validation_loss, rtol=1e-5
    )


def test_statistics_come_from_the_training_part(plain):
    other = dataclasses.replace(SIMULATIONS, x=SIMULATIONS.x.at[180:].add(1e3))
    for fitted in (plain, fit(other)):
        statistics = fitted.posterior.variables["statistics"]
        assert statistics["rows"] == 180
        np.testing.assert_allclose(statistics["mean"], SIMULATIONS.x[:180].mean(), rtol=1e-5)


def test_patience_stops_and_the_best_is_not_the_last():
    fitted = fit(optimizer=RISING, max_epochs=200, patience=8)
    history = fitted.history
    assert history.stopped == "patience"
    assert history.epochs == history.best_epoch + 8 < 200
    assert history.validation_loss[-1] > history.best_loss
    own = Line().loss(fitted.posterior.variables, PRIOR, jax.random.key(0), SIMULATIONS[180:])
    np.testing.assert_allclose(own.mean(), history.best_loss, rtol=1e-5)


@pytest.mark.parametrize("ensemble", [None, 2])
def test_refit_takes_all_rows_for_as_many_epochs_as_were_best(ensemble):
    options = {"method": LineFromZero(), "optimizer": RISING, "max_epochs": 200, "patience": 8}
    fitted = fit(refit=True, ensemble=ensemble, **options)
    variables = fitted.posterior.variables
    assert np.all(variables["statistics"]["rows"] == 200)
    history = fitted.history
    assert history.num_simulations == (180, 20)
    np.testing.assert_array_equal(
        history.validation_loss, fit(**options, ensemble=ensemble).history.validation_loss
    )
    # The slope rises by 0.01 a step, ten steps an epoch; what is kept is its running average.
    slope = average = 0.0
    for step in range(10 * int(np.max(history.best_epoch))):
        share = max(1 / 41, 3 / (3 + 10 * (step // 10)))
        slope += 0.01
        average += share * (slope - average)
    np.testing.assert_allclose(variables["params"]["slope"], average, rtol=1e-4)


def test_growing_data_share_one_program_of_their_capacity():
    size = loop.PROGRAMS[BACKEND][1]._cache_size
    options = {"capacity": 400, "batch_size": 40}
    first = fit(**options)
    compiled = size()
    more = fit(make_simulations(300), **options)
    assert size() == compiled
    assert first.history.num_simulations == (180, 20)
    assert more.history.num_simulations == (270, 30)
    # Repeated, rows have the same mean; the validation set is what it was.
    held_out = SIMULATIONS[180:]
    own = Line().loss(first.posterior.variables, PRIOR, jax.random.key(0), held_out).mean()
    np.testing.assert_allclose(first.history.best_loss, own, rtol=1e-5)
    mean = first.posterior.variables["statistics"]["mean"]
    np.testing.assert_allclose(mean, SIMULATIONS.x[:180].mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="expected at least the 200 simulations"):
        fit(capacity=100)


@pytest.mark.parametrize("ensemble", [None, 2])
def test_training_goes_on_from_another(plain, ensemble):
    first = fit(ensemble=ensemble) if ensemble else plain
    again = {"initial": first.posterior, "ensemble": ensemble, "seed": 2}
    more = fit(make_simulations(300), **again)
    # Its data statistics, and its parameters before the first step.
    before, after = (fitted.posterior.variables for fitted in (first, more))
    jax.tree.map(np.testing.assert_array_equal, after["statistics"], before["statistics"])
    still = fit(optimizer=optax.sgd(0.0), max_epochs=1, **again).posterior.variables
    jax.tree.map(np.testing.assert_array_equal, still, before)
    # It starts where the first ended: nearer to the end than a new training.
    assert np.min(more.history.train_loss[..., 0]) < np.min(first.history.train_loss[..., 0])


def test_training_goes_on_from_the_same_method_and_prior_only(plain):
    with pytest.raises(ValueError, match="expected a posterior of LineFromZero"):
        fit(method=LineFromZero(), initial=plain.posterior)
    with pytest.raises(ValueError, match=r"expected a posterior of Ensemble.*size=3"):
        fit(initial=plain.posterior, ensemble=3)
    with pytest.raises(ValueError, match="under this prior"):
        fit(initial=plain.posterior, prior=jaxsbi.Prior(theta=dist.Normal(0.0, 2.0)))


def test_a_method_says_how_long_it_needs():
    @configuration
    class LongLine(Line):
        steps: ClassVar[int] = 500

    options = {"max_epochs": None, "patience": 1000}
    assert fit(method=LongLine(), **options).history.epochs == 500 * 20 // 180
    assert fit(**options).history.epochs == 200


@pytest.mark.parametrize(("rows", "held_out"), [(20, 5), (60, 15), (100, 20), (200, 20)])
def test_few_simulations_are_validated_by_more_of_them(rows, held_out):
    @configuration
    class Exact(Line):
        validation_rows: ClassVar[int] = 2

    few = SIMULATIONS[:rows]
    options = {"batch_size": None, "max_epochs": 1}
    assert fit(few, **options).history.num_simulations == (rows - held_out, held_out)
    tenth = (rows - rows // 10, rows // 10)
    assert fit(few, method=Exact(), **options).history.num_simulations == tenth
    assert fit(few, validation_fraction=0.1, **options).history.num_simulations == tenth


def test_members_of_an_ensemble_are_trained_and_stopped_apart():
    fitted = fit(optimizer=RISING, max_epochs=200, patience=8, ensemble=3)
    history = fitted.history
    slopes = fitted.posterior.variables["params"]["slope"]
    assert slopes.shape == history.best_epoch.shape == (3,)
    assert np.unique(slopes).size == 3
    assert history.validation_loss.shape == (3, history.epochs)
    ran = np.sum(np.isfinite(history.validation_loss), axis=1)
    assert np.unique(ran).size > 1
    np.testing.assert_array_equal(ran, history.best_epoch + 8)
    np.testing.assert_allclose(history.best_loss, np.nanmin(history.validation_loss, 1).mean())


def test_a_nan_loss_says_when_and_what_to_try():
    with pytest.raises(FloatingPointError, match=r"in epoch 1 \(of 12\).*smaller learning rate"):
        fit(optimizer=optax.sgd(1e30))


def test_a_members_nan_loss_names_the_member():
    with pytest.raises(FloatingPointError, match=r"member 0.*epoch 1 "):
        fit(optimizer=optax.sgd(1e30), ensemble=2)


def test_ctrl_c_returns_the_best_so_far():
    before = signal.getsignal(signal.SIGINT)

    def press():
        # Once the handler stands, training has begun.
        deadline = time.monotonic() + 60
        while signal.getsignal(signal.SIGINT) is before and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    fitted = fit(max_epochs=1_000_000, patience=1_000_000)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert fitted.history.stopped == "interrupted"
    assert fitted.history.epochs < 1_000_000
    assert np.isfinite(fitted.posterior.variables["params"]["slope"])


def test_invalid_rows_have_no_influence(plain):
    """The same fit as without these rows, whatever stands in them."""
    where = np.sort(np.random.default_rng(0).choice(230, 200, replace=False))
    padded = jaxsbi.Simulations(
        {"theta": jnp.full(230, jnp.inf).at[where].set(SIMULATIONS.theta["theta"])},
        jnp.full(230, jnp.nan).at[where].set(SIMULATIONS.x),
        jnp.zeros(230).at[where].set(1.0),
    )
    fitted = fit(padded)
    same(fitted, plain)
    assert fitted.history.num_invalid == 30
    assert fitted.history.num_simulations == (180, 20)


def test_it_trains_in_float64(x64):
    fitted = fit(jax.tree.map(lambda a: a.astype(float), make_simulations()))
    assert fitted.history.stopped == "max_epochs"


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_simulations(n):
    with pytest.raises(ValueError, match=rf"at least 4 finite ones.*got {n} .*Simulate more"):
        fit(SIMULATIONS[:n])


def test_only_invalid_simulations():
    with pytest.raises(ValueError, match=r"got 0 \(and 200 that are not finite\)"):
        fit(dataclasses.replace(SIMULATIONS, weight=jnp.zeros(200)))


@pytest.mark.parametrize("n", [4, 5, 11])
def test_very_few_simulations_are_enough_to_run(n):
    fitted = fit(SIMULATIONS[:n], batch_size=None, max_epochs=2)
    assert sum(fitted.history.num_simulations) == n


@pytest.mark.parametrize("batch_size", [0, 1, 181, 10_000])
def test_a_batch_larger_than_the_data(batch_size):
    message = rf"batch_size: expected between 2 and 180 .*got {batch_size}\. Use a smaller"
    with pytest.raises(ValueError, match=message):
        fit(batch_size=batch_size)


@pytest.mark.parametrize("optimizer", ["adam", 1e-3, optax.adam, {}])
def test_what_is_no_optimizer(optimizer):
    with pytest.raises(TypeError, match=r"optimizer: expected an Optax .*optax.adam\(1e-3\), got"):
        fit(optimizer=optimizer)


@pytest.mark.parametrize("method", [jaxsbi.npe, jaxsbi.methods.NPE, "npe", 3])
def test_what_is_no_method(method):
    message = r"method: expected a configured method such as jaxsbi.npe\(\), got.*forget to call"
    with pytest.raises(TypeError, match=message):
        fit(method=method)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"validation_fraction": 0.0}, r"validation_fraction: expected between 0 and 1, got 0.0"),
        ({"validation_fraction": 1.5}, r"validation_fraction: .*got 1.5"),
        ({"patience": 0}, r"patience.*expected at least 1, got patience=0"),
        ({"max_epochs": 0}, r"max_epochs.*expected at least 1, got .*max_epochs=0"),
        ({"ensemble": 0}, r"ensemble: expected a positive number of members, got 0"),
    ],
)
def test_options_out_of_range(option, message):
    with pytest.raises(ValueError, match=message):
        fit(**option)


@pytest.mark.parametrize(
    "prior",
    [
        jaxsbi.Prior(other=dist.Normal(0.0, 1.0)),
        jaxsbi.Prior(theta=dist.Normal(0.0, 1.0), more=dist.Normal(0.0, 1.0)),
        jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 1.0)),
    ],
)
def test_simulations_of_another_prior(prior):
    with pytest.raises(ValueError, match=r"simulations.theta: expected the prior's parameters"):
        fit(prior=prior)


def test_leaves_of_different_lengths():
    with pytest.raises(ValueError, match=r"simulations: expected the same number of rows"):
        fit(dataclasses.replace(SIMULATIONS, x=SIMULATIONS.x[:150]))


def test_a_legacy_key_is_refused():
    with pytest.raises(TypeError, match=r"jax.random.key\(seed\)"):
        jaxsbi.fit(jax.random.PRNGKey(0), Line(), PRIOR, SIMULATIONS)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_when_wanted(progress, capsys):
    options = {"optimizer": ADAM, "batch_size": 20, "max_epochs": 12, "progress": progress}
    jaxsbi.fit(jax.random.key(1), Line(), PRIOR, SIMULATIONS, **options)
    assert ("validation=" in capsys.readouterr().err) == progress


def test_no_member_has_the_key_of_another_purpose():
    key = jax.random.key(0)
    members = jax.random.key_data(jax.random.split(key, 1_000)).tolist()
    # Those of small numbers folded in are members' keys.
    for purpose in (fit_module.REFIT, fit_module.STREAM):
        assert jax.random.key_data(jax.random.fold_in(key, purpose)).tolist() not in members
