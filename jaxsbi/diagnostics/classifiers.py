"""Many small classifiers between two sets of rows, trained side by side in one program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsbi.base import Array, Key
from jaxsbi.networks import MLP

NETWORK = MLP(32, 32, out=1)
BATCH, STEPS = 128, 500
_RATE, _DECAY = 3e-3, 1e-2


def logit(params: Any, row: Array) -> Array:
    """Return the log-odds (a scalar) that one row `(d,)` belongs to the first set."""
    return NETWORK.apply(params, row)[0]


def train(key_start: Key, key_order: Key, first: Array, second: Array, sign: Array) -> Any:
    """Return a classifier's parameters; pure, to be put under `jax.vmap`.

    The length of training is fixed: a stopping rule would be one more thing that differs between
    a classifier and those it is compared with.

    Args:
        key_start: For the initial weights.
        key_order: For the batches; share it, and rows are gathered once for all classifiers.
        first: Rows of label 1, shape `(n, d)`.
        second: Their partners, of label 0, shape `(n, d)`.
        sign: Shape `(n,)`; -1 where a pair's labels are exchanged, else 1.
    """
    n = len(first)
    params = NETWORK.init(key_start, first[0])
    optimizer = optax.adamw(optax.cosine_decay_schedule(_RATE, STEPS), weight_decay=_DECAY)

    def loss(params: Any, rows: tuple[Array, Array], sign: Array) -> Array:
        score = jax.vmap(jax.vmap(logit, (None, 0)), (None, 0))(params, jnp.stack(rows))
        return jnp.mean(jax.nn.softplus(-sign * score[0]) + jax.nn.softplus(sign * score[1]))

    def step(carry: tuple[Any, Any], key: Key) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        index = jax.random.randint(key, (min(BATCH, n),), 0, n)
        gradient = jax.grad(loss)(params, (first[index], second[index]), sign[index])
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    return jax.lax.scan(step, start, jax.random.split(key_order, STEPS))[0][0]
