"""The C2ST: known accuracies, agreement with scikit-learn, laws of the training, bad input."""

import importlib
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.diagnostics.c2st import c2st, c2st_folds, c2st_standard, c2st_twin

# By its name: the package's attribute `c2st` is the function.
module = importlib.import_module("jaxsbi.diagnostics.c2st")


def normal(seed: int, n: int, d: int = 1, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(np.float32)


def bound(rows: int) -> float:
    """Return four standard errors of an accuracy near one half on so many rows."""
    return 4 * 0.5 / np.sqrt(rows)


def test_equal_distributions_give_one_half(key):
    assert abs(c2st(key, normal(1, 3000), normal(2, 3000)) - 0.5) < bound(6000)


@pytest.mark.parametrize(("shift", "total_variation"), [(0.5, 0.1974), (2.0, 0.6827)])
def test_shifted_gaussians_give_the_optimal_accuracy(key, shift, total_variation):
    # TV of N(0, 1) and N(δ, 1) is 2Φ(δ/2) − 1; the best classifier's accuracy is ½ + ½ TV.
    value = c2st(key, normal(1, 3000, shift=shift), normal(2, 3000))
    # 0.005 is left for how far a trained network may stay behind the optimum.
    assert abs(value - (0.5 + 0.5 * total_variation)) < bound(6000) + 0.005


def test_double_precision_changes_nothing():
    """The classifier computes in float32 whatever the draws are in."""
    sets = normal(1, 300, shift=0.5), normal(2, 300)
    with jax.enable_x64(True):
        doubles = c2st(jax.random.key(3), *(a.astype(np.float64) for a in sets))
    assert doubles == pytest.approx(c2st(jax.random.key(3), *sets), abs=1e-6)


def test_disjoint_sets_give_one(key):
    assert c2st(key, normal(1, 500, shift=50.0), normal(2, 500)) > 0.999


@pytest.mark.parametrize(
    ("n", "m", "d", "shift"),
    [(1000, 1000, 1, 1.0), (300, 213, 2, 1.0)],  # the second: folds of two sizes, cut batches
)
def test_the_twin_agrees_with_scikit_learn(n, m, d, shift):
    samples, reference = normal(1, n, d, shift), 3.0 * normal(2, m, d) - 7.0
    samples = 3.0 * samples - 7.0
    assert abs(c2st_twin(samples, reference) - c2st_standard(samples, reference)) <= 0.01


def test_each_fold_follows_scikit_learn():
    neural = pytest.importorskip("sklearn.neural_network")
    selection = pytest.importorskip("sklearn.model_selection")
    x, y = module.labelled(normal(1, 300, 1, 1.5), normal(2, 302))
    folds = c2st_folds(x[y == 1], x[y == 0], seed=3)
    x, y = module.labelled(x[y == 1], x[y == 0])
    classifier = neural.MLPClassifier((10, 10), max_iter=10_000, random_state=3)
    split = selection.KFold(5, shuffle=True, random_state=3)
    found = selection.cross_validate(classifier, x, y, cv=split, return_estimator=True)
    epochs = [one.n_iter_ for one in found["estimator"]]
    np.testing.assert_allclose(folds.accuracy, found["test_score"], atol=0.02)
    np.testing.assert_allclose(folds.epochs, epochs, rtol=0.2)


def test_first_epochs_equal_scikit_learn_to_rounding():
    neural = pytest.importorskip("sklearn.neural_network")
    x, y = module.labelled(normal(1, 250, 3, 1.0), normal(2, 250, 3))
    classifier = neural.MLPClassifier((30, 30), random_state=5)
    epoch = jax.jit(module._epoch)
    shuffles = module._Shuffles(x.shape, len(x), seed=5)
    state = module._init(jnp.asarray(shuffles.weights), jnp.asarray(0.0))
    for number, order in enumerate(next(iter(shuffles))[:3]):
        state = epoch(state, x, y, order)
        classifier.set_params(max_iter=number + 1)
        with pytest.warns(Warning, match="Maximum iterations"):
            classifier.fit(x, y)
        parts = [*classifier.coefs_, *classifier.intercepts_]
        expected = np.concatenate([part.ravel() for part in parts])
        np.testing.assert_allclose(state.weights, expected, atol=2e-5)
        np.testing.assert_allclose(state.best, min(classifier.loss_curve_), rtol=1e-5)


def test_the_gradient_by_hand_is_the_gradient(key):
    k1, k2, k3 = jax.random.split(key, 3)
    size = sum(fan_in * fan_out + fan_out for fan_in, fan_out in module._sizes(3))
    weights = 0.4 * jax.random.normal(k1, (size,))
    x = jax.random.normal(k2, (50, 3))
    y = jax.random.bernoulli(k3, 0.5, (50,)).astype(jnp.float32)
    by_hand = jax.jit(module._loss_and_gradient)(weights, x, y)[1]
    # scikit-learn's penalty gradient is α·W/n, and so is that of its loss.
    expected = jax.jit(jax.grad(lambda w: module._loss_and_gradient(w, x, y)[0]))(weights)
    np.testing.assert_allclose(by_hand, expected, atol=1e-6)


def test_folds_together_train_like_folds_apart(monkeypatch):
    samples, reference = normal(1, 300, 2, 1.0), normal(2, 300, 2)
    apart = c2st_folds(samples, reference)
    monkeypatch.setattr(module, "_programs", lambda folds: [folds])
    together = c2st_folds(samples, reference)
    np.testing.assert_allclose(apart.accuracy, together.accuracy, atol=0.03)
    np.testing.assert_allclose(apart.epochs, together.epochs, rtol=0.2)
    assert len(set(together.epochs)) > 1  # a fold that stopped waits for the others, unchanged


def test_new_draws_do_not_retrace(key, monkeypatch):
    chex.clear_trace_counter()
    inner = chex.assert_max_traces(module._epoch, n=1)
    monkeypatch.setattr(module, "_epoch", inner)
    module._advance.clear_cache()
    for seed, one in enumerate(jax.random.split(key, 3)):
        c2st(one, normal(seed, 203, 1, 2.0), normal(seed + 10, 202))
    module._advance.clear_cache()


def test_the_same_key_gives_the_same_value():
    samples, reference = normal(1, 300, 2, 0.5), normal(2, 300, 2)
    values = [c2st(jax.random.key(seed), samples, reference) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_a_constant_column_is_harmless():
    samples, reference = normal(1, 300, 2, 3.0), normal(2, 300, 2)
    reference[:, 1] = samples[:, 1] = 4.0
    assert c2st_twin(samples, reference) > 0.9
    samples[:, 1] = 40.0  # nothing else could tell these apart so surely
    assert c2st_twin(samples, reference) == 1.0


def test_the_scale_of_the_draws_does_not_matter():
    samples, reference = normal(1, 300, 2, 1.0), normal(2, 300, 2)
    values = [c2st_twin(s * samples + m, s * reference + m) for s, m in ((1, 0), (1024, 4096))]
    assert abs(values[0] - values[1]) < 0.03


@pytest.mark.parametrize("function", [c2st_twin, c2st_standard])
@pytest.mark.parametrize(
    ("samples", "reference", "message"),
    [
        (np.zeros(10), np.zeros((10, 1)), r"samples: expected a matrix .*\(10,\)"),
        (np.zeros((10, 1)), np.zeros((10, 0)), r"reference: expected a matrix"),
        (np.zeros((10, 1)), np.zeros((10, 2)), "expected equal dimensions, got 1 and 2"),
        (np.zeros((4, 1)), np.zeros((10, 1)), "samples: expected at least 5 draws, got 4"),
        (np.zeros((9, 1)), np.zeros((0, 1)), "reference: expected at least 5 draws, got 0"),
        (np.full((10, 1), np.nan), np.zeros((10, 1)), "samples: 10 of 10 draws hold NaN"),
        (np.zeros((10, 1)), np.full((10, 1), np.inf), "reference: 10 of 10 draws hold NaN"),
    ],
)
def test_bad_draws_are_refused(function, samples, reference, message):
    with pytest.raises(ValueError, match=message):
        function(samples, reference)


def test_bad_keys_are_refused():
    draws = normal(1, 10)
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        c2st(jax.random.PRNGKey(0), draws, draws)
    with pytest.raises(TypeError, match="one key"):
        c2st(jax.random.split(jax.random.key(0)), draws, draws)


def test_missing_scikit_learn_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(ImportError, match=r"jaxsbi\[bench\]"):
        c2st_standard(normal(1, 10), normal(2, 10))
