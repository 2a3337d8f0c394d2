"""Distances of samples: exact values, p-values under the null, power, blind spots, bad input."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsbi import diagnostics
from jaxsbi.diagnostics import classifiers, energy_distance, marginal_jsd, mmd, sliced_wasserstein

TESTS = {"mmd": mmd, "energy": energy_distance, "sliced": sliced_wasserstein}


def normals(seed, n, dim=2, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(n, dim))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TESTS, "jsd"])
def test_p_values_are_uniform_under_the_null(name):
    found = []
    for seed in range(100):
        key, sets = jax.random.key(seed), (normals(2 * seed, 60), normals(2 * seed + 1, 80))
        if name == "jsd":
            found.append(marginal_jsd(key, *sets, permutations=99).p_value[0])
        else:
            found.append(TESTS[name](key, *sets, permutations=99).p_value)
    # The smallest p-value is 1 / 100: spread over its step it is uniform.
    found = np.array(found) - np.random.default_rng(0).uniform(0, 0.01, len(found))
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", TESTS)
def test_shifts_and_widths_are_seen(name, key):
    keys = iter(jax.random.split(key, 3))
    test = TESTS[name]
    for options in ({"shift": 0.2}, {"scale": 1.2}):
        found = test(next(keys), normals(0, 2_000, **options), normals(1, 2_000))
        assert found.p_value < 0.01
        assert found.statistic > found.null.max()
        assert found.verdict.startswith("FAILS")
    same = test(next(keys), normals(2, 500), normals(3, 700))
    assert same.verdict.startswith("passes")


def test_exact_values(key):
    keys = iter(jax.random.split(key, 3))
    a, b = normals(0, 10_000, 1, shift=1.0), normals(1, 10_000, 1)
    # The distance between shifted equal laws is the shift, in deviations of the reference.
    found = sliced_wasserstein(next(keys), a, b, permutations=19)
    assert abs(found.statistic - 1.0) < 4 * math.sqrt(2.0 / 10_000)
    # 2 E|N(1, 2)| - 2 E|N(0, 2)|, from 2,000 draws of each.
    shifted = stats.foldnorm(1 / math.sqrt(2), scale=math.sqrt(2)).mean()
    folded = 2 * shifted - 4 / math.sqrt(math.pi)
    found = energy_distance(next(keys), a, b, permutations=19)
    assert abs(found.statistic - folded) < 4 * 2 * folded * math.sqrt(2.0 / 2_000)


def test_energy_and_mmd_are_the_sums_they_stand_for(key):
    keys = iter(jax.random.split(key, 3))
    a, b = np.asarray(normals(0, 30, shift=0.5)), np.asarray(normals(1, 40))
    scale = b.std(0, ddof=1)
    a, b = (a - b.mean(0)) / scale, (b - b.mean(0)) / scale

    def mean(x, y, f):
        d = np.linalg.norm(x[:, None] - y[None], axis=2)
        same = x is y
        return f(d)[~np.eye(len(x), dtype=bool)].mean() if same else f(d).mean()

    every = np.concatenate([b, a])
    width = np.median(np.linalg.norm(every[:, None] - every[None], axis=2))
    for test, f, sign in (
        (energy_distance, lambda d: d, -1.0),
        (mmd, lambda d: np.exp(-0.5 * (d / width) ** 2), 1.0),
    ):
        expected = sign * (mean(a, a, f) + mean(b, b, f) - 2 * mean(a, b, f))
        found = test(next(keys), a, b, permutations=19).statistic
        # The draws are scaled once more, by factors that rounding leaves beside 1.
        assert found == pytest.approx(expected, abs=2e-4)


def test_marginals(key):
    keys = iter(jax.random.split(key, 3))
    p = normals(0, 10_000, 2)
    q = normals(1, 10_000, 2) + np.array([[0.5, 0.0]])
    found = marginal_jsd(next(keys), q, p)
    # The divergence of N(0.5, 1) from N(0, 1) is 0.0303; bins lose a few per cent of it.
    assert abs(found.jsd[0] - 0.0303) < 0.003
    assert abs(found.jsd[1]) < 4 * found.error[1]
    assert found.p_value[0] < 0.01 < found.p_value[1]
    # Equal marginals with another correlation are what it cannot see; the others can.
    tilted = p @ np.array([[1.0, 0.6], [0.0, 0.8]])
    blind = marginal_jsd(next(keys), tilted, normals(1, 10_000, 2))
    assert np.all(blind.p_value > 0.01)
    assert energy_distance(next(keys), tilted, normals(1, 10_000, 2)).p_value < 0.01


@pytest.mark.parametrize("test", [mmd, marginal_jsd])
def test_bad_input(test):
    good = jnp.ones((10, 2)) * jnp.arange(10.0)[:, None]
    with pytest.raises(ValueError, match="equal dimensions"):
        test(jax.random.key(1), good, good[:, :1])
    with pytest.raises(ValueError, match="NaN or infinite"):
        test(jax.random.key(2), good.at[3, 0].set(jnp.nan), good)
    with pytest.raises(ValueError, match="at least 19"):
        test(jax.random.key(3), good, good, permutations=3)
    with pytest.raises(TypeError, match="typed key"):
        test(jax.random.PRNGKey(0), good, good)


def normal(mean, std):
    return lambda z: jax.scipy.stats.norm.logpdf(z, mean, std)


def mixture(z):
    return jnp.logaddexp(
        math.log(0.95) + jax.scipy.stats.norm.logpdf(z),
        math.log(0.05) + jax.scipy.stats.norm.logpdf(z, 3.0, 0.5),
    )


TABLE = {  # of q from N(0, 1): KL(p‖q), KL(q‖p), JS, TV, known in closed form or by quadrature
    "shifted": (normal(0.5, 1.0), (0.125, 0.125, 0.0303, 0.197)),
    "wide": (normal(0.0, 1.4), (0.0916, 0.1435, 0.0260, 0.161)),
    "contaminated": (mixture, (0.0335, 0.0758, 0.0106, 0.048)),
}


def quadrature(log_p, log_q):
    """Return the four divergences of the table on a grid, in float64."""
    z = np.linspace(-12, 12, 100_001)
    p, q = (np.exp(np.asarray(jax.vmap(f)(jnp.asarray(z)), float)) for f in (log_p, log_q))
    step, m = z[1] - z[0], 0.5 * (p + q)
    kl = [np.sum(a * np.log(a / b)) * step for a, b in ((p, q), (q, p), (p, m), (q, m))]
    return kl[0], kl[1], 0.5 * (kl[2] + kl[3]), 0.5 * np.sum(np.abs(p - q)) * step


@pytest.mark.parametrize("name", TABLE)
def test_divergences(name, key, x64):
    log_q, rounded = TABLE[name]
    n = 100_000
    draws_p, other, third = (jax.random.normal(k, (n,)) for k in jax.random.split(key, 3))
    draws_q = {
        "shifted": 0.5 + other,
        "wide": 1.4 * other,
        "contaminated": jnp.where(jnp.arange(n) < 0.05 * n, 3.0 + 0.5 * other, third),
    }[name]
    found = diagnostics.divergences(normal(0.0, 1.0), log_q, draws_p, draws_q)
    exact = quadrature(normal(0.0, 1.0), log_q)
    four = (found.kl, found.reverse_kl, found.js, found.total_variation)
    for estimate, value, known in zip(four, exact, rounded, strict=True):
        assert abs(value - known) < 6e-4
        assert abs(estimate.value - value) < 4 * estimate.error
        assert estimate.error < 0.01
    assert 0.0 < found.hellinger.value < found.total_variation.value


def test_divergences_of_what_does_not_belong_together(key):
    draws = jax.random.normal(key, (100,))

    def half(z):
        return jnp.where(z > 0, 0.0, -jnp.inf)

    with pytest.raises(ValueError, match=r"draws_p: .* of 100 draws have no density"):
        diagnostics.divergences(half, normal(0.0, 1.0), draws, draws)
    found = diagnostics.divergences(normal(0.0, 1.0), half, draws, jnp.abs(draws))
    assert found.kl.value == math.inf
    with pytest.raises(ValueError, match="at least 2 draws"):
        diagnostics.divergences(half, half, draws[:1], draws)


def test_a_classifier_sees_what_marginals_hide_and_its_divergence_is_the_exact_one(key):
    keys = iter(jax.random.split(key, 3))
    a, b = normals(0, 4_000), normals(1, 4_000)
    a[:, 1] = 0.8 * a[:, 0] + 0.6 * a[:, 1]
    found = diagnostics.classifier_test(next(keys), a, b, permutations=99)
    assert found.accuracy.p_value == found.js.p_value == 0.01
    assert found.accuracy.verdict.startswith("FAILS: C2ST")

    def log_q(x):
        return stats.multivariate_normal.logpdf(x, [0, 0], np.eye(2))

    def log_p(x):
        return stats.multivariate_normal.logpdf(x, [0, 0], [[1, 0.8], [0.8, 1]])

    ratio_a, ratio_b = log_p(a) - log_q(a), log_q(b) - log_p(b)
    exact = np.log(2) - 0.5 * np.mean(np.logaddexp(0, -ratio_a) + np.logaddexp(0, -ratio_b))
    best = 0.5 * (np.mean(ratio_a > 0) + np.mean(ratio_b > 0))
    # Scatter over 2,000 test pairs: 0.008 of the accuracy, about 0.01 of the divergence.
    assert found.accuracy.statistic == pytest.approx(best, abs=4 * 0.008)
    assert found.js.statistic == pytest.approx(exact, abs=4 * 0.01)
    same = diagnostics.classifier_test(next(keys), normals(2, 500), normals(3, 700))
    assert same.accuracy.p_value > 0.01
    assert same.js.verdict.startswith("passes")
    with pytest.raises(ValueError, match="at least 20 draws of each set, got 10"):
        diagnostics.classifier_test(next(keys), a[:10], b[:10])


def test_exchanged_labels_make_the_classifiers_p_value_exact(monkeypatch):
    # However short the training; a number of draws of its own, since the length of training is
    # read when the program is traced.
    monkeypatch.setattr(classifiers, "STEPS", 40)
    found = []
    for seed in range(100):
        sets = (normals(2 * seed, 62), normals(2 * seed + 1, 62))
        test = diagnostics.classifier_test(jax.random.key(seed), *sets, permutations=19)
        found.append(test.js.p_value)
    spread = np.array(found) - np.random.default_rng(0).uniform(0, 0.05, 100)
    assert stats.kstest(spread, "uniform").pvalue > 0.01
