"""Many devices, and many processes, learn what one does."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.device_programs import fit, online

ROOT = Path(__file__).resolve().parent.parent


def started(count, *arguments):
    """Start a program in a process of `count` devices."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}",
        "PYTHONPATH": f"{ROOT}",
    }
    command = [sys.executable, "-m", "tests.device_programs", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=ROOT, **pipes)


def ended(process):
    """Wait for a program; what it printed is shown where it failed."""
    try:
        text, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    print(text)
    return process.returncode == 0 and text.splitlines()[-1] == "fine"


@pytest.mark.slow
def test_eight_devices(tmp_path):
    assert ended(started(8, "devices", tmp_path))


@pytest.mark.slow
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    first, second = (started(2, "processes", tmp_path, i, port) for i in range(2))
    try:
        assert ended(first)
    finally:
        assert ended(second)


def mesh(*names):
    return Mesh(np.array(jax.devices()[:1]).reshape((1,) * len(names)), names)


def test_a_mesh_of_one_device_changes_nothing():
    plain, meshed = fit(max_epochs=2), fit(max_epochs=2, mesh=mesh("batch"))
    jax.tree.map(np.testing.assert_array_equal, meshed.posterior, plain.posterior)
    np.testing.assert_array_equal(meshed.history.train_loss, plain.history.train_loss)


@pytest.mark.parametrize("run", [fit, online])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (8, TypeError, r"expected jax.sharding.Mesh.*got int"),
        (mesh("data"), ValueError, r"axes named 'batch'.*or 'ensemble'.*got \('data',\)"),
        (mesh("batch", "model"), ValueError, r"got \('batch', 'model'\)"),
    ],
)
def test_bad_meshes(run, wrong, error, message):
    with pytest.raises(error, match=message):
        run(mesh=wrong)
