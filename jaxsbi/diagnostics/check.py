"""The default report: is my posterior right?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxsbi.base import Data, Key, Posterior, Simulator, check_key
from jaxsbi.diagnostics.calibration import DEFAULT, CalibrationReport, calibration
from jaxsbi.diagnostics.local import LocalC2ST, local_c2st
from jaxsbi.diagnostics.misspecification import Misspecification, misspecification
from jaxsbi.diagnostics.orderings import Ordering
from jaxsbi.diagnostics.predictive import (
    Predictive,
    contraction,
    posterior_predictive,
    prior_predictive,
)
from jaxsbi.diagnostics.uniformity import LEVEL
from jaxsbi.priors import Prior
from jaxsbi.simulate import simulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIMULATIONS = 4000
"""Prior simulations that an observation is looked for among."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What `check` found. Print it, or look at `figure()`.

    Attributes:
        calibration: Generalised ranks over data sets simulated from the prior.
        contraction: Mean contraction of each latent coordinate: 0, the data say nothing; 1, they
            say everything.
        misspecification: Whether the observation is of the kind that was simulated; this and what
            follows is None without an observation.
        local: The classifier test of the posterior at the observation.
        prior_predictive: The observation among prior simulations.
        posterior_predictive: The observation among simulations from its posterior.
    """

    calibration: CalibrationReport
    contraction: np.ndarray
    misspecification: Misspecification | None = None
    local: LocalC2ST | None = None
    prior_predictive: Predictive | None = None
    posterior_predictive: Predictive | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing failed at the 1 % level.

        Calibration is corrected for the number of its tests; with an observation there are four
        questions more, each at that level.
        """
        places = (self.prior_predictive, self.posterior_predictive)
        return (
            self.calibration.passed
            and (self.misspecification is None or self.misspecification.passed)
            and (self.local is None or self.local.passed)
            and all(p is None or p.smallest >= LEVEL for p in places)
        )

    def __str__(self) -> str:
        """A plain summary."""
        least = int(np.argmin(self.contraction))
        lines = ["Calibration (is q(theta | x) right on average over the prior?)"]
        lines += [f"  {ranks.verdict}" for ranks in self.calibration.tests.values()]
        lines += [
            "Information (do the data matter?)",
            f"  mean contraction {self.contraction.mean():.2f}; least in latent coordinate "
            f"{least}: {self.contraction[least]:.2f}",
        ]
        if self.misspecification is not None:
            lines += [
                "This observation (could the simulator have made it?)",
                f"  {self.misspecification.verdict}",
            ]
        if self.prior_predictive is not None:
            lines.append(f"  among prior simulations: {self.prior_predictive.verdict}")
        if self.local is not None:
            lines += ["Its posterior (is q(theta | x) right here?)", f"  {self.local.verdict}"]
        if self.posterior_predictive is not None:
            lines.append(f"  among posterior simulations: {self.posterior_predictive.verdict}")
        lines.append("No test failed." if self.passed else "SOMETHING FAILED: see above.")
        return "\n".join(lines)

    def figure(self) -> Figure:
        """Return `jaxsbi.plots.calibration` of the ranks."""
        from jaxsbi import plots

        return plots.calibration(self.calibration)


def check(
    key: Key,
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    x_observed: Data | None = None,
    *,
    orderings: Sequence[Ordering] = DEFAULT,
    num_datasets: int = 1000,
    num_draws: int = 200,
) -> Check:
    """Check a posterior: calibration, information, and the observation, if there is one.

    On average over the prior first. Then, for an observation: could the simulator have made it
    (in the space of the summary network, where there is one), is the posterior right there, and
    do simulations from it look like it?

    Args:
        key: A typed key.
        posterior: The posterior.
        prior: The prior it was trained under.
        simulator: The simulator it was trained on; called afresh.
        x_observed: The observation, if there is one.
        orderings: What to rank by (see `diagnostics.calibration`); add `LogLikelihood` where it is
            known, the only one that sees lost information.
        num_datasets: Data sets simulated for the calibration, and as many for the classifiers of
            the local test: at least 100.
        num_draws: Posterior draws for each. Roads with MCMC need fewer of both.

    Returns:
        A report to print, with a figure.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If a number is out of range.
    """
    check_key(key)
    key_ranks, key_contraction, key_observed = jax.random.split(key, 3)
    ranks = calibration(
        key_ranks,
        posterior,
        prior,
        simulator,
        orderings=orderings,
        num_datasets=num_datasets,
        num_draws=num_draws,
    )
    few = min(num_datasets, 200)
    shrunk, _ = contraction(
        key_contraction, posterior, prior, simulator, num_datasets=few, num_draws=num_draws
    )
    found = Check(ranks, shrunk.mean(0))
    if x_observed is None:
        return found
    seen = _observed(key_observed, posterior, prior, simulator, x_observed, num_datasets)
    return dataclasses.replace(found, **seen)


def _observed(
    key: Key,
    posterior: Posterior,
    prior: Prior,
    simulator: Simulator,
    x: Data,
    num_datasets: int,
) -> dict[str, Any]:
    """Return what there is to say on one observation, by the names of `Check`."""
    key_simulate, key_wrong, key_local, key_prior, key_posterior = jax.random.split(key, 5)
    simulations = simulate(key_simulate, prior, simulator, SIMULATIONS, progress=False)
    summary = posterior if getattr(posterior.method, "summary", None) is not None else None
    return {
        "misspecification": misspecification(key_wrong, simulations, x, summary=summary),
        "local": local_c2st(key_local, posterior, prior, simulator, x, num_datasets=num_datasets),
        "prior_predictive": prior_predictive(key_prior, prior, simulator, x),
        "posterior_predictive": posterior_predictive(key_posterior, posterior, simulator, x),
    }
