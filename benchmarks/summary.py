"""Numbers made from records: means over observations, costs, and where one road overtakes."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import configs
from benchmarks.plan import Cell
from benchmarks.records import Record

PUBLISHED_FILE = Path(__file__).resolve().parent / "data" / "published_c2st.csv"
ORDER = ("npe", "emulator", "nle", "nre")
"""Methods in the order of their colours, which `plots.corner` gives in order of drawing."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one task with one number of simulations.

    Seconds are means over trainings (seeds), sampling over observations; NaN where nothing ran.

    Attributes:
        scores: The C2ST of each finished record.
        error: The first error, or why a record was not run; None if all is well.
        simulate, train_compile, train_run, sample_compile, sample_run: Seconds.
        epochs: Mean number of epochs.
        r_hat: The largest R-hat of the chains; NaN for a road without chains.
        scored: The fewest draws that a score compares with as many of the reference.
        cached: Whether a program came from the compilation cache on disk.
    """

    task: str
    method: str
    budget: int
    scores: tuple[float, ...] = ()
    failed: int = 0
    not_run: int = 0
    error: str | None = None
    simulate: float = math.nan
    train_compile: float = math.nan
    train_run: float = math.nan
    sample_compile: float = math.nan
    sample_run: float = math.nan
    epochs: float = math.nan
    r_hat: float = math.nan
    scored: int = 0
    cached: bool = False

    @property
    def mean(self) -> float:
        """The mean C2ST over observations and seeds."""
        return float(np.mean(self.scores)) if self.scores else math.nan

    @property
    def error_of_mean(self) -> float:
        """The standard error of the mean; NaN for a single record."""
        count = len(self.scores)
        return float(np.std(self.scores, ddof=1) / math.sqrt(count)) if count > 1 else math.nan

    @property
    def fixed(self) -> float:
        """Seconds before the first draw: simulating, training and compiling."""
        return self.simulate + self.train_compile + self.train_run + self.sample_compile

    @property
    def first(self) -> float:
        """Seconds from nothing to the draws of one observation."""
        return self.fixed + self.sample_run

    @property
    def status(self) -> str:
        """What there is to say besides the numbers; "" if nothing."""
        parts = []
        if self.failed:
            parts.append(f"{self.failed} failed" if self.scores else "failed")
        if self.not_run:
            parts.append(f"{self.not_run} not run" if self.scores or self.failed else "not run")
        return ", ".join(parts)


def current(results: dict[str, Any]) -> list[Record]:
    """Return the records whose configuration is the last one run under its method's name."""
    last: dict[str, str] = {}
    for run in results["runs"]:
        for method, config in run["plan"]["methods"].items():
            last[method] = configs.fingerprint(config)
    return [
        record
        for record in results["records"]
        if last.get(record["method"], record["fingerprint"]) == record["fingerprint"]
    ]


def rows(records: Iterable[Record]) -> list[Row]:
    """Return a row per task, method and budget, in order of appearance."""
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for record in records:
        key = (record["task"], record["method"], record["budget"])
        groups.setdefault(key, []).append(record)
    order = {name: place for place, name in enumerate(configs.task_names())}
    places = {name: place for place, name in enumerate(configs.METHODS)}
    keys = sorted(groups, key=lambda k: (order.get(k[0], 99), k[2], places.get(k[1], 99), k[1]))
    return [_row(key, groups[key]) for key in keys]


def _row(key: tuple[str, str, int], group: Sequence[Record]) -> Row:
    done = [record for record in group if record["status"] == "done"]
    errors = [record["error"] for record in group if record["status"] != "done"]
    counts = {
        "failed": sum(record["status"] == "failed" for record in group),
        "not_run": sum(record["status"] == "not run" for record in group),
        "error": errors[0] if errors else None,
    }
    if not done:
        return Row(*key, **counts)
    r_hat = [record["info"].get("r_hat_max", math.nan) for record in done]
    return Row(
        *key,
        **counts,
        scores=tuple(record["c2st"] for record in done),
        simulate=_mean(record["simulate_seconds"] for record in done),
        train_compile=_mean(record["train_seconds"]["compile"] for record in done),
        train_run=_mean(record["train_seconds"]["run"] for record in done),
        sample_compile=_mean(record["sample_seconds"]["compile"] for record in done),
        sample_run=_mean(record["sample_seconds"]["run"] for record in done),
        epochs=_mean(record["epochs"] for record in done),
        # A journal holds infinity as null: chains that never moved are the worst there is.
        r_hat=max(math.inf if value is None else value for value in r_hat),
        scored=min(record["c2st_draws"] for record in done),
        cached=any(record["compile_cache_hits"] for record in done),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


@dataclasses.dataclass(frozen=True)
class Crossover:
    """When an amortized road has cost less than another road, in numbers of observations.

    Attributes:
        observations: The first number of observations at which it is cheaper; None for never.
        without_compiling: The same if no program had to be compiled.
    """

    task: str
    budget: int
    amortized: Row
    other: Row
    observations: int | None
    without_compiling: int | None


def crossovers(table: Sequence[Row], amortized: str = "npe", other: str = "emulator") -> list:
    """Return the crossover of every task and budget on which both roads ran."""
    found = {(row.task, row.budget, row.method): row for row in table if row.scores}
    pairs = [
        (row, found.get((row.task, row.budget, other)))
        for row in found.values()
        if row.method == amortized
    ]
    return [Crossover(a.task, a.budget, a, b, *_both(a, b)) for a, b in pairs if b is not None]


def _both(a: Row, b: Row) -> tuple[int | None, int | None]:
    with_compiling = first_cheaper(a.fixed, a.sample_run, b.fixed, b.sample_run)
    without = first_cheaper(a.train_run, a.sample_run, b.train_run, b.sample_run)
    return with_compiling, without


def first_cheaper(fixed: float, each: float, other_fixed: float, other_each: float) -> int | None:
    """Return the least N >= 1 with fixed + N each < other_fixed + N other_each, or None."""
    if fixed + each < other_fixed + other_each:
        return 1
    if each >= other_each:
        return None
    return math.floor((fixed - other_fixed) / (other_each - each)) + 1


def published() -> dict[tuple[str, str, int], float]:
    """Return the published mean C2ST by task, method and number of simulations."""
    with open(PUBLISHED_FILE, encoding="utf-8", newline="") as file:
        return {
            (line["task"], line["method"], int(line["simulations"])): float(line["c2st_mean"])
            for line in csv.DictReader(file)
        }


def methods_of(table: Iterable[Row]) -> list[str]:
    """Return the methods of a table in the order of their colours."""
    names = dict.fromkeys(row.method for row in table)
    return [m for m in ORDER if m in names] + [m for m in names if m not in ORDER]


def first_records(records: Iterable[Record]) -> dict[str, dict[str, Record]]:
    """Return task → method → the record to show: its largest budget's first observation."""
    best: dict[str, dict[str, Record]] = {}
    ranked = sorted(
        (record for record in records if record["status"] == "done"),
        key=lambda r: (-r["budget"], Cell.of(r).observation, r["seed"]),
    )
    for record in ranked:
        shown = best.setdefault(record["task"], {})
        # One observation and one budget in a picture, else it would compare different posteriors.
        same = all(
            (r["budget"], r["observation"]) == (record["budget"], record["observation"])
            for r in shown.values()
        )
        if same:
            shown.setdefault(record["method"], record)
    return best
