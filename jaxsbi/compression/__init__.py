"""Summaries for their own sake: trained by other objectives, taken out, kept fixed, tuned.

A summary is trained for the posterior, jointly, by every road with a `summary=`. The variational
bound on the mutual information of summary and parameters is `npe`'s loss (Barber & Agakov 2003),
the contrastive one `nre`'s. The methods here are for other ends; all are trained by `jaxsbi.fit`.
`summary` takes out what any of them has learned, `frozen` reads data through it, and `tuned`
goes on from it.

    fitted = jaxsbi.fit(key, compression.regression(network), prior, simulations)
    summary = compression.summary(fitted.posterior)                    # x -> (c,)
    fitted = jaxsbi.fit(key, compression.frozen(jaxsbi.nle(), summary), prior, simulations)
"""

from jaxsbi.compression.contrast import Contrast, Views, contrast
from jaxsbi.compression.frozen import Frozen, frozen
from jaxsbi.compression.imnn import IMNN, at_fiducial, imnn
from jaxsbi.compression.objective import Objective
from jaxsbi.compression.regression import Regression, regression
from jaxsbi.compression.score import GaussianScore, Score, gaussian_score, score
from jaxsbi.compression.summary import Summary, summary, tuned

__all__ = [
    "Contrast",
    "Frozen",
    "GaussianScore",
    "IMNN",
    "Objective",
    "Regression",
    "Score",
    "Summary",
    "Views",
    "at_fiducial",
    "contrast",
    "frozen",
    "gaussian_score",
    "imnn",
    "regression",
    "score",
    "summary",
    "tuned",
]
