"""The tasks' protocol: names, shapes, flattening, purity and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi import tasks

SHAPES = {
    "two_moons": (2, 2),
    "slcp": (5, 4, 2),
    "slcp_distractors": (5, 100),
    "gaussian_linear": (10, 10),
    "gaussian_linear_uniform": (10, 10),
    "gaussian_mixture": (2, 2),
    "bernoulli_glm": (10, 10),
    "bernoulli_glm_raw": (10, 100),
    "sir": (2, 10),
    "lotka_volterra": (4, 20),
}


def test_names_are_the_ten_standard_tasks():
    assert tasks.names() == tasks.NAMES == tuple(SHAPES)


def test_unknown_task_lists_the_known():
    with pytest.raises(ValueError, match=r"expected one of two_moons, .*; got 'two_moon'"):
        tasks.get("two_moon")


@pytest.mark.parametrize("name", tasks.NAMES)
def test_simulator_and_likelihood_under_jit_and_vmap(name, key):
    task = tasks.get(name)

    def draw(key):
        key_theta, key_x = jax.random.split(key)
        theta = task.prior.sample(key_theta)
        x = task.simulator(key_x, theta)
        return theta, x, task.log_likelihood(theta, x)

    theta, x, log_likelihood = jax.jit(jax.vmap(draw))(jax.random.split(key, 500))
    d, *shape = SHAPES[name]
    assert (task.name, task.dim, task.x_shape, len(task.labels)) == (name, d, tuple(shape), d)
    assert x.shape == (500, *shape)
    assert x.dtype == jnp.float32
    assert jnp.isfinite(x).all()
    assert log_likelihood.shape == (500,)
    assert jnp.isfinite(log_likelihood).all()

    if name == "sir":
        assert (x == jnp.round(x)).all()
        assert x.min() >= 0
        assert x.max() <= 1000

    flat = jax.vmap(task.flatten)(theta)
    assert flat.shape == (500, d)
    again = jax.vmap(task.unflatten)(flat)
    # Dicts that cross jit or vmap come back sorted; the order is the prior's all the same.
    assert list(task.unflatten(flat[0])) == list(task.prior.names)
    for parameter, values in theta.items():
        np.testing.assert_array_equal(again[parameter], values)


@pytest.mark.parametrize("name", tasks.NAMES)
def test_same_key_same_draw_and_one_trace_per_task(name, key):
    """A task asked for twice is the same to `jit`: the functions are not made anew."""
    first, second = tasks.get(name), tasks.get(name)
    assert first.simulator is second.simulator
    assert first.log_likelihood is second.log_likelihood
    assert jax.tree.structure(first.prior) == jax.tree.structure(second.prior)


def test_flatten_refuses_other_names_shapes_and_batches():
    task = tasks.get("sir")
    with pytest.raises(ValueError, match=r"theta: sir expected .*beta.* got \{'beta': \(\)\}"):
        task.flatten({"beta": jnp.float32(0.4)})
    with pytest.raises(ValueError, match=r"jax\.vmap\(task\.flatten\)"):
        task.flatten({"beta": jnp.ones(3), "gamma": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got \(3, 2\).*jax\.vmap"):
        task.unflatten(jnp.ones((3, 2)))


def test_flatten_follows_the_declared_order_not_the_dict():
    task = tasks.get("bernoulli_glm")
    theta = {"filter": jnp.arange(9.0), "offset": jnp.float32(-1.0)}
    np.testing.assert_array_equal(task.flatten(theta), np.arange(-1.0, 9.0))
    assert task.labels[:2] == ("offset", "filter_1")
