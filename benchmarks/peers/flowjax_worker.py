"""Run by flowjax's own Python: train, draw and evaluate its spline coupling flow on request.

Imports nothing of jaxsbi. Reads one job per line from standard input and answers each with one
line of JSON, so that the caller can take turns with it; see `benchmarks/flow_speed.py`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow


def programs(arguments: argparse.Namespace) -> dict[str, tuple[Callable[..., Any], tuple]]:
    """Return the three jobs as functions with their arguments."""
    data = np.load(arguments.data)
    z, context = jnp.asarray(data["z"]), jnp.asarray(data["context"])
    dim = z.shape[-1]
    flow = coupling_flow(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(dim)),
        transformer=RationalQuadraticSpline(knots=arguments.knots, interval=4),
        cond_dim=context.shape[-1],
        flow_layers=arguments.layers,
        nn_width=arguments.hidden,
        nn_depth=2,
    )
    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    optimizer = optax.adam(5e-4)

    def whole(params: Any) -> Any:
        return paramax.unwrap(eqx.combine(params, static))

    def loss(params: Any, z: Any, context: Any) -> Any:
        return -whole(params).log_prob(z, context).mean()

    def step(state: Any, batch: Any) -> Any:
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    def train(state: Any, z: Any, context: Any) -> Any:
        return jax.lax.scan(step, state, (z, context))[1]

    def draw(params: Any, key: Any, context: Any) -> Any:
        return whole(params).sample(key, (arguments.points,), condition=context)

    def log_prob(params: Any, z: Any, context: Any) -> Any:
        return whole(params).log_prob(z, context)

    points = jnp.reshape(z, (-1, dim))[: arguments.points]
    return {
        "train": (train, ((params, optimizer.init(params)), z, context)),
        "draw": (draw, (params, jax.random.key(1), context[0, 0])),
        "log_prob": (log_prob, (params, points, context[0, 0])),
    }


def main() -> None:
    """Answer the jobs of standard input: `compile NAME` or `run NAME`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    for name in ("layers", "hidden", "knots", "points"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    jobs, compiled = programs(arguments), {}
    packages = ("flowjax", "jax", "jaxlib", "equinox")
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"library": "flowjax", "versions": versions}), flush=True)
    for line in sys.stdin:
        verb, name = line.split()
        function, inputs = jobs[name]
        begin, cpu = time.perf_counter(), time.process_time()
        if verb == "compile":
            compiled[name] = jax.jit(function).lower(*inputs).compile()
        else:
            jax.block_until_ready(compiled[name](*inputs))
        seconds = {"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
