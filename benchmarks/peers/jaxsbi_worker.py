"""Run in a fresh process: train and sample with jaxsbi, compilation counted, no warm cache."""

from __future__ import annotations

import argparse
import json
import resource
import time


def main() -> None:
    """Train one method on stored simulations, draw, and store draws and timings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxsbi

    task = jaxsbi.tasks.get(arguments.task)
    data = np.load(arguments.data)
    theta = jax.vmap(task.unflatten)(jnp.asarray(data["theta"]))
    x = jnp.asarray(data["x"])
    simulations = jaxsbi.Simulations(theta, x, jnp.ones(len(x)))
    method = getattr(jaxsbi, arguments.method)()
    key = jax.random.key(0)
    begin = time.perf_counter()
    fitted = jaxsbi.fit(key, method, task.prior, simulations, progress=False)
    jax.block_until_ready(fitted.posterior)
    train = time.perf_counter() - begin
    sampling, samples = [], []
    for row in data["observations"]:
        begin = time.perf_counter()
        draws = fitted.posterior.sample(jax.random.key(1), jnp.asarray(row), arguments.draws)
        jax.block_until_ready(draws)
        sampling.append(time.perf_counter() - begin)
        samples.append(np.asarray(jax.vmap(task.flatten)(draws)))
    np.savez_compressed(arguments.out, draws=np.stack(samples).astype(np.float32))
    result = {
        "library": "jaxsbi",
        "version": jaxsbi.__version__,
        "jax": jax.__version__,
        "train_seconds": train,
        "compile_seconds": fitted.history.compile_seconds,
        "epochs": fitted.history.epochs,
        "sample_seconds": sampling,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
