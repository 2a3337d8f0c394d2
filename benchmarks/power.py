"""Are p-values uniform where nothing is wrong, and how often is what is wrong seen?

    python -m benchmarks.power --out benchmarks/results/power.json

Two parameters N(0, 1), data theta + 0.5 noise, so that the posterior is N(0.8 x, 0.2) in each
coordinate. Each test is made 500 times on the exact posterior (or on equal laws, or an observation
of its kind), where the Kolmogorov-Smirnov distance of its p-values from uniform is reported, and
200 times on each defect, where the share of p-values up to 0.05 is its power. p-values that are
ranks among few are spread within their step.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.stats

import jaxsbi
from benchmarks import plan
from benchmarks.environment import commit, write
from jaxsbi import diagnostics
from jaxsbi.base import DataSpec, configuration
from jaxsbi.diagnostics.uniformity import holm, ks_p_value

PRIOR = jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
NOISE, SHRINK, WIDTH = 0.5, 0.8, 0.2**0.5
NULL, REPEATS, LEVEL = 500, 200, 0.05
DATA_SETS, DRAWS, PERMUTATIONS = 300, 100, 19


def simulator(key: Any, theta: Any) -> Any:
    """Return two noisy numbers."""
    return theta["theta"] + NOISE * jax.random.normal(key, (2,))


@configuration
class Defective:
    """The exact posterior, but for its width, a shift in widths, a correlation, or ignored data."""

    factor: float = 1.0
    shift: float = 0.0
    correlation: float = 0.0
    lossy: bool = False

    def init(self, key: Any, prior: Any, simulations: Any) -> Any:
        """Nothing is trained."""
        raise NotImplementedError

    def loss(self, variables: Any, prior: Any, key: Any, batch: Any) -> Any:
        """Nothing is trained."""
        raise NotImplementedError

    def law(self, x: Any) -> dist.Distribution:
        """Return q(theta | x)."""
        width = self.factor * WIDTH * jnp.ones(2)
        mean = SHRINK * x + self.shift * WIDTH
        if self.lossy:  # the second number is not looked at
            width, mean = width.at[1].set(1.0), mean.at[1].set(0.0)
        both = jnp.array([[1.0, self.correlation], [self.correlation, 1.0]])
        return dist.MultivariateNormal(mean, width[:, None] * both * width[None])

    def sample(self, variables: Any, prior: Any, key: Any, x: Any, n: int) -> Any:
        """Return draws."""
        return {"theta": self.law(x).sample(key, (n,))}, ()

    def log_prob(self, variables: Any, prior: Any, theta: Any, x: Any) -> Any:
        """Return the log-density."""
        return self.law(x).log_prob(theta["theta"])


POSTERIORS = {
    "nothing": Defective(),
    "width × 0.8": Defective(factor=0.8),
    "width × 1.25": Defective(factor=1.25),
    "shift by 0.3 widths": Defective(shift=0.3),
    "correlation 0.4 for 0": Defective(correlation=0.4),
    "ignores half of the data": Defective(lossy=True),
}
LAWS = {
    "nothing": lambda draws: draws,
    "width × 1.25": lambda draws: 1.25 * draws,
    "shift by 0.3 widths": lambda draws: draws + 0.3,
    "correlation 0.6 for 0": lambda draws: draws @ np.array([[1.0, 0.6], [0.0, 0.8]]),
}
OBSERVATIONS = {
    "nothing": lambda x: x,
    "a number off by 3 deviations": lambda x: x.at[0].add(3.0 * (1.0 + NOISE**2) ** 0.5),
    "a number off by 5 deviations": lambda x: x.at[0].add(5.0 * (1.0 + NOISE**2) ** 0.5),
}
Values = dict[str, np.ndarray]


def posterior(method: Defective) -> jaxsbi.Posterior:
    """Return it as one that was fitted."""
    return jaxsbi.Posterior({}, PRIOR, method, DataSpec.of(jnp.zeros(2)))


def calibrated(method: Defective, repeats: int) -> Values:
    """Return p-values of the generalised ranks, corrected within an ordering."""
    likelihood = diagnostics.LogLikelihood(
        function=lambda theta, x: -0.5 * jnp.sum((x - theta["theta"]) ** 2) / NOISE**2
    )
    orderings = (
        diagnostics.Parameters(),
        diagnostics.Projections(),
        diagnostics.Density(),
        diagnostics.Distance(),
        likelihood,
    )
    study = diagnostics.calibration(
        jax.random.key(0),
        posterior(method),
        PRIOR,
        simulator,
        orderings=orderings,
        num_datasets=repeats * DATA_SETS,
        num_draws=DRAWS,
    )
    return {
        f"ranks: {name}": np.array(
            [float(holm(ks_p_value(block)).min()) for block in np.split(found.ranks, repeats)]
        )
        if method != Defective()
        else ks_p_value(found.ranks[:, 0].reshape(repeats, DATA_SETS).T)
        for name, found in study.tests.items()
    }


def local(method: Defective, repeats: int) -> Values:
    """Return p-values of the classifier test at one observation."""
    x = jnp.array([0.5, -0.5])
    found = [
        diagnostics.local_c2st(
            jax.random.key(seed),
            posterior(method),
            PRIOR,
            simulator,
            x,
            num_datasets=DATA_SETS,
            permutations=PERMUTATIONS,
        ).p_value
        for seed in range(repeats)
    ]
    return {"local C2ST": spread(found, 1 / (1 + PERMUTATIONS))}


def two_sample(change: Callable[[np.ndarray], np.ndarray], repeats: int) -> Values:
    """Return p-values of the tests on two sets of 200 draws."""
    found: dict[str, list[float]] = {}
    for seed in range(repeats):
        rng, key = np.random.default_rng(seed), jax.random.key(seed)
        a, b = change(rng.normal(size=(200, 2))), rng.normal(size=(200, 2))
        options = {"permutations": 99}
        both = diagnostics.classifier_test(key, a, b, permutations=PERMUTATIONS)
        p_values = {
            "MMD": diagnostics.mmd(key, a, b, **options).p_value,
            "energy distance": diagnostics.energy_distance(key, a, b, **options).p_value,
            "sliced Wasserstein": diagnostics.sliced_wasserstein(key, a, b, **options).p_value,
            "marginal JSD": float(diagnostics.marginal_jsd(key, a, b, **options).p_value[0]),
            "classifier: accuracy": both.accuracy.p_value,
            "classifier: Jensen-Shannon": both.js.p_value,
        }
        for name, value in p_values.items():
            found.setdefault(name, []).append(value)
    steps = {name: 1 / (1 + PERMUTATIONS) if "class" in name else 0.01 for name in found}
    return {name: spread(values, steps[name]) for name, values in found.items()}


def shifted(key: Any, x: Any, by: Any) -> Any:
    """Return distorted data; one function, so that it is compiled once."""
    del key
    return x + by


def observed(change: Callable[[Any], Any], repeats: int) -> Values:
    """Return p-values of an observation among simulations."""
    found: dict[str, list[float]] = {}
    for seed in range(repeats):
        keys = jax.random.split(jax.random.key(seed), 5)
        simulations = jaxsbi.simulate(keys[0], PRIOR, simulator, 600, progress=False)
        x = change(jaxsbi.simulate(keys[1], PRIOR, simulator, 1, progress=False).x[0])
        wrong = diagnostics.misspecification(keys[2], simulations, x)
        shifts = diagnostics.distortions(keys[3], simulations, x, shifted, 3.0 * jnp.eye(2))
        before = diagnostics.prior_predictive(keys[4], PRIOR, simulator, x)
        p_values = {
            "misspecification: distance": wrong.mmd_p_value,
            "misspecification: density": wrong.density_p_value,
            "distortions": shifts.p_value,
            "prior predictive, first number": float(before.p_value[0]),
        }
        for name, value in p_values.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def spread(values: list[float], step: float) -> np.ndarray:
    """Return p-values that are multiples of `step`, spread evenly within it."""
    return np.array(values) - np.random.default_rng(0).uniform(0, step, len(values))


STUDIES: dict[str, tuple[Callable[..., Values], dict[str, Any]]] = {
    "calibration": (calibrated, POSTERIORS),
    "local": (local, POSTERIORS),
    "two samples": (two_sample, LAWS),
    "observation": (observed, OBSERVATIONS),
}


def rows(study: str, null: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield what each test of a study gives on each defect."""
    run, defects = STUDIES[study]
    for defect, wrong in defects.items():
        count = null if defect == "nothing" else repeats
        for test, p_values in run(wrong, count).items():
            row = {"study": study, "test": test, "wrong": defect, "repeats": count}
            row["rejected at 0.05"] = round(float(np.mean(p_values <= LEVEL)), 3)
            if defect == "nothing":
                row["uniformity p-value"] = round(scipy.stats.kstest(p_values, "uniform").pvalue, 4)
            yield row


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=plan.words, default=tuple(STUDIES))
    parser.add_argument("--null", type=int, default=NULL, help="repeats where nothing is wrong")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="repeats of each defect")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan.known("study", options.studies, tuple(STUDIES))
    table = []
    if options.out and options.out.exists():  # rows of other studies stay
        before = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
        table = [row for row in before if row["study"] not in options.studies]
    sizes = {"data_sets": DATA_SETS, "draws": DRAWS, "exchanges": PERMUTATIONS}
    for study in options.studies:
        for row in rows(study, options.null, options.repeats):
            print(json.dumps(row, ensure_ascii=False), flush=True)
            table.append(row | {"commit": commit()})
            if options.out:
                write(options.out, {"sizes": sizes, "rows": table})


if __name__ == "__main__":
    main()
