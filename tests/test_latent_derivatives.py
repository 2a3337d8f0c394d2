"""The latent map: derivatives in a distribution's parameters, and the tails of the normal."""

import copy
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special

from jaxsbi.base import ONCE_OPTIONS
from jaxsbi.latent.special import log_ndtr, ndtri_exp
from jaxsbi.priors import Prior


@pytest.mark.parametrize(
    ("make", "params", "bits"),
    [
        (dist.Gamma, (2.0, 1.5), 64),
        (dist.Gamma, (0.4, 1.5), 32),
        (dist.Beta, (2.0, 3.0), 64),
        (dist.Beta, (0.3, 1.0), 64),
        (dist.Beta, (80.0, 3.0), 64),
        (dist.Beta, (2.0, 3.0), 32),
        (dist.StudentT, (3.0, 0.5, 2.0), 64),
        (dist.StudentT, (1.0, 0.5, 2.0), 64),
        (dist.StudentT, (60.0, 0.5, 2.0), 64),
        (dist.StudentT, (3.0, 0.5, 2.0), 32),
    ],
)
def test_derivative_in_the_parameters(make: Any, params: Any, bits: int) -> None:
    # A conditional prior needs dθ/d(parameters): against finite differences in float64.
    zs = np.asarray([-4.0, -0.7, 0.0, 1.2, 4.0])

    def draws(params: Any) -> Any:
        return parameter_draws(prior, params, jnp.asarray(zs, jnp.result_type(float)))

    with jax.enable_x64(True):
        prior = Prior(x=make(*params))
        units = np.eye(len(params)) * 1e-5 * np.asarray(params)
        finite = [(draws(params + u) - draws(params - u)) / (2 * u.sum()) for u in units]
    with jax.enable_x64(bits == 64):
        prior = Prior(x=make(*params))
        exact = jax.jacfwd(draws)(jnp.asarray(params, jnp.result_type(float)))
    rtol, atol = (1e-5, 1e-8) if bits == 64 else (5e-3, 1e-6)
    np.testing.assert_allclose(exact.T, np.stack(finite), rtol=rtol, atol=atol)


@functools.partial(jax.jit, compiler_options=ONCE_OPTIONS)
def parameter_draws(prior: Prior, params: Any, zs: Any) -> Any:
    """θ at each z for the parameters given."""
    rebuilt = with_distribution(prior, type(prior.distributions[0])(*params))
    return jax.vmap(lambda z: rebuilt.from_latent(z[None])["x"])(zs)


def with_distribution(prior: Prior, d: Any) -> Prior:
    """The prior's routes, which were chosen from numbers, with another's traced parameters."""
    rebuilt = copy.copy(prior)
    object.__setattr__(rebuilt, "distributions", (d,))
    return rebuilt


@pytest.mark.usefixtures("x64")
def test_truncation_bounds_have_derivatives() -> None:
    @functools.partial(jax.jit, compiler_options=ONCE_OPTIONS)
    def at(bounds: Any) -> Any:
        d = dist.TruncatedNormal(0.3, 1.2, low=bounds[0], high=bounds[1])
        rebuilt = with_distribution(prior, d)
        return jax.vmap(lambda z: rebuilt.from_latent(z[None])["x"])(jnp.asarray([-2.0, 0.0, 2.0]))

    prior = Prior(x=dist.TruncatedNormal(0.3, 1.2, low=-1.0, high=2.0))
    bounds = jnp.asarray([-1.0, 2.0])
    exact = jax.jacfwd(at)(bounds)
    for i, unit in enumerate(np.eye(2)):
        finite = (at(bounds + 1e-5 * unit) - at(bounds - 1e-5 * unit)) / 2e-5
        np.testing.assert_allclose(exact[:, i], finite, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("enabled", [False, True])
def test_normal_tails(enabled: bool) -> None:
    z = np.concatenate([np.linspace(-100.0, 12.0, 400), [-10.0, 0.0, -25.0]])
    with jax.enable_x64(enabled):
        rtol = 1e-12 if enabled else 2e-5
        ours = np.asarray(log_ndtr(jnp.asarray(z)), np.float64)
        np.testing.assert_allclose(ours, scipy.special.log_ndtr(z), rtol=rtol, atol=1e-38)
        lower = jnp.asarray(z[z <= 0])
        np.testing.assert_allclose(ndtri_exp(log_ndtr(lower)), lower, rtol=rtol, atol=1e-6)
