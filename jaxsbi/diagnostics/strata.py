"""Calibration stratified by the data: errors that cancel over all data sets.

Asks whether the posterior is calibrated among data sets that are alike, where `calibration` asks it
of all of them together: a bias that is positive for some data and negative for others leaves the
ranks of all uniform. Strata must be made of x alone: a right posterior is then calibrated in each.

Cannot see: what cancels within a stratum, and what the ordering itself cannot see.

When it fails: the posterior is wrong for data of that stratum. Train with more simulations, or a
wider network; `local_c2st` looks at one observation.

Source: ranks by Talts et al. 2018, arXiv:1804.06788; that they must be uniform given x, too, and
average out, Zhao et al. 2021, arXiv:2102.10473.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsbi.diagnostics.calibration import CalibrationReport, Ranks
from jaxsbi.diagnostics.uniformity import LEVEL, holm, ks_band, ks_p_value


@dataclasses.dataclass(frozen=True)
class Stratified:
    """What `stratified` returns.

    Attributes:
        reports: A name for each stratum → its ranks, whose `corrected` p-values are corrected for
            the number of tests in all strata.
    """

    reports: dict[str, CalibrationReport]

    def __getitem__(self, name: str) -> CalibrationReport:
        """Return the ranks in one stratum."""
        return self.reports[name]

    @property
    def passed(self) -> bool:
        """Whether no test in any stratum fails at the 1 % level, corrected for their number."""
        return all(report.passed for report in self.reports.values())

    def __str__(self) -> str:
        """One line per ordering, with the stratum where it is worst."""
        lines = []
        for name, first in next(iter(self.reports.values())).tests.items():
            smallest = {key: float(np.min(r[name].corrected)) for key, r in self.reports.items()}
            where = min(smallest, key=smallest.__getitem__)
            passed = "passes" if smallest[where] >= LEVEL else "FAILS"
            lines.append(
                f"{name}: {passed} (smallest p-value {smallest[where]:.2g}, {where}, after Holm's "
                f"correction over {len(smallest)} strata); cannot see: what cancels within a "
                f"stratum, {first.blind}"
            )
        return "\n".join(lines)


def stratified(report: CalibrationReport, *, bins: int = 4) -> Stratified:
    """Return calibration within strata of the data, of equal numbers of data sets.

    Args:
        report: What `calibration(..., stratum=f)` returned.
        bins: How many strata, between quantiles of f(x); an f with no more values than that (a
            boolean, a class) has one stratum for each value.

    Raises:
        ValueError: If the report has no strata, or a stratum has fewer than 10 data sets.
    """
    values = report.strata
    if values is None:
        raise ValueError(
            "report: expected one with strata, got none. Pass what to sort data sets by: "
            "calibration(..., stratum=lambda x: a number)."
        )
    if bins < 2:
        raise ValueError(f"bins: expected at least 2, got {bins}.")
    groups = _groups(values, bins)
    few = [f"{name}: {rows.sum()}" for name, rows in groups.items() if rows.sum() < 10]
    if few or len(groups) < 2:
        raise ValueError(
            "strata: expected at least two, of 10 data sets or more, got "
            f"{', '.join(few) or 'one value for all data sets'}. Take fewer bins, simulate more, "
            "or sort by a number with fewer ties."
        )
    some = {
        key: {name: _within(ranks, rows) for name, ranks in report.tests.items()}
        for key, rows in groups.items()
    }
    flat = [ranks for tests in some.values() for ranks in tests.values()]
    together = holm(np.concatenate([ranks.p_value for ranks in flat]))
    corrected = iter(np.split(together, np.cumsum([r.p_value.size for r in flat])[:-1]))
    return Stratified(
        {
            key: CalibrationReport(
                {name: r._replace(corrected=next(corrected)) for name, r in tests.items()},
                strata=values[groups[key]],
            )
            for key, tests in some.items()
        }
    )


def _within(ranks: Ranks, rows: np.ndarray) -> Ranks:
    inside = ranks.ranks[rows]
    p_value = ks_p_value(inside)
    return Ranks(ranks.name, inside, p_value, p_value, ks_band(len(inside)), ranks.blind)


def _groups(values: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    """Return a name for each stratum, and which data sets are in it."""
    unique = np.unique(values)
    if unique.size <= bins:
        return {f"stratum = {value:.4g}": values == value for value in unique.astype(float)}
    edges = np.quantile(values.astype(float), np.arange(1, bins) / bins)
    place = np.searchsorted(edges, values)
    ends = ["", *(f"{edge:.3g}" for edge in edges), ""]
    return {_between(ends[i], ends[i + 1], i): place == i for i in range(bins)}


def _between(low: str, high: str, number: int) -> str:
    text = f"{low} < stratum" if low else "stratum"
    return f"{number + 1}: {text} <= {high}" if high else f"{number + 1}: {text}"
