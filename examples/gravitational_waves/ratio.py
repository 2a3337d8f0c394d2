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
import numpy as np

import jaxsbi
from benchmarks.environment import write
from examples.gravitational_waves import dingo, evaluate, figures, problem
from examples.gravitational_waves.files import kept
from jaxsbi.base import Data, Key, Posterior, Simulator, Theta
from jaxsbi.networks import ResNet

STEPS = 6_000
NAMES = ("chirp_mass", "mass_ratio", "distance")
Group = tuple[str, ...]
GROUPS: tuple[Group, ...] = (*((name,) for name in NAMES), *combinations(NAMES, 2))
ROWS, EPOCHS = 131_072, 10
"""Simulations whose summaries the marginal ratios are learned from, and passes over them."""
DRAWS = 10_000


def method(contrasts: int = 32) -> jaxsbi.methods.NRE:
    """Return the classifier of all parameters, which reads the data as the network of `dingo` does.

    The posterior fills so little of the prior that few contrasts are anywhere near it.
    """
    return jaxsbi.nre(
        summary=dingo.method().summary, classifier=ResNet(hidden=64), contrasts=contrasts
    )


def marginals(
    key: Key,
    posterior: Posterior,
    event: problem.Event,
    groups: tuple[Group, ...] = GROUPS,
    *,
    rows: int = ROWS,
    epochs: int = EPOCHS,
) -> dict[Group, Posterior]:
    """Learn the ratios of one and of two parameters, the others integrated out.

    A summary that tells all parameters tells each of them, and stays as it is. Ratios weigh draws
    of the prior: no Markov chain is needed.
    """
    key_rows, key_fit = jax.random.split(key)
    prior = problem.prior()
    simulations = jaxsbi.simulate(key_rows, prior, event.simulate, rows, progress=False)
    road = jaxsbi.compression.frozen(
        jaxsbi.nre(contrasts=4, sampler=jaxsbi.samplers.sir(candidates=8192, multiple=20)),
        jaxsbi.compression.summary(posterior),
    )
    options = {"batch_size": 512, "max_epochs": epochs, "progress": False}
    fitted = jaxsbi.marginals(key_fit, road, prior, simulations, groups, **options)
    return {group: each.posterior for group, each in fitted.items()}


def simulator(event: problem.Event, group: Group) -> Simulator:
    """Return the simulator of some parameters, which draws the others itself."""
    prior = problem.prior()
    others = prior.marginal(*(name for name in prior.names if name not in group))

    def simulate(key: Key, theta: Theta) -> Data:
        key_others, key_data = jax.random.split(key)
        return event.simulate(key_data, theta | others.sample(key_others))

    return simulate


def compare(key: Key, posterior: Posterior, x: Data, exact: Theta) -> tuple[dict, dict]:
    """Compare prior draws weighed by a marginal ratio with the exact posterior.

    Returns:
        The numbers, and some of the draws.
    """
    key_draws, key_jsd = jax.random.split(key)
    names = posterior.prior.names
    draws, info = posterior.sample_with_info(key_draws, x, DRAWS)
    columns = [np.stack([np.asarray(d[n])[:DRAWS] for n in names], 1) for d in (draws, exact)]
    # Marginals are blind to how two parameters go together: their sum and difference are not.
    scale = np.std(columns[1], 0)
    scaled = [each / scale for each in columns]
    turned = [np.stack([c[:, 0] + c[:, -1], c[:, 0] - c[:, -1]], 1) for c in scaled]
    pair = [np.float32(np.concatenate(both, 1)) for both in zip(columns, turned, strict=True)]
    labels = [*names, "sum", "difference"] if len(names) > 1 else names
    jsd = jaxsbi.diagnostics.marginal_jsd(key_jsd, *(p[:, : len(labels)] for p in pair)).jsd
    return {
        "jsd": dict(zip(labels, np.round(jsd, 5).tolist(), strict=True)),
        "efficiency": float(info.acceptance),
        # The exact ratio's mean over the prior is 1.
        "log_normalization": float(info.log_evidence),
    }, {name: np.round(draws[name][:4000], 4).tolist() for name in names}


