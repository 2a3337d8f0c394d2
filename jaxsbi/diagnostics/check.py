"""The default report: is my posterior right?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxsbi.base import Data, Key, Posterior, Simulator, check_key
from jaxsbi.diagnostics.calibration import DEFAULT, CalibrationReport, calibration
from jaxsbi.diagnostics.orderings import Ordering
from jaxsbi.diagnostics.predictive import (
    Predictive,
    contraction,
    posterior_predictive,
    prior_predictive,
)
from jaxsbi.diagnostics.uniformity import LEVEL
from jaxsbi.priors import Prior

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Check:
    """What `check` found. Print it, or look at `figure()`.

    Attributes:
        calibration: Generalised ranks over data sets simulated from the prior.
        contraction: Mean contraction of each latent coordinate: 0, the data say nothing; 1, they
            say everything.
        prior_predictive: The observation among prior simulations, if there is one.
        posterior_predictive: The observation among simulations from its posterior.
    """

    calibration: CalibrationReport
    contraction: np.ndarray
    prior_predictive: Predictive | None
    posterior_predictive: Predictive | None

    @property
    def passed(self) -> bool:
        """Whether no test failed at the 1 % level, corrected."""
        places = (self.prior_predictive, self.posterior_predictive)
        return self.calibration.passed and all(p is None or p.smallest >= LEVEL for p in places)

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
        if self.prior_predictive is not None and self.posterior_predictive is not None:
            lines += [
                "This observation (does the simulator describe it?)",
                f"  among prior simulations: {self.prior_predictive.verdict}",
                f"  among posterior simulations: {self.posterior_predictive.verdict}",
            ]
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
    """Check a posterior: calibration, information, and whether the observation is one of its kind.

    Args:
        key: A typed key.
        posterior: The posterior.
        prior: The prior it was trained under.
        simulator: The simulator it was trained on; called afresh.
        x_observed: The observation, if there is one.
        orderings: What to rank by (see `diagnostics.calibration`); add `LogLikelihood` where it is
            known, the only one that sees lost information.
        num_datasets: Data sets simulated for the calibration.
        num_draws: Posterior draws for each. Roads with MCMC need fewer of both.

    Returns:
        A report to print, with a figure.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If a number is out of range.
    """
    check_key(key)
    key_ranks, key_contraction, key_prior, key_posterior = jax.random.split(key, 4)
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
    before = after = None
    if x_observed is not None:
        before = prior_predictive(key_prior, prior, simulator, x_observed)
        after = posterior_predictive(key_posterior, posterior, simulator, x_observed)
    return Check(ranks, shrunk.mean(0), before, after)
