import json
import math

import numpy as np
import pytest

import jaxsbi
from benchmarks import configs, environment, plan, records, summary
from benchmarks.plan import Cell

CELL = Cell("two_moons", "npe", "abc", 100, 1, 0)


def record(status="done", cell=CELL, **values):
    scores = (
        {"c2st": 0.6, "c2st_all": {"jax": 0.6}, "c2st_draws": 200}
        if status == "done"
        else {"error": "no"}
    )
    return {**cell._asdict(), "status": status, **scores, **values}


def test_a_line_cut_short_is_left_out_and_swallows_nothing(tmp_path):
    records.append(tmp_path, "record", record(c2st=0.51))
    journal = tmp_path / records.JOURNAL
    with open(journal, "a") as file:
        file.write('{"kind": "record", "task": "slc')
    second = record(cell=CELL._replace(observation=2))
    records.append(tmp_path, "record", second)
    found = records.latest(records.read(tmp_path))
    assert [cell.observation for cell in found] == [1, 2]
    assert found[CELL]["c2st"] == 0.51


def test_a_finished_record_is_not_undone(tmp_path):
    for status in ("failed", "done", "failed"):
        records.append(tmp_path, "record", record(status))
    assert records.latest(records.read(tmp_path))[CELL]["status"] == "done"


def test_scores_of_both_metrics_are_kept(tmp_path):
    records.append(tmp_path, "record", record())
    assert records.is_finished(record(), "jax", 200)
    assert not records.is_finished(record(), "jax", 201)
    assert not records.is_finished(record(), "both", 200)
    records.append(tmp_path, "record", record(c2st_all={"standard": 0.61}))
    found = records.latest(records.read(tmp_path))[CELL]
    assert found["c2st_all"] == {"jax": 0.6, "standard": 0.61}
    assert records.is_finished(found, "both", 200)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    records.write_atomically(path, b"old")

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(records.os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        records.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_json_has_no_nan(tmp_path):
    records.append(tmp_path, "record", record(info={"r_hat_max": math.inf, "n": np.float32(2)}))
    (line,) = records.read(tmp_path)
    assert line["info"] == {"r_hat_max": None, "n": 2.0}


def test_draws_round_trip(tmp_path):
    draws = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    name = records.save_draws(tmp_path, CELL, draws)
    np.testing.assert_array_equal(records.load_draws(tmp_path, {"draws_file": name}), draws)
    assert records.load_draws(tmp_path, {"draws_file": "draws/none.npz"}) is None
    assert records.load_draws(tmp_path, {}) is None


def test_configurations_are_readable_and_told_apart():
    config = configs.describe(jaxsbi.nle())
    assert json.loads(json.dumps(config)) == config
    assert config["sampler"]["type"] == "SMC"
    assert "parent" not in config["density"]
    assert configs.fingerprint(config) == configs.fingerprint(configs.describe(jaxsbi.nle()))
    other = configs.describe(jaxsbi.nle(sampler=jaxsbi.samplers.smc(moves=20)))
    assert configs.fingerprint(config) != configs.fingerprint(other)


def test_arrays_in_a_configuration_count():
    one, two = (
        configs.describe(jaxsbi.emulator(noise=jaxsbi.noise.gaussian(np.full(2, scale))))
        for scale in (1.0, 2.0)
    )
    assert one["noise"]["cholesky"]["array"] == [2]
    assert configs.fingerprint(one) != configs.fingerprint(two)


def test_a_plan_survives_json():
    made = plan.make(["slcp"], ["npe"], (100, 200), (1, 2), (0, 3), "both")
    again = plan.Plan.from_json(json.loads(json.dumps(made.to_json())))
    assert list(again.all_cells()) == list(made.all_cells())
    assert len(list(made.all_cells())) == 8


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ((10.0, 0.1, 2.0, 5.0), 2),  # 10.2 < 12 at N = 2, but 10.1 > 7 at N = 1
        ((10.0, 0.0, 0.0, 5.0), 3),  # at N = 2 they are equal: not cheaper yet
        ((1.0, 0.1, 2.0, 5.0), 1),
        ((1.0, 6.0, 7.0, 5.0), 1),  # cheaper at once, though not for ever
        ((9.0, 6.0, 7.0, 5.0), None),
        ((9.0, 5.0, 7.0, 5.0), None),
    ],
)
def test_first_cheaper(costs, expected):
    assert summary.first_cheaper(*costs) == expected


def test_published_numbers_are_those_of_the_paper():
    published = summary.published()
    assert published["two_moons", "npe", 10_000] == pytest.approx(0.606, abs=5e-4)
    assert len(published) == 10 * 5 * 3  # NPE, NLE, NRE, and two kinds of ABC
    assert {task for task, _, _ in published} == set(configs.task_names())


def test_a_report_is_written_with_what_it_was_made_with(tmp_path):
    environment.write(tmp_path / "report.json", {"rows": [{"test": "width × 2"}]})
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "width × 2" in text
    assert json.loads(text)["environment"] == environment.environment()
