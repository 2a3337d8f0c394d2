"""Densities trained on problems with exact answers, and their float32 digits afterwards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsbi import densities

OPTIONS = {"mixing": "linear", "residual": True}
FLOWS = {
    "MaskedAutoregressive": densities.MaskedAutoregressive(layers=3, hidden=32),
    "SplineAutoregressive with options": densities.SplineAutoregressive(
        layers=2, hidden=32, **OPTIONS
    ),
    "SplineCoupling": densities.SplineCoupling(layers=4, hidden=32),
    "SplineCoupling with options": densities.SplineCoupling(layers=4, hidden=32, **OPTIONS),
}
# The negative log-likelihood's floor: log(2 pi e 0.4).
BANANA = 1.9216
flows = pytest.mark.parametrize("name", FLOWS)


def banana(key, n):
    """x ~ N(0, 1), y = x² / 2 - 1 + 0.4 ε, and a context that says nothing."""
    x, noise = jax.random.normal(key, (2, n))
    return jnp.stack([x, 0.5 * x**2 - 1.0 + 0.4 * noise], -1), jnp.zeros((n, 1))


def line(key, n):
    """Intercept and slope of a line, and 20 noisy points on it (the context)."""
    key_theta, key_noise = jax.random.split(key)
    theta = jax.random.uniform(key_theta, (n, 2), minval=-1.0) * jnp.asarray([[1.0, 2.0]])
    x = jnp.linspace(0.0, 1.0, 20)[None]
    noise = 0.25 * jax.random.normal(key_noise, (n, 20))
    return theta, theta[:, :1] + theta[:, 1:] * x + noise


@functools.cache
def trained(density, simulate, steps):
    """Return parameters trained on fresh simulations at every step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))

    def loss(params, key):
        score = functools.partial(density.apply, params, method="log_prob")
        return -jnp.mean(jax.vmap(score)(*simulate(key, 256)))

    def step(state, key):
        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params, key), moments)
        return (optax.apply_updates(params, updates), moments), None

    @jax.jit
    def train(key):
        key_init, key_run = jax.random.split(key)
        z, context = jax.tree.map(lambda a: a[0], simulate(jax.random.key(0), 1))
        params = density.init(key_init, z, context, method="log_prob")
        keys = jax.random.split(key_run, steps)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    return train(jax.random.key(1))


def scores(density, params, z, context):
    score = functools.partial(density.apply, params, method="log_prob")
    return np.asarray(jax.jit(jax.vmap(score))(z, context))


def banana_flow(name):
    density = FLOWS[name].clone(dim=2)
    return density, trained(density, banana, 1_500)


@pytest.mark.slow
@flows
def test_banana_reaches_its_floor(name):
    z, context = banana(jax.random.key(2), 20_000)
    density, params = banana_flow(name)
    loss = -scores(density, params, z, context)
    x, noise = z[:, 0], (z[:, 1] - 0.5 * z[:, 0] ** 2 + 1.0) / 0.4
    exact = 0.5 * (x**2 + noise**2) + np.log(2.0 * np.pi * 0.4)
    # The same draws for both: what is left is the divergence, and its own scatter.
    excess = loss - np.asarray(exact)
    error = 4.0 * np.std(excess) / np.sqrt(len(z))
    assert -error < np.mean(excess) < 0.02 + error
    assert np.mean(loss) == pytest.approx(BANANA, abs=0.02 + 4.0 / np.sqrt(len(z)))


def maps(density, params):
    """Return the flow's two maps, vmapped over points without context."""

    def call(name):
        def method(module, point):
            return getattr(getattr(module, "flow", module), name)(point, jnp.zeros(1, point.dtype))

        return jax.vmap(lambda point: density.apply(params, point, method=method))

    return call("to_noise"), call("from_noise")


def around_and_back(name, dtype):
    """Return noise out to 8 standard deviations, what a trained flow makes of it, and errors."""
    density, params = banana_flow(name)
    params = jax.tree.map(lambda a: a.astype(dtype), params)
    axis = jnp.linspace(-8.0, 8.0, 65, dtype=dtype)
    u = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)

    @jax.jit
    def both(u):
        to_noise, from_noise = maps(density, params)
        z, own = from_noise(u)
        back, log_det = to_noise(z)
        return z, own, back, log_det, *from_noise(back)

    z, own, back, log_det, again, _ = map(np.asarray, both(u))
    return density.layers, np.asarray(u), z, own, back, log_det, again


@pytest.mark.slow
@flows
def test_float32_round_trip_of_trained_flows_into_the_tails(name):
    layers, u, z, own, back, log_det, again = around_and_back(name, jnp.float32)
    assert z.dtype == back.dtype == np.float32
    # An error is judged beside the size of the number that has to be held.
    assert np.max(np.abs(back - u) / np.maximum(1.0, np.abs(u))) < 1e-3
    assert np.max(np.abs(again - z) / np.maximum(1.0, np.abs(z))) < 1e-3
    error = np.abs(own - log_det) / (1.0 + np.abs(log_det))
    bulk = np.abs(u).max(1) < 4.0
    assert np.max(error[bulk]) < 2e-4 * layers


@pytest.mark.slow
@flows
def test_float64_round_trip_of_trained_flows_is_exact(name, x64):
    _, u, z, own, back, log_det, again = around_and_back(name, jnp.float64)
    np.testing.assert_allclose(back, u, atol=1e-10, rtol=1e-10)
    np.testing.assert_allclose(again, z, atol=1e-10, rtol=1e-10)
    np.testing.assert_allclose(own, log_det, atol=1e-10, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MaskedAutoregressive", "SplineCoupling with options"])
def test_bfloat16_conditioners_learn_as_much(name):
    exact = FLOWS[name].clone(dim=2)
    rounded = exact.clone(dtype="bfloat16")
    params = trained(rounded, banana, 1_500)
    assert {a.dtype.name for a in jax.tree.leaves(params)} == {"float32"}
    z, context = banana(jax.random.key(2), 20_000)
    loss = -scores(rounded, params, z, context)
    assert loss.dtype == np.float32
    # One part in 256 is rounded, independently for each draw.
    difference = loss + scores(exact, params, z, context)
    assert 0.0 < np.std(difference) < 0.05
    assert np.mean(loss) == pytest.approx(BANANA, abs=0.03 + 4.0 / np.sqrt(len(z)))


@pytest.mark.slow
def test_line_fit_reaches_its_entropy():
    density = densities.Gaussian(dim=2)
    params = trained(density, line, 3_000)
    theta, context = line(jax.random.key(2), 100_000)
    # More than four standard deviations inside the prior, where nothing is cut off.
    inside = np.all(np.abs(np.asarray(theta)) < np.array([0.55, 1.2]), axis=1)
    loss = -scores(density, params, theta, context)[inside]
    # Its scatter is that of a chi-squared number of two degrees: one nat per draw.
    assert np.mean(loss) == pytest.approx(-1.738, abs=0.02 + 4.0 / np.sqrt(inside.sum()))
