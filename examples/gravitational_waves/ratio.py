"""GW150914 by neural ratio estimation: marginals, and learned ratios as importance weights.

Run `python -m examples.gravitational_waves.ratio FOLDER` after `evaluate FOLDER`, with whose exact
posterior and network it compares. One ratio is learned for all six parameters, and marginal ratios
on the summary of the data that it has found. Sources: Delaunoy et al. 2020, arXiv:2010.12931
(ratios for gravitational waves); Miller et al. 2021, arXiv:2107.01214 (marginal ratios).
"""

from __future__ import annotations

import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsbi
from benchmarks.environment import write
from examples.gravitational_waves import dingo, evaluate, problem
from jaxsbi.base import Data, Key, Posterior, Simulator, Theta
from jaxsbi.networks import ResNet

STEPS = 6_000
NAMES = ("chirp_mass", "mass_ratio", "distance")
Group = tuple[str, ...]
GROUPS: tuple[Group, ...] = (*((name,) for name in NAMES), *combinations(NAMES, 2))
ROWS = 131_072
"""Simulations whose summaries the marginal ratios are learned from."""
DRAWS = 10_000


def method(contrasts: int = 32) -> jaxsbi.methods.NRE:
    """Return the classifier of all parameters, which reads the data as the network of `dingo` does.

    The posterior fills so little of the prior that few contrasts are anywhere near it.
    """
    return jaxsbi.nre(
        summary=dingo.method().summary, classifier=ResNet(hidden=64), contrasts=contrasts
    )


def marginals(
    key: Key, posterior: Posterior, event: problem.Event, rows: int = ROWS, **options: Any
) -> dict[Group, Posterior]:
    """Learn the ratios of one and of two parameters, the others integrated out.

    A summary that tells all parameters tells each of them, and stays as it is. Ratios weigh draws
    of the prior: no Markov chain is needed.
    """
    key_rows, key_fit = jax.random.split(key)
    prior = problem.prior()
    simulations = jaxsbi.simulate(key_rows, prior, event.simulate, rows, progress=False)
    road = jaxsbi.compression.frozen(
        jaxsbi.nre(sampler=jaxsbi.samplers.sir(candidates=8192, multiple=20)),
        jaxsbi.compression.summary(posterior),
    )
    fitted = jaxsbi.marginals(key_fit, road, prior, simulations, GROUPS, progress=False, **options)
    return {group: each.posterior for group, each in fitted.items()}


def simulator(event: problem.Event, group: Group) -> Simulator:
    """Return the simulator of some parameters, which draws the others itself."""
    prior = problem.prior()
    others = prior.marginal(*(name for name in prior.names if name not in group))

    def simulate(key: Key, theta: Theta) -> Data:
        key_others, key_data = jax.random.split(key)
        return event.simulate(key_data, theta | others.sample(key_others))

    return simulate


def compare(key: Key, posterior: Posterior, x: Data, exact: Theta) -> dict[str, Any]:
    """Compare weighted prior draws of a marginal ratio with the exact posterior."""
    key_draws, key_jsd, key_joint = jax.random.split(key, 3)
    names = posterior.prior.names
    draws, info = posterior.sample_with_info(key_draws, x, DRAWS)
    pair = [jnp.stack([jnp.float32(d[name][:DRAWS]) for name in names], 1) for d in (draws, exact)]
    jsd = jaxsbi.diagnostics.marginal_jsd(key_jsd, *pair)
    found = {
        "jsd": dict(zip(names, np.round(jsd.jsd, 5).tolist(), strict=True)),
        "efficiency": float(info.acceptance),
        # The exact ratio's mean over the prior is 1.
        "log_normalization": float(info.log_evidence),
        "log_normalization_error": float(info.log_evidence_error),
    }
    if len(names) > 1:  # as far as a classifier sees it
        joint = jaxsbi.diagnostics.classifier_test(key_joint, *pair)
        found["joint_jsd"] = float(joint.js.value)
    return found


def calibrated(
    key: Key, posterior: Posterior, event: problem.Event, group: Group, num_datasets: int
) -> dict[str, Any]:
    """Return coverage of highest-density regions and p-values on simulated events."""
    report = jaxsbi.diagnostics.calibration(
        key, posterior, posterior.prior, simulator(event, group), num_datasets=num_datasets
    )
    coverage = report["density"].coverage(np.array([0.5, 0.9]))[0]
    tests = {name: np.round(ranks.p_value, 4).tolist() for name, ranks in report.tests.items()}
    return {
        "coverage_50": float(coverage[0]),
        "coverage_90": float(coverage[1]),
        "p_values": tests,
        "passed": report.passed,
    }


def reused(
    key: Key, network: Posterior, ratio: Posterior, event: problem.Event, x: Data, exact: Theta
) -> dict[str, Any]:
    """Weigh the network's draws by the learned ratio, and by the exact likelihood."""
    keys = jax.random.split(key, 5)
    prior = problem.prior()
    learned = jaxsbi.importance(keys[0], network, ratio, prior, x, evaluate.DRAWS)
    right, _ = evaluate.weigh(keys[0], network, event, x)
    # The same draws: what the ratio's logarithm is wrong by, but for a constant, where it counts.
    error = np.asarray(learned.log_weights - right.log_weights)
    share = np.asarray(jax.nn.softmax(right.log_weights))
    scatter = np.sqrt(np.sum(share * (error - np.sum(share * error)) ** 2))
    both = {"learned": learned, "exact": right}
    return {
        name: evaluate.summary(weighted)
        | {"jsd": evaluate.distances(k, weighted.resample(keys[3], 20_000), exact)}
        for (name, weighted), k in zip(both.items(), keys[1:3], strict=True)
    } | {
        "unweighted": {"jsd": evaluate.distances(keys[4], learned.draws, exact)},
        "scatter_of_log_ratio": float(scatter),
    }


def study(
    key: Key, full: Posterior, event: problem.Event, x: Data, exact: Theta, num_datasets: int = 300
) -> dict[str, Any]:
    """Learn all marginal ratios, and compare each with the exact posterior and its own claims."""
    key_fit, key_compare, key_test = jax.random.split(key, 3)
    start = time.perf_counter(), time.process_time()
    learned = marginals(key_fit, full, event)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    found: dict[str, Any] = {"rows": ROWS, "seconds": wall, "cpu_seconds": cpu}
    for number, (group, posterior) in enumerate(learned.items()):
        key_group, key_ranks = (jax.random.fold_in(k, number) for k in (key_compare, key_test))
        found[" & ".join(group)] = compare(key_group, posterior, x, exact) | {
            "calibration": calibrated(key_ranks, posterior, event, group, num_datasets)
        }
    return found


def main(folder: Path) -> None:
    """Train what was not trained, compare, and write the numbers down."""
    event, x, network = dingo.trained(folder)
    keys = jax.random.split(jax.random.key(2), 3)
    exact = evaluate.kept(folder / "exact.npz", lambda: evaluate.exact_draws(keys[0], event, x))
    exact = {name: exact[name] for name in problem.prior().names}
    full = dingo.train(
        jax.random.key(0), event, network=method(), steps=STEPS, folder=folder / "ratio"
    )
    found = {
        "training": evaluate.training(full),
        "all parameters": evaluate.kept(
            folder / "reused.json",
            lambda: reused(keys[1], network.posterior, full.posterior, event, x, exact),
        ),
        "marginals": evaluate.kept(
            folder / "marginals.json", lambda: study(keys[2], full.posterior, event, x, exact)
        ),
    }
    write(Path("benchmarks/results/gw_ratio.json"), found)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gw150914"))
