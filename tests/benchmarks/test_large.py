"""The large run, in small: killed in every stage, it learns the same to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder, kills):
    command = [
        *(sys.executable, "-m", "benchmarks.large", "--n", "16384", "--chunk", "1024"),
        *("--method", "small", "--batch", "64", "--epochs", "30"),  # long enough to be killed in
        *("--every", "0.05", "--kills", str(kills), "--folder", str(folder)),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_killed_three_times(tmp_path):
    pytest.importorskip("zarr")
    killed, plain = run(tmp_path / "killed", 3), run(tmp_path / "plain", 0)
    assert [k["stage"] for k in killed["kills"]] == ["simulate", "fit", "rank"]
    assert killed["draws"] == plain["draws"] == 16_384
    assert killed["sha256"] == plain["sha256"]
    assert killed["peak_mib"] < 4096
