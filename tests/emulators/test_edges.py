"""An emulator at the ends of a box, where latent parameters run to infinity."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

PRIOR = jaxsbi.Prior(a=dist.Uniform(0.0, 1.0), b=dist.LogUniform(1.0, 4.0))
AXIS = jnp.linspace(0.0, 1.0, 20)


def exact(theta):
    return jnp.exp(-2.0 * theta["a"] * AXIS) * jnp.cos(theta["b"] * AXIS + theta["a"])


@pytest.fixture(scope="module")
def fitted():
    runs = jaxsbi.simulate(
        jax.random.key(0), PRIOR, lambda _, theta: exact(theta), 300, progress=False
    )
    return jaxsbi.fit(
        jax.random.key(1), jaxsbi.emulator(exact=True), PRIOR, runs, max_epochs=1_500,
        progress=False,
    )  # fmt: skip


def test_the_edges_are_nearly_as_good_as_the_middle(fitted):
    b = jnp.linspace(1.2, 3.8, 20)

    def error(a):
        theta = {"a": jnp.full(b.size, a), "b": b}
        found = jax.vmap(lambda theta: jaxsbi.emulate(fitted, theta))(theta)
        return float(jnp.max(jnp.abs(found - jax.vmap(exact)(theta))))

    middle = error(0.5)
    # Here 9 times the middle's error; with latent parameters as they are it is 270 times.
    assert max(error(0.0), error(1.0)) < 20 * middle


def test_the_slope_is_that_of_the_model_up_to_the_edge(fitted):
    def total(emulated, a):
        return jnp.sum(emulated({"a": a, "b": jnp.asarray(2.0)}))

    a = jnp.array([1e-5, 1e-3, 0.5, 0.999, 0.99999])
    found, wanted = (
        jax.vmap(jax.grad(lambda a, f=f: total(f, a)))(a)
        for f in (lambda theta: jaxsbi.emulate(fitted, theta), exact)
    )
    np.testing.assert_allclose(found, wanted, atol=0.1 * np.max(np.abs(wanted)))
