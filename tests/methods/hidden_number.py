"""x = theta + hidden + noise: scores and ratios are known, with hidden and without it."""

import jax
import numpyro.distributions as dist

import jaxsbi

WIDTH, HIDDEN, NOISE = 1.5, 0.3, 0.6
PRIOR = jaxsbi.Prior(theta=dist.Normal(0.0, WIDTH))
BOUNDED = jaxsbi.Prior(theta=dist.Uniform(-2.0, 2.0))
TOTAL = HIDDEN**2 + NOISE**2


def simulator(key, theta):
    key_hidden, key_noise = jax.random.split(key)
    hidden = HIDDEN * jax.random.normal(key_hidden)
    return (theta["theta"] + hidden + NOISE * jax.random.normal(key_noise))[None], hidden


def log_joint(theta, x, hidden):
    return -0.5 * ((x[0] - theta["theta"] - hidden) / NOISE) ** 2
