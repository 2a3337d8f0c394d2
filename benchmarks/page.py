"""The page: HTML from rows and pictures. Everything it shows is inside the one file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import configs, style, summary
from benchmarks.records import Record
from benchmarks.schedule import label
from benchmarks.summary import Crossover, Row, methods_of, published
from benchmarks.table import scored
from jaxsbi.samplers.convergence import MAX_R_HAT

STYLESHEET = Path(__file__).resolve().parent / "data" / "report.css"
HOW_TO_READ = """
<p>Each task is a simulator with a known answer: 10,000 draws of the true posterior for each of ten
observations, published by Lueckmann et al. (2021, arXiv:2101.04653). A method sees simulations
only. Its 10,000 draws are then compared with the reference.</p>
<ul>
<li><b>C2ST</b> is the accuracy of a classifier that tries to tell the two sets of draws apart.
<b>0.5 is perfect</b>, 1.0 means that they do not overlap. Below 0.55 the two are hard to tell
apart by eye; at 0.7 the shape is right and its details are not; above 0.9 do not use it.</li>
<li><b>Simulation-based</b> roads learn the posterior (npe), the likelihood (nle) or the ratio (nre)
without a formula for the likelihood. The <b>likelihood-based</b> road trains an emulator of the
simulator's mean, writes a Gaussian likelihood down and samples from it (tempered sequential Monte
Carlo). Where the noise is not Gaussian, that likelihood is wrong however well the emulator is
trained.</li>
<li><b>compile</b> seconds are spent once per program, <b>run</b> seconds every time. npe draws
directly; nle, nre and the emulator run a sampler for every new observation.</li>
</ul>
"""


def page(
    results: Mapping[str, Any],
    shown: Sequence[Record],
    table: Sequence[Row],
    crossings: Sequence[Crossover],
    images: Mapping[str, str],
    corners: Sequence[Mapping[str, Any]],
) -> str:
    """Return the whole page."""
    sections = [
        _header(results, shown),
        "<h2>How to read this</h2>" + HOW_TO_READ,
        _accuracy(table, images),
        _wall_time(table, images),
        _crossover(crossings, images),
        _corners(corners),
        _missing(shown),
        _configurations(results),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>jaxsbi: two roads to a posterior</title>"
        f"<style>\n{STYLESHEET.read_text(encoding='utf-8')}</style></head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + "\n</body></html>\n"
    )


def _header(results: Mapping[str, Any], shown: Sequence[Record]) -> str:
    counts = {name: 0 for name in ("done", "failed", "not run")}
    for record in shown:
        counts[record["status"]] += 1
    other = len(results["records"]) - len(shown)
    said = [f"{counts['done']} of {len(shown)} records finished"]
    said += [f"{counts[name]} {name}" for name in ("failed", "not run") if counts[name]]
    if other:
        said.append(f"{other} of other configurations are in results.json and not shown")
    facts = {"records": "; ".join(said), **_machine(results["runs"], shown)}
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return (
        "<h1>Two roads to a posterior</h1>"
        '<p class="lead">Simulation-based and likelihood-based inference with jaxsbi, on the '
        "standard tasks, against reference posteriors.</p>"
        f'<dl class="facts">{listed}</dl>'
    )


def _machine(runs: Sequence[Record], shown: Sequence[Record]) -> dict[str, str]:
    """Return what the numbers were made with; several values where runs differed."""
    if not runs:
        return {}
    last = runs[-1]
    machine = last["environment"]
    done = [record for record in shown if record["status"] == "done"]
    minutes = sum(run.get("end", {}).get("seconds") or 0.0 for run in runs) / 60.0
    killed = sum("end" not in run for run in runs)
    per_record = sorted({record["cores"] for record in done}) or [last["cores"]]
    metrics = {"jax": "jaxsbi's compiled twin of the standard one", "standard": "scikit-learn"}
    used = sorted({metrics[record["c2st_metric"]] for record in done})
    versions = machine["versions"]
    return {
        "machine": f"{machine['device']}, {last['cores']} cores ({machine['platform']})",
        "cores per record": " or ".join(map(str, per_record))
        + (f" ({last['jobs']} processes side by side)" if last["jobs"] > 1 else ""),
        "time": f"{minutes:.1f} minutes in {_count(len(runs), 'run')}"
        + (f" ({killed} killed and not counted)" if killed else "")
        + f"; last: {last['started']}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "commit": " and ".join(sorted({r["commit"] or "none" for r in done}))
        or (machine["commit"] or "none"),
        "C2ST by": (" and ".join(used) or "none") + scored(summary.rows(done)),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _accuracy(table: Sequence[Row], images: Mapping[str, str]) -> str:
    figures = "".join(
        _figure(uri, "C2ST by task and method at an equal number of simulations")
        for name, uri in images.items()
        if name.startswith("accuracy")
    )
    there = published()
    return (
        "<h2>At equal simulations: the two roads side by side</h2>"
        "<p>C2ST (mean ± standard error over observations); below it, in small type, the "
        "published mean over ten observations of the same kind of method with the same number of "
        "simulations. The best of a row is bold.</p>" + _two_roads(table, there) + figures
    )


def _two_roads(table: Sequence[Row], there: Mapping[tuple[str, str, int], float]) -> str:
    methods = methods_of(table)
    roads = {m: configs.METHODS[m].road if m in configs.METHODS else "other" for m in methods}
    methods = sorted(methods, key=lambda m: roads[m])
    groups = "".join(
        f'<th class="group" colspan="{sum(r == road for r in roads.values())}">{road}</th>'
        for road in dict.fromkeys(roads[m] for m in methods)
    )
    names = "".join(f"<th>{_swatch(m)}{escape(m)}</th>" for m in methods)
    head = (
        f'<tr><th rowspan="2">task</th><th rowspan="2" class="number">simulations</th>{groups}'
        f"</tr><tr>{names}</tr>"
    )
    found = {(row.task, row.budget, row.method): row for row in table}
    body = []
    for task, budget in dict.fromkeys((row.task, row.budget) for row in table):
        line = [found.get((task, budget, m)) for m in methods]
        means = [row.mean for row in line if row and row.scores]
        best = min(means, default=math.nan)
        cells = "".join(_score(row, best, there) for row in line)
        body.append(f'<tr><td>{escape(task)}</td><td class="number">{budget:,}</td>{cells}</tr>')
    return _table(head, body)


def _score(row: Row | None, best: float, there: Mapping[tuple[str, str, int], float]) -> str:
    if row is None:
        return "<td></td>"
    notes = []
    if row.status:
        notes.append(f'<span class="warn">{escape(row.status)}</span>')
    if row.r_hat > MAX_R_HAT:
        notes.append(f'<span class="warn">R-hat {row.r_hat:.2f}</span>')
    if (value := there.get((row.task, row.method, row.budget))) is not None:
        notes.append(f"published {value:.3f}")
    text = f"{row.mean:.3f}" if row.scores else "–"
    if not math.isnan(row.error_of_mean):
        text += f" ± {row.error_of_mean:.3f}"
    kind = ' class="best"' if row.scores and row.mean == best else ""
    return f"<td{kind}>{text}<small>{'<br>'.join(notes)}</small></td>"


def _wall_time(table: Sequence[Row], images: Mapping[str, str]) -> str:
    if "wall_time" not in images:
        return ""
    cached = any(row.cached for row in table)
    star = (
        '<p class="note">* Some programs had been compiled by an earlier run and came from the '
        "cache on disk: these compile seconds are shorter than a first run's.</p>"
        if cached
        else ""
    )
    return (
        "<h2>At equal wall time</h2>"
        "<p>Everything that one observation costs: simulating, compiling, training and drawing "
        "10,000 times. Read a panel along a vertical line to compare methods that took equally "
        "long.</p>"
        + _figure(images["wall_time"], "C2ST against wall time, one panel per task")
        + _seconds_table(table)
        + star
    )


def _seconds_table(table: Sequence[Row]) -> str:
    heads = ["task", "method", "simulations", "simulate", "train: compile", "run", "epochs"]
    heads += ["draw: compile", "run", "in all"]
    head = "<tr>" + "".join(
        f"<th{'' if i < 2 else ' class=number'}>{name}</th>" for i, name in enumerate(heads)
    ) + "</tr>"  # fmt: skip
    body = []
    for row in table:
        first = f"<td>{escape(row.task)}</td><td>{_swatch(row.method)}{escape(row.method)}</td>"
        if not row.scores:
            rest = f'<td class="bad" colspan="8">{escape(row.status)}</td>'
        else:
            star = " *" if row.cached else ""
            numbers = [f"{row.budget:,}", _seconds(row.simulate), _seconds(row.train_compile)]
            numbers += [_seconds(row.train_run), f"{row.epochs:.0f}"]
            numbers += [_seconds(row.sample_compile), _seconds(row.sample_run)]
            numbers += [_seconds(row.first) + star]
            rest = "".join(f'<td class="number">{text}</td>' for text in numbers)
        body.append(f"<tr>{first}{rest}</tr>")
    return f"<details><summary>All seconds</summary>{_table(head, body)}</details>"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _crossover(crossings: Sequence[Crossover], images: Mapping[str, str]) -> str:
    if "crossover" not in images or not crossings:
        return ""
    head = (
        '<tr><th rowspan="2">task</th><th rowspan="2" class="number">simulations</th>'
        '<th class="group" colspan="3">npe: seconds, C2ST</th>'
        '<th class="group" colspan="3">emulator: seconds, C2ST</th>'
        '<th class="group" colspan="2">npe cheaper from N =</th></tr><tr>'
        + 2 * ('<th class="number">before</th><th class="number">each</th><th>C2ST</th>')
        + '<th class="number">in all</th><th class="number">not compiling</th></tr>'
    )
    body = []
    for c in crossings:
        numbers = [f"{c.budget:,}"]
        for row in (c.amortized, c.other):
            numbers += [_seconds(row.fixed), _seconds(row.sample_run), f"{row.mean:.3f}"]
        numbers += [_number(c.observations), _number(c.without_compiling)]
        cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
        body.append(f"<tr><td>{escape(c.task)}</td>{cells}</tr>")
    return (
        "<h2>The amortization crossover</h2>"
        "<p>npe trains once and then draws almost for nothing; the emulator runs a sampler for "
        "every observation. From N observations on, npe has cost fewer seconds in all, simulating "
        "included: both roads use the same simulations, so that a slower simulator leaves N as it "
        "is. N says nothing about accuracy: look at the C2ST beside it.</p>"
        + _figure(images["crossover"], "Seconds against the number of observations, per task")
        + _table(head, body)
        + '<p class="note">Before: seconds until the first draw (simulate, train, compile). Each: '
        "seconds for 10,000 draws for one observation. Not compiling: N if every program had "
        "been compiled before, training and drawing alone.</p>"
    )


def _number(value: int | None) -> str:
    return "never" if value is None else f"{value:,}"


def _corners(corners: Sequence[Mapping[str, Any]]) -> str:
    if not corners:
        return ""
    pictures = []
    for corner in corners:
        record = corner["record"]
        scores = ", ".join(f"{m} {value:.3f}" for m, value in corner["scores"].items())
        caption = (
            f"<b>{escape(corner['task'])}</b>, observation {record['observation']}, "
            f"{record['budget']:,} simulations. C2ST: {scores}"
        )
        picture = _figure(corner["image"], f"Corner plot of {corner['task']}", caption)
        if corner["columns"] > 3:
            picture = picture.replace("<figure>", '<figure class="wide">', 1)
        pictures.append(picture)
    return (
        "<h2>Learned over reference</h2>"
        "<p>Contours at 68 % and 95 %; the reference posterior is grey. All parameters up to five, "
        "otherwise the first four.</p>"
        f'<div class="gallery">{"".join(pictures)}</div>'
    )


def _missing(shown: Sequence[Record]) -> str:
    missing = [record for record in shown if record["status"] != "done"]
    if not missing:
        return ""
    grouped: dict[tuple[str, str], list[Record]] = {}
    for record in missing:
        grouped.setdefault((record["status"], record["error"] or ""), []).append(record)
    lines = []
    for (status, error), group in grouped.items():
        names = "; ".join(label(record) for record in group)
        lines.append(
            f'<li><span class="warn">{status}</span> ({escape(error)}): {escape(names)}</li>'
        )
    return "<h2>Failed, or not run</h2><ul>" + "".join(lines) + "</ul>"


def _configurations(results: Mapping[str, Any]) -> str:
    methods: dict[str, Any] = {}
    for run in results["runs"]:
        methods.update(run["plan"]["methods"])
    blocks = "".join(
        f"<details><summary>{escape(name)} [{configs.fingerprint(config)}]</summary>"
        f"<pre>{escape(json.dumps(config, indent=1))}</pre></details>"
        for name, config in methods.items()
    )
    return f"<h2>Configurations</h2>{blocks}" if blocks else ""


def _figure(uri: str, alt: str, caption: str = "") -> str:
    text = f"<figcaption>{caption}</figcaption>" if caption else ""
    if not uri.startswith("data:"):
        return f'<figure><p class="warn">{escape(uri)}</p>{text}</figure>'
    return f'<figure><img src="{uri}" alt="{escape(alt)}">{text}</figure>'


def _swatch(method: str) -> str:
    return f'<span class="swatch" style="background:{style.color(method)}"></span>'


def _table(head: str, body: Iterable[str]) -> str:
    rows = "".join(body)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
