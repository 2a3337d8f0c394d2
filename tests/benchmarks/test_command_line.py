import re
import sys
import types

import pytest

from benchmarks import configs, plan
from benchmarks.__main__ import _parser, main


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000,10000", (1000, 10000)),
        ("1-4", (1, 2, 3, 4)),
        ("1-2, 7,2", (1, 2, 7)),
        ("1e4,10_000", (10_000,)),
    ],
)
def test_numbers(text, expected):
    assert plan.numbers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "3-1", "1.5", "1-", ","])
def test_numbers_refuses(text):
    with pytest.raises(ValueError, match="expected"):
        plan.numbers(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "two_suns"], "unknown task 'two_suns'.*two_moons, slcp"),
        (["--methods", "npx"], "unknown method 'npx'.*npe, nle, nre, emulator"),
        (["--observations", "0-3"], "--observations: expected numbers from 1 to 10, got 0"),
        (["--observations", "x"], "--observations: expected numbers"),
        (["--budgets", "3"], "--budgets: expected at least 10"),
        (["--metric", "mmd"], "--metric: expected one of jax, standard, both"),
    ],
)
def test_wrong_options_say_what_is_known(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", *arguments, "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_report_of_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["report", str(tmp_path)])
    assert caught.value.code == 2
    assert "found no records.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False])
def test_options_before_and_after_the_command(before):
    option = ["--out", "here", "--max-minutes", "3"]
    arguments = [*option, "run"] if before else ["run", *option]
    options = _parser().parse_args(arguments)
    assert str(options.out) == "here"
    assert options.max_minutes == 3.0


def test_list(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in (*configs.task_names(), *configs.METHODS):
        assert f"  {name}" in text
    assert '"type": "SplineCoupling"' in text


def test_peers_gets_its_own_arguments(monkeypatch):
    seen = []
    module = types.ModuleType("benchmarks.peers")
    module.main = seen.append
    monkeypatch.setitem(sys.modules, "benchmarks.peers", module)
    assert main(["peers", "--help", "-x"]) == 0
    assert seen == [["--help", "-x"]]
