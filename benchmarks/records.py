"""Records on disk: an append-only journal that survives a kill, and what is assembled from it.

`records.jsonl` is the journal: one JSON object a line, written with one `write` and an `fsync`.
Its kinds are "plan" (a run began), "record" (a record was finished or failed) and "end" (a run
ended, and why). `results.json` is assembled from it and replaced atomically, so that it is whole
at any time. A last line cut short by a kill is left out.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plan import Cell, Plan

JOURNAL = "records.jsonl"
RESULTS = "results.json"
SCHEMA = 1
Record = dict[str, Any]


def append(out: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Append one line to the journal; when this returns, it is on the disk."""
    line = json.dumps({"kind": kind, **plain(content)}, allow_nan=False) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    with open(out / JOURNAL, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # A line that a kill cut short must not swallow this one.
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read(out: Path) -> list[Record]:
    """Return the journal's whole lines, in order."""
    path = out / JOURNAL
    lines = []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "kind" in line:
            lines.append(line)
    return lines


def latest(lines: Iterable[Record]) -> dict[Cell, Record]:
    """Return the last record of each cell; one that was finished is never undone by a failure."""
    found: dict[Cell, Record] = {}
    for line in lines:
        if line["kind"] != "record":
            continue
        record = {name: value for name, value in line.items() if name != "kind"}
        cell = Cell.of(record)
        old = found.get(cell)
        if old and old["status"] == "done":
            if record["status"] != "done":
                continue
            # The same draws scored with another metric: keep both scores.
            if old["c2st_draws"] == record["c2st_draws"]:
                record["c2st_all"] = {**old["c2st_all"], **record["c2st_all"]}
        found[cell] = record
    return found


def is_finished(record: Record | None, metric: str, scored: int) -> bool:
    """Whether a record need not be made again for this metric on this number of draws."""
    if record is None or record["status"] != "done":
        return False
    wanted = ("jax", "standard") if metric == "both" else (metric,)
    return record["c2st_draws"] >= scored and all(name in record["c2st_all"] for name in wanted)


def assemble(out: Path) -> dict[str, Any]:
    """Return everything a report needs: the runs, and a record for every planned cell.

    Planned cells without a record have the status "not run", and the reason.
    """
    runs: list[Record] = []
    lines = read(out)
    for line in lines:
        content = {name: value for name, value in line.items() if name != "kind"}
        if line["kind"] == "plan":
            runs.append(content)
        elif line["kind"] == "end" and runs:
            runs[-1]["end"] = content
    found = latest(lines)
    for run in runs:
        reason = run.get("end", {}).get("reason") or "the run was stopped"
        for cell in Plan.from_json(run["plan"]).all_cells():
            if cell not in found or found[cell]["status"] == "not run":
                found[cell] = {**cell._asdict(), "status": "not run", "error": reason}
    return {"schema": SCHEMA, "runs": runs, "records": list(found.values())}


def write_results(out: Path) -> dict[str, Any]:
    """Assemble the journal, write `results.json` atomically and return its content."""
    results = assemble(out)
    write_atomically(out / RESULTS, json.dumps(results, indent=1, allow_nan=False).encode())
    return results


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_draws(out: Path, cell: Cell, draws: np.ndarray) -> str:
    """Keep draws `(n, d)` of a record as compressed float32; return the path relative to `out`."""
    name = "-".join(str(part) for part in cell) + ".npz"
    path = out / "draws" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # The scratch name ends in .npz too: NumPy would add it.
    scratch = path.with_name(f".{os.getpid()}-{name}")
    np.savez_compressed(scratch, draws=np.asarray(draws, np.float32))
    os.replace(scratch, path)
    return f"draws/{name}"


def load_draws(out: Path, record: Record) -> np.ndarray | None:
    """Return the kept draws `(n, d)` of a record, or None where there are none."""
    path = out / record["draws_file"] if record.get("draws_file") else None
    if path is None or not path.is_file():
        return None
    with np.load(path) as archive:
        return archive["draws"]


def plain(value: Any) -> Any:
    """Return JSON without NaN and infinity, which its readers do not share: they become None."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