def calibrated(
    key: Key, posterior: Posterior, event: problem.Event, group: Group, num_datasets: int = 200
) -> dict[str, Any]:
    """Return coverage of highest-density regions and p-values on simulated events."""
    law = simulator(event, group)
    report = jaxsbi.diagnostics.calibration(
        key, posterior, posterior.prior, law, num_datasets=num_datasets
    )
    return {
        "coverage": {level: report["density"].coverage(level).item() for level in (0.5, 0.9)},
        "p_value": min(float(np.min(ranks.corrected)) for ranks in report.tests.values()),
    }


def reused(
    key: Key, network: Posterior, ratio: Posterior, event: problem.Event, x: Data, exact: Theta
) -> dict[str, Any]:
    """Weigh the network's draws by the learned ratio, and the same ones by the exact likelihood."""
    key_draws, key_pick, *keys = jax.random.split(key, 5)
    prior = problem.prior()
    learned = jaxsbi.importance(key_draws, network, ratio, prior, x, evaluate.DRAWS)
    right, _ = evaluate.weigh(key_draws, network, event, x)
    # What the ratio's logarithm is wrong by, but for a constant, where it counts.
    error = np.asarray(learned.log_weights - right.log_weights)
    share = np.asarray(jax.nn.softmax(right.log_weights))
    scatter = np.sqrt(np.sum(share * (error - np.sum(share * error)) ** 2))
    found: dict[str, Any] = {"scatter_of_log_ratio": float(scatter)}
    for k, (name, each) in zip(keys, {"learned": learned, "exact": right}.items(), strict=False):
        jsd = evaluate.distances(k, each.resample(key_pick, 20_000), exact)
        found[name] = evaluate.summary(each) | {"jsd": jsd}
    return found | {"unweighted": {"jsd": evaluate.distances(keys[2], learned.draws, exact)}}


def study(
    key: Key, full: Posterior, event: problem.Event, x: Data, exact: Theta
) -> dict[str, dict[str, Any]]:
    """Learn all marginal ratios, and compare each with the exact posterior and its own claims."""
    key_fit, key_compare, key_test = jax.random.split(key, 3)
    start = time.perf_counter(), time.process_time()
    learned = marginals(key_fit, full, event)
    numbers: dict[str, Any] = {
        "rows": ROWS,
        "seconds": time.perf_counter() - start[0],
        "cpu_seconds": time.process_time() - start[1],
    }
    draws = {}
    for number, (group, posterior) in enumerate(learned.items()):
        key_group, key_ranks = (jax.random.fold_in(k, number) for k in (key_compare, key_test))
        name = " & ".join(group)
        numbers[name], draws[name] = compare(key_group, posterior, x, exact)
        numbers[name]["calibration"] = calibrated(key_ranks, posterior, event, group)
    return {"numbers": numbers, "draws": draws}


def main(folder: Path) -> None:
    """Train what was not trained, compare, and write the numbers down."""
    event, x, network = dingo.trained(folder)
    keys = jax.random.split(jax.random.key(2), 3)
    exact = kept(folder / "exact.npz", lambda: evaluate.exact_draws(keys[0], event, x))
    exact = {name: exact[name] for name in problem.prior().names}
    full = dingo.train(
        jax.random.key(0), event, network=method(), steps=STEPS, folder=folder / "ratio"
    )
    whole = kept(
        folder / "reused.json",
        lambda: reused(keys[1], network.posterior, full.posterior, event, x, exact),
    )
    parts = kept(folder / "marginals.json", lambda: study(keys[2], full.posterior, event, x, exact))
    figure = figures.ratios(exact, parts["draws"])
    figure.savefig(folder / "ratio.png", dpi=110, bbox_inches="tight")
    report = {"training": evaluate.training(full), "all parameters": whole}
    write(Path("benchmarks/results/gw_ratio.json"), report | {"marginals": parts["numbers"]})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gw150914"))
