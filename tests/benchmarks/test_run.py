import json
import queue
import re
import time
import types

import numpy as np
import pytest

import jaxsbi
from benchmarks import records, schedule
from benchmarks.__main__ import main
from benchmarks.clock import Clock, OutOfTime
from jaxsbi.interrupt import Interrupt

# The same draws are made up to three times, to time them: with one key, on purpose.
pytestmark = pytest.mark.key_reuse


def run(out, *more, methods="npe,emulator", tasks="two_moons"):
    options = ["--methods", methods, "--budgets", "200", "--observations", "1-2", "--quiet"]
    return main(["run", "--tasks", tasks, *options, "--out", str(out), *more])


def results(out):
    found = json.loads((out / records.RESULTS).read_text())
    return {(r["task"], r["method"], r["observation"]): r for r in found["records"]}


def scores(out):
    return {cell: record["c2st"] for cell, record in results(out).items()}


def test_run_and_resume(small, tmp_path, capsys):
    assert run(tmp_path) == 0
    first = scores(tmp_path)
    assert len(first) == 4
    assert len(small) == 2  # observations share a training
    journal = tmp_path / records.JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"kind": "end"' not in line]
    journal.write_text("".join(kept)[:-40])  # a kill in the middle of the last record
    small.clear()

    assert run(tmp_path) == 0
    assert [method.scale for method in small] == [0.5]  # only the unfinished one is trained again
    assert scores(tmp_path) == first
    small.clear()

    assert run(tmp_path) == 0
    assert not small
    assert "two_moons" in capsys.readouterr().out


def test_what_a_record_holds(small, tmp_path):
    run(tmp_path)
    record = results(tmp_path)["two_moons", "npe", 1]
    assert record["status"] == "done"
    assert record["configuration"]["fit"] == {"max_epochs": 2, "patience": 2}
    assert record["c2st_metric"] == "jax"
    assert set(record["train_seconds"]) == set(record["sample_seconds"]) == {"compile", "run"}
    assert record["simulate_seconds"] > 0
    assert record["num_simulations"] == [180, 20]
    assert record["epochs"] == 2
    assert {"jax", "numpyro", "python"} <= set(record["versions"])
    assert record["draws"] == 200
    assert records.load_draws(tmp_path, record).shape == (200, 2)


def test_more_observations_and_tasks_extend_a_run(small, tmp_path):
    run(tmp_path)
    before = scores(tmp_path)
    run(tmp_path, "--observations", "1-3", tasks="two_moons,gaussian_mixture")
    after = scores(tmp_path)
    assert len(after) == 12
    assert {cell: after[cell] for cell in before} == before


def test_a_failing_method_keeps_its_rows(small, tmp_path, capsys):
    assert run(tmp_path, methods="broken,npe") == 0
    found = results(tmp_path)
    assert found["two_moons", "npe", 2]["status"] == "done"
    assert found["two_moons", "broken", 1]["status"] == "failed"
    assert found["two_moons", "broken", 2]["error"] == "RuntimeError: this method never works"
    captured = capsys.readouterr()
    assert re.search(r"^two_moons .*failed", captured.out, re.MULTILINE)
    assert "this method never works" in (tmp_path / "report.html").read_text()


def test_draws_that_are_not_finite_are_a_failure(small, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "benchmarks.run._timed", lambda *_: (({"theta": np.full((5, 2), np.nan)}, None), 0.0)
    )
    run(tmp_path, methods="npe")
    assert "5 of 5 draws are NaN" in results(tmp_path)["two_moons", "npe", 1]["error"]


@pytest.mark.parametrize("how", ["raise", "partial"])
def test_interrupt_keeps_what_there_is(small, tmp_path, monkeypatch, how):
    original = jaxsbi.fit

    def interrupted(key, method, *arguments, **options):
        if method.scale == 1.0:
            return original(key, method, *arguments, **options)
        if how == "raise":
            raise KeyboardInterrupt
        # What fit does after one Ctrl-C: it returns what there is.
        monkeypatch.setattr(Interrupt, "seen", True, raising=False)
        monkeypatch.setattr(Interrupt, "__init__", lambda self: setattr(self, "_previous", None))
        return original(key, method, *arguments, **options)

    monkeypatch.setattr(jaxsbi, "fit", interrupted)
    assert run(tmp_path) == 130
    found = results(tmp_path)
    assert found["two_moons", "npe", 2]["status"] == "done"
    assert found["two_moons", "emulator", 1]["status"] == "not run"
    assert found["two_moons", "emulator", 1]["error"] == "the run was interrupted"
    assert "not run" in (tmp_path / "report.html").read_text()


def test_time_limit_marks_the_rest(small, tmp_path, capsys):
    assert run(tmp_path, "--max-minutes", "1e-9") == 0
    assert {record["status"] for record in results(tmp_path).values()} == {"not run"}
    assert "[not run]" in capsys.readouterr().out
    assert not small


def test_alarm_ends_work_in_progress():
    begin = time.monotonic()

    def work():
        with Clock(time.time() + 0.2).alarm():
            while time.monotonic() < begin + 20:
                pass

    with pytest.raises(OutOfTime):
        work()
    assert time.monotonic() < begin + 10
    Clock().check()


def test_the_report_needs_nothing_else(real_figures, tmp_path):
    run(tmp_path)
    text = (tmp_path / "report.html").read_text()
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]{0,30})', text)
    assert len(sources) >= 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"<script|<link|@import|url\(", text)
    assert "could not be drawn" not in text
    assert (tmp_path / "figures" / "crossover.png").is_file()
    (tmp_path / "report.html").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").is_file()


def test_a_figure_that_fails_does_not_take_the_report_along(real_figures, tmp_path, monkeypatch):
    run(tmp_path, methods="npe")

    def fails(*_):
        raise RuntimeError("no pen")

    monkeypatch.setattr("benchmarks.figures.wall_time", fails)
    with pytest.warns(UserWarning, match="no pen"):
        main(["report", str(tmp_path)])
    text = (tmp_path / "report.html").read_text()
    assert "wall_time could not be drawn: RuntimeError: no pen" in text


class Worker:
    """A process that has ended."""

    def __init__(self, exitcode=0):
        self.exitcode = exitcode

    def is_alive(self):
        return False


@pytest.mark.parametrize(
    ("words", "exitcodes", "error"),
    [
        (["finished", "finished"], [0, 0], None),
        (["finished", "out of time"], [0, 0], OutOfTime),
        (["interrupted", "out of time"], [0, 0], KeyboardInterrupt),
        (["finished"], [0, -9], schedule.WorkerDiedError),
    ],
)
def test_how_workers_end(words, exitcodes, error, monkeypatch):
    done = queue.Queue()
    for number, word in enumerate(words):
        done.put((number, {"a": number}))
        done.put((number, word))
    quick = types.SimpleNamespace(get=lambda timeout: done.get(timeout=0.01))
    workers = [Worker(code) for code in exitcodes]
    found = []

    def collect():
        for record in schedule._collect(workers, quick, Clock()):
            found.append(record)

    if error is None:
        collect()
    else:
        with pytest.raises(error):
            collect()
    assert len(found) == len(words)
