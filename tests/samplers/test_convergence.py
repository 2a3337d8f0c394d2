"""R-hat and effective sample sizes against ArviZ, and what they say of chains that are stuck."""

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi.samplers import ChainInfo, chain_statistics


def autoregressive(chains, draws, correlation, seed=0):
    """Return chains of a stationary AR(1) process, shape `(chains, draws)`."""
    noise = np.random.default_rng(seed).normal(size=(chains, draws + 200))
    noise *= np.sqrt(1 - correlation**2)
    out = np.zeros_like(noise)
    for i in range(1, draws + 200):
        out[:, i] = correlation * out[:, i - 1] + noise[:, i]
    return out[:, 200:]


# All of one shape, so that they are the dimensions of one array.
CASES = {
    "independent": autoregressive(4, 500, 0.0),
    "correlated": autoregressive(4, 500, 0.8),
    "strongly correlated": autoregressive(4, 500, 0.97),
    "anticorrelated": autoregressive(4, 500, -0.5),
    "one chain shifted": autoregressive(4, 500, 0.3) + np.array([[0.5], [0.0], [0.0], [0.0]]),
    "one chain wider": autoregressive(4, 500, 0.0) * np.array([[3.0], [1.0], [1.0], [1.0]]),
    "heavy tails": autoregressive(4, 500, 0.0) ** 5,
    "ties": np.round(autoregressive(4, 500, 0.2), 1),
    "far from zero": autoregressive(4, 500, 0.5) + 1_000.0,
    "stuck apart": autoregressive(4, 500, 0.0) + np.array([[-50.0], [50.0], [-50.0], [50.0]]),
}
SHAPES = {"odd length": (3, 301), "many short chains": (40, 20), "two chains": (2, 600)}

statistics = jax.jit(chain_statistics)


def as_arviz_says(chains, r_hat, bulk, tail, rel=0.02):
    assert float(r_hat) == pytest.approx(float(arviz.rhat(chains, method="rank")), rel=2e-3)
    # Rounding decides where a noisy autocorrelation ends, and which draw is a quantile; the last
    # pair of lags, which ArviZ counts by half, matters only where next to nothing is effective.
    assert float(bulk) == pytest.approx(float(arviz.ess(chains, method="bulk")), rel=rel, abs=1)
    assert float(tail) == pytest.approx(float(arviz.ess(chains, method="tail")), rel=3 * rel, abs=1)


@pytest.fixture(scope="module")
def together():
    return statistics(jnp.stack([jnp.asarray(chains) for chains in CASES.values()], -1))


@pytest.mark.parametrize("case", CASES)
def test_each_dimension_is_as_arviz_says(case, together):
    index = list(CASES).index(case)
    as_arviz_says(np.asarray(CASES[case], np.float32), *(a[index] for a in together))


@pytest.mark.parametrize(
    "shape", [pytest.param(s, id=n, marks=pytest.mark.slow) for n, s in SHAPES.items()]
)
def test_other_shapes_are_as_arviz_says(shape):
    chains = autoregressive(*shape, 0.4).astype(np.float32)
    found = (a[0] for a in statistics(jnp.asarray(chains)[..., None]))
    # Of 10 lags the last ones count, and ArviZ leaves them out.
    as_arviz_says(chains, *found, rel=0.1 if shape[1] == 20 else 0.02)


def test_stuck_and_constant_chains_do_not_pass(together):
    assert float(together[0][list(CASES).index("stuck apart")]) > 1.5
    frozen = np.broadcast_to(np.array([-50.0, 50.0, -50.0, 50.0])[:, None], (4, 500))
    r_hat = statistics(jnp.stack([jnp.asarray(frozen), jnp.ones((4, 500))], -1))[0]
    assert float(r_hat[0]) > 1.5
    assert float(r_hat[1]) == np.inf


def report(**options):
    info = {
        "r_hat": jnp.array([1.0, 1.01]),
        "ess_bulk": jnp.ones(2),
        "ess_tail": jnp.ones(2),
        "divergences": jnp.array(0),
        "acceptance": jnp.array(0.8),
        "log_density": jnp.zeros(100),
    }
    return ChainInfo(**(info | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r_hat": jnp.array([1.0, 1.3])}, r"R-hat is 1.300 .*chains disagree.*longer warm-up"),
        ({"r_hat": jnp.array([1.0, jnp.nan])}, "R-hat is nan"),
        ({"divergences": jnp.array(20)}, r"20 divergent transitions for 100 draws.*Raise"),
    ],
)
def test_bad_chains_are_warned_of(options, message):
    with pytest.warns(UserWarning, match=message):
        report(**options).warn()


def test_good_chains_are_not(recwarn):
    report().warn()
    assert not recwarn.list
