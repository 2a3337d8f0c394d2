"""Sequential methods on the standard tasks: C2ST after rounds for one observation each.

    python -m benchmarks.sequential --tasks slcp,sir --budgets 1000,10000 --out results.json

One record per task, scheme, budget and observation; a run that is stopped goes on where it was.
The published best sequential method of each task and budget stands beside the means.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from benchmarks import configs, metrics, plan, records
from benchmarks.environment import environment, use_compilation_cache
from benchmarks.run import key_for

ROUNDS = 10
SCHEMES = {
    "truncated npe": ("npe", jaxsbi.sequential.truncated),
    "sequential nle": ("nle", jaxsbi.sequential.likelihood),
    "sequential nre": ("nre", jaxsbi.sequential.likelihood),
}
IDENTITY = ("task", "scheme", "budget", "observation", "seed")


def main() -> None:
    """Make the records that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=plan.words, default=configs.task_names())
    parser.add_argument("--schemes", type=plan.words, default=tuple(SCHEMES)[:2])
    parser.add_argument("--budgets", type=plan.numbers, default=(1_000,))
    parser.add_argument("--observations", type=plan.numbers, default=(1,))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmark_output/sequential.json"))
    options = parser.parse_args()
    plan.known("task", options.tasks, configs.task_names())
    plan.known("scheme", options.schemes, tuple(SCHEMES))
    use_compilation_cache(True)
    found = json.loads(options.out.read_text()) if options.out.is_file() else []
    done = {tuple(record[name] for name in IDENTITY) for record in found}
    for budget in options.budgets:
        for task in options.tasks:
            for scheme in options.schemes:
                for observation in options.observations:
                    cell = (task, scheme, budget, observation, options.seed)
                    if cell in done:
                        continue
                    found.append(score(cell, options.rounds))
                    text = json.dumps(records.plain(found), indent=1) + "\n"
                    records.write_atomically(options.out, text.encode())
                    print(json.dumps({k: found[-1][k] for k in (*IDENTITY, "c2st", "seconds")}))
            jax.clear_caches()
    print(table(found))


def score(cell: tuple[str, str, int, int, int], rounds: int) -> dict[str, Any]:
    """Run the rounds of one cell and compare 10,000 draws with the reference."""
    name, scheme, budget, observation, seed = cell
    method, function = SCHEMES[scheme]
    task, reference = jaxsbi.tasks.get(name), jaxsbi.tasks.reference(name, observation)
    x = jnp.asarray(reference.x, task.x_dtype)
    key = key_for(seed, "sequential", name, scheme, str(observation))
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = function(
            key,
            configs.METHODS[method].method(task),
            task.prior,
            task.simulator,
            x,
            num_rounds=rounds,
            simulations_per_round=budget // rounds,
            progress=False,
        )
        theta = result.posterior.sample(jax.random.fold_in(key, 10**6), x, configs.DRAWS)
    seconds = time.perf_counter() - begin
    draws = np.asarray(jax.vmap(task.flatten)(theta))
    return {
        **dict(zip(IDENTITY, cell, strict=True)),
        **metrics.score(draws, reference.posterior_samples, "jax", configs.DRAWS),
        "rounds": rounds,
        "seconds": round(seconds, 1),
        "prior_mass": [r.prior_mass for r in result.rounds],
        "kept": [r.kept for r in result.rounds],
        "warnings": sorted({str(w.message) for w in caught if w.category is UserWarning}),
        **environment(),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Return mean C2ST ± its standard error, per task, budget and scheme."""
    lines = [f"{'task':24} {'budget':>7}  {'scheme':15} {'n':>2}  C2ST"]
    keys = dict.fromkeys((r["task"], r["budget"], r["scheme"]) for r in found)
    for task, budget, scheme in keys:
        values = np.array(
            [
                r["c2st"]
                for r in found
                if (r["task"], r["budget"], r["scheme"]) == (task, budget, scheme)
            ]
        )
        error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
        row = f"{task:24} {budget:>7,}  {scheme:15} {values.size:>2}"
        lines.append(f"{row}  {values.mean():.3f} ± {error:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
