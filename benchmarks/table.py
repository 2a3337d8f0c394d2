"""The table for the terminal: tasks × methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from benchmarks import configs
from benchmarks.summary import Crossover, Row


def text_table(table: Sequence[Row], crossings: Sequence[Crossover]) -> str:
    """Return the accuracy, the seconds and the crossovers as plain text."""
    methods = [name for name in configs.METHODS if any(row.method == name for row in table)]
    methods += [name for name in dict.fromkeys(row.method for row in table) if name not in methods]
    parts = [
        "C2ST against the reference posterior (0.5 is perfect, 1.0 is fully distinguishable),",
        f"mean ± standard error over observations{scored(table)}",
        _grid(table, methods, score),
        "",
        "seconds: training (compile + run) | 10,000 draws for one observation (compile + run)",
        _grid(table, methods, seconds),
    ]
    if crossings:
        parts += [
            "",
            "amortization: npe has cost less than emulator + MCMC from ... observations on",
        ]
        parts += [f"  {c.task:24} {c.budget:>7}  {crossover_text(c)}" for c in crossings]
    if any(row.cached for row in table):
        parts += ["", "* compiled programs came from the cache on disk: compile seconds are short"]
    return "\n".join(parts)


def scored(table: Sequence[Row]) -> str:
    """Return what to say of scores that are not the standard ones."""
    fewest = min((row.scored for row in table if row.scores), default=configs.DRAWS)
    if fewest >= configs.DRAWS:
        return ""
    return f"; from {fewest:,} draws only (the standard: {configs.DRAWS:,})"


def score(row: Row) -> str:
    """Return "0.561 ± 0.012", and what is missing."""
    text = "" if math.isnan(row.mean) else f"{row.mean:.3f}"
    if not math.isnan(row.error_of_mean):
        text += f" ± {row.error_of_mean:.3f}"
    return " ".join(filter(None, [text, row.status and f"[{row.status}]"]))


def seconds(row: Row) -> str:
    """Return "12.1+4.5 | 2.0+0.21"."""
    if not row.scores:
        return row.status
    sampling = f"{row.sample_compile:.1f}+{row.sample_run:.2g}"
    mark = "*" if row.cached else ""
    return f"{row.train_compile:.1f}+{row.train_run:.1f} | {sampling}{mark}"


def crossover_text(crossing: Crossover) -> str:
    """Return the crossover in words."""

    def say(number: int | None) -> str:
        return "never" if number is None else f"{number:,}"

    return f"{say(crossing.observations)} (without compiling: {say(crossing.without_compiling)})"


def _grid(table: Sequence[Row], methods: Sequence[str], cell: Callable[[Row], str]) -> str:
    found = {(row.task, row.budget, row.method): cell(row) for row in table}
    lines = [["task", "simulations", *methods]]
    for task, budget in dict.fromkeys((row.task, row.budget) for row in table):
        values = [found.get((task, budget, method), "") for method in methods]
        lines.append([task, f"{budget:,}", *values])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([texts[0], "-" * sum(w + 2 for w in widths), *texts[1:]])
