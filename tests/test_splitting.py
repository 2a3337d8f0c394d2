"""What `fit` looks at before it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxsbi import Prior, Simulations
from jaxsbi.splitting import check_theta, in_order, split

PRIOR = Prior(h=dist.Uniform(0.6, 0.8), mean=dist.Normal(jnp.zeros(2), 1.0).to_event(1))


def simulations(h, weight=None):
    n = len(h)
    theta = {"h": jnp.asarray(h), "mean": jnp.zeros((n, 2))}
    return Simulations(theta, jnp.zeros((n, 3)), jnp.ones(n) if weight is None else weight)


def test_draws_of_the_prior_pass_in_silence():
    theta = jax.vmap(PRIOR.sample)(jax.random.split(jax.random.key(0), 3_000))
    check_theta(Simulations(theta, jnp.zeros((3_000, 3)), jnp.ones(3_000)), PRIOR)


def test_other_units_are_refused():
    with pytest.raises(ValueError, match=r"only outside of its support.*in their units"):
        check_theta(simulations(jnp.linspace(60.0, 80.0, 50)), PRIOR)


def test_some_outside_are_told():
    h = jnp.where(jnp.arange(4_000) % 4 == 0, 0.9, 0.7)
    with pytest.warns(UserWarning, match=r"about 0\.2\d* of them outside"):
        check_theta(simulations(h), PRIOR)


def test_failed_runs_may_have_any_parameters():
    h = jnp.where(jnp.arange(50) < 10, jnp.nan, 0.7)
    check_theta(simulations(h, (jnp.arange(50) >= 10).astype(float)), PRIOR)


def test_runs_in_the_order_of_a_grid_validate_everywhere():
    h = jnp.linspace(0.61, 0.79, 400)
    rows, cut = split(simulations(h), 0.1, PRIOR)
    assert (len(rows), cut) == (400, 360)
    assert sorted(rows.theta["h"].tolist()) == h.tolist()
    held_out = rows.theta["h"][cut:]
    # Forty uniform numbers: the mean within four standard errors, and a wide spread.
    assert abs(float(held_out.mean()) - 0.7) < 4 * 0.18 / (12 * 40) ** 0.5
    assert float(held_out.max() - held_out.min()) > 0.14


@pytest.mark.parametrize("n", [4, 10, 100, 5_000])
def test_independent_draws_stay_in_their_order(n):
    theta = jax.vmap(PRIOR.sample)(jax.random.split(jax.random.key(0), n))
    rows = Simulations(theta, jnp.zeros((n, 3)), jnp.ones(n))
    assert split(rows, 0.25, PRIOR)[0] is rows


@pytest.mark.parametrize("which", ["sorted", "grid", "a part last"])
def test_what_counts_as_order(which):
    h = jax.random.uniform(jax.random.key(1), (1_000,), minval=0.6, maxval=0.8)
    rows = {
        "sorted": jnp.sort(h),
        "grid": jnp.tile(jnp.linspace(0.6, 0.8, 20), 50),
        "a part last": jnp.concatenate([h[h < 0.75], h[h >= 0.75]]),
    }[which]
    assert in_order(simulations(rows), np.arange(1_000))
