"""What a method chooses by a look at the data is chosen by the prior's simulations, in all rounds.

x[1] is normal, of a width that grows with theta: of kurtosis 13 under the prior, and of 25 to 40
once most simulations gather where it is narrow.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import sequential
from jaxsbi.methods import scores
from jaxsbi.methods.scores import HEAVY_LAW

pytestmark = [pytest.mark.rank_promotion]  # NumPyro's kernel
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, 1.0))
X = jnp.array([-2.5, 0.0])
NLE = jaxsbi.nle(density=jaxsbi.densities.Gaussian(hidden=8))


def simulator(key, theta):
    scale = jnp.stack([jnp.array(0.8), jnp.exp(0.6 * theta["theta"])])
    return jnp.stack([theta["theta"], jnp.array(0.0)]) + scale * jax.random.normal(key, (2,))


def heavy(posterior):
    return np.asarray(posterior.variables["statistics"]["continuous"]["heavy"]).tolist()


@pytest.mark.parametrize("scheme", ["likelihood", "dynamic"])
def test_scores_are_chosen_by_the_first_round(scheme, monkeypatch):
    def by_tails(scores, x, z):
        """Choose by the kurtosis, which later rounds let grow."""
        return jnp.mean(x**4, 0) - HEAVY_LAW, 0.0

    monkeypatch.setattr(scores, "_gains", by_tails)
    part = "step" if scheme == "dynamic" else "round"
    sizes = {f"num_{part}s": 4, f"simulations_per_{part}": 1000}
    result = getattr(sequential, scheme)(
        jax.random.key(0), NLE, PRIOR, simulator, X, progress=False, **sizes
    )
    assert [heavy(each.posterior) for each in result.rounds] == [[False, False]] * 4
    assert all(each.posterior.method == NLE for each in result.rounds)
    # All rounds' numbers would choose otherwise.
    x = np.asarray(result.simulations.x)[:, 1]
    assert np.mean(((x - x.mean()) / x.std()) ** 4) > 1.3 * HEAVY_LAW
    alone = NLE.init(jax.random.key(0), PRIOR, result.simulations)
    assert np.asarray(alone["statistics"]["continuous"]["heavy"]).tolist() == [False, True]


@pytest.mark.parametrize("iid", [False, True])
def test_what_is_settled_is_kept(iid):
    key_init, *keys = jax.random.split(jax.random.key(1), 5)
    theta = {"theta": jax.random.normal(keys[0], (500,))}
    shape = (500, 4, 3) if iid else (500, 3)
    normal, wild = jax.random.normal(keys[1], shape), jax.random.t(keys[2], 2.0, shape)
    method = jaxsbi.nle(density=jaxsbi.densities.Gaussian(hidden=8), iid=iid)
    weight = jnp.ones(500).at[0].set(0.0)

    def of(x):
        return jaxsbi.Simulations(theta, x, weight)

    # A row of weight 0 does not count.
    first = normal.at[..., 0].set(jax.random.t(keys[3], 2.0, shape[:-1])).at[0].set(jnp.nan)
    settled = method.settled(PRIOR, of(first))
    assert np.asarray(settled.heavy).tolist() == [True, False, False]
    inner = jaxsbi.compression.frozen(method, lambda x: x).settled(PRIOR, of(first)).method
    assert np.asarray(inner.heavy).tolist() == [True, False, False]
    for x in (wild, normal):
        kept = settled.init(key_init, PRIOR, of(x))["statistics"]["continuous"]
        assert np.asarray(kept["heavy"]).tolist() == [True, False, False]
    kept = method.init(key_init, PRIOR, of(wild))["statistics"]["continuous"]
    assert np.asarray(kept["heavy"]).tolist() == [True] * 3
