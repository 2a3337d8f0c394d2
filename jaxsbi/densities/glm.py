"""Generalised linear models of many outputs on few inputs, solved before training starts.

With a linear start, the part of a problem that is a set of regressions is right to within the
simulations' own error; training adds the rest, and early stopping ends it where it has nothing to
add. On 100 spikes from 1,000 simulations a network alone ends 1.1 nats above the exact likelihood.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsbi.base import Array

MAX_INPUTS = 128
MAX_ROWS = 16_384
"""A regression on more rows gains little, and takes time that training uses better."""
RIDGE = 1.0
"""Prior precision of the slopes. Inputs are latent parameters, N(0, 1), or standardised numbers; on
100 spikes, 0.1, 1 and 3 differ by at most 0.13 nat at 1,000 simulations and 0.002 at 10,000."""
NEWTON_STEPS = 10
MAX_STEP = 4.0


def logistic_regression(k: Array, total: int, context: Array) -> dict[str, Array]:
    """Return log-odds linear in the context, by Newton's method on the penalised likelihood.

    Args:
        k: Successes out of `total` trials, shape `(n, d)`.
        total: Number of trials.
        context: Inputs, shape `(n, c)`.

    Returns:
        `{"offset": (d, 1), "slopes": (d, 1, c)}`; slopes of zero for more than `MAX_INPUTS` inputs.
    """
    k, context = k[:MAX_ROWS].astype(context.dtype), context[:MAX_ROWS]
    n, c = context.shape
    hits = jnp.sum(k, 0)
    # Half a trial on either side keeps what never happened finite.
    offset = jnp.log(hits + 0.5) - jnp.log(n * total - hits + 0.5)
    if c > MAX_INPUTS:
        return {"offset": offset[:, None], "slopes": jnp.zeros((offset.size, 1, c), offset.dtype)}
    inputs = jnp.concatenate([jnp.ones((n, 1), context.dtype), context], 1)
    # The offset's own prior is wide: log-odds of ±10 are nothing unusual.
    penalty = jnp.full(c + 1, RIDGE, offset.dtype).at[0].set(0.01 * RIDGE)

    def loss(k: Array, weights: Array) -> Array:
        eta = inputs @ weights
        fit = total * jax.nn.softplus(eta) - k * eta
        return jnp.sum(fit) + 0.5 * jnp.sum(penalty * weights**2)

    def one(each: tuple[Array, Array]) -> Array:
        k, offset = each
        start = jnp.zeros(c + 1, offset.dtype).at[0].set(offset)

        def newton(weights: Array, _: None) -> tuple[Array, None]:
            chance = jax.nn.sigmoid(inputs @ weights)
            gradient = inputs.T @ (total * chance - k) + penalty * weights
            curvature = inputs.T @ (inputs * (total * chance * (1.0 - chance))[:, None])
            step = jnp.linalg.solve(curvature + jnp.diag(penalty), gradient)
            size = jnp.linalg.norm(step)
            return weights - step * jnp.minimum(1.0, MAX_STEP / (size + 1e-12)), None

        found, _ = jax.lax.scan(newton, start, None, length=NEWTON_STEPS)
        # Newton's method has no guarantee; what is worse than no slopes is not used (nor NaN).
        return jnp.where(loss(k, found) <= loss(k, start), found, start)

    # One output after another: all at once would not fit into the caches.
    weights = jax.lax.map(one, (k.T, offset))
    return {"offset": weights[:, :1], "slopes": weights[:, None, 1:]}


def least_squares(y: Array, context: Array) -> tuple[Array, Array, Array]:
    """Return offsets `(d,)`, slopes `(d, c)` and residual scales `(d,)` of `y` `(n, d)`."""
    mean, scale = jnp.mean(y, 0), jnp.std(y, axis=0)
    n, c = context.shape
    if c > MAX_INPUTS:
        return mean, jnp.zeros((mean.size, c), y.dtype), scale
    centre = jnp.mean(context, 0)
    inputs, outputs = context - centre[None], y - mean[None]
    moment = inputs.T @ inputs + RIDGE * jnp.eye(c, dtype=y.dtype)
    slopes = jnp.linalg.solve(moment, inputs.T @ outputs)
    residual = jnp.sqrt(jnp.sum((outputs - inputs @ slopes) ** 2, 0) / n)
    return mean - centre @ slopes, slopes.T, residual
