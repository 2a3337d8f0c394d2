"""Programs as simulators: a shell's, and a compiled one."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi

PRIOR = jaxsbi.Prior(mu=dist.Normal(0.0, 1.0), position=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
THETA = {"mu": np.float32(0.1), "position": np.array([1.5, -2.0], np.float32)}

SOURCE = Path(__file__).parents[2] / "examples" / "c_program" / "sim.c"


def test_names_are_replaced_and_floats_parsed():
    echo = jaxsbi.command(
        [sys.executable, "-c", "import sys; print(*sys.argv[1:])", "{seed}", "{mu}"]
    )
    np.testing.assert_array_equal(echo(7, THETA), [7.0, float(np.float32(0.1))])


def test_a_vector_has_commas_and_a_parser_may_do_anything():
    echo = jaxsbi.command(
        ["echo", "{position}"],
        parse=lambda text: {"p": np.array([float(v) for v in text.split(",")])},
    )
    np.testing.assert_array_equal(echo(0, THETA)["p"], [1.5, -2.0])


def test_a_command_can_be_pickled():
    again = pickle.loads(pickle.dumps(jaxsbi.command(["echo", "{seed}"])))
    np.testing.assert_array_equal(again(3, {}), [3.0])


def run(script, n=4, **options):
    with ThreadPoolExecutor(2) as threads:
        return jaxsbi.simulate_external(
            jax.random.key(0),
            PRIOR,
            jaxsbi.command(["sh", "-c", script, "sh", "{seed}", "{mu}"]),
            n,
            executor=threads,
            progress=False,
            **options,
        )


def test_an_exit_status_is_an_error_with_what_was_printed():
    with pytest.raises(ValueError, match=r"'error': 4.*sh: exit status 3\. no licence"):
        run("echo no licence >&2; exit 3")


def test_a_signal_is_a_crash():
    with pytest.raises(ValueError, match=r"'crashed': 4.*sh: ended by SIGSEGV"):
        run("kill -SEGV $$")


def test_what_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"FileNotFoundError.*no-such-program"):
        jaxsbi.simulate_external(
            jax.random.key(0), PRIOR, jaxsbi.command(["no-such-program"]), 2, workers=1
        )


@pytest.mark.parametrize("where", ["thread", "process"])
def test_a_program_that_hangs_is_killed_with_its_children(tmp_path, where):
    mark = tmp_path / "pids"
    hang = jaxsbi.command(["sh", "-c", f"sleep 50 & echo $! >> {mark}; wait", "{seed}"])
    began = time.monotonic()
    with ThreadPoolExecutor(2) as threads, pytest.raises(ValueError, match="'timeout': 2"):
        jaxsbi.simulate_external(
            jax.random.key(0),
            PRIOR,
            hang,
            2,
            executor=threads if where == "thread" else None,
            workers=2,
            timeout=2.0,
            progress=False,
        )
    assert time.monotonic() - began < 30
    pids = [int(pid) for pid in mark.read_text().split()]
    while any(map(_runs, pids)):
        time.sleep(0.05)
        assert time.monotonic() - began < 40


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie without a reaper has ended too
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_c_program(tmp_path):
    program = tmp_path / "sim"
    subprocess.run(["cc", "-O1", "-o", program, SOURCE, "-lm"], check=True)
    function = jaxsbi.command([str(program), "--seed", "{seed}", "--mu", "{mu}"])
    with pytest.warns(UserWarning, match="ended by SIGABRT"):
        simulations, record = jaxsbi.simulate_external(
            jax.random.key(0), PRIOR, function, 200, workers=2, progress=False
        )
    crashed = np.asarray(simulations.theta["mu"]) < -1.0
    np.testing.assert_array_equal(record.status, np.where(crashed, "crashed", "ok"))
    residual = np.asarray(simulations.x - simulations.theta["mu"][:, None])[~crashed]
    # About 170 × 4 standard normal numbers: standard errors 0.04 and 0.03.
    assert abs(residual.mean()) < 0.16
    assert abs(residual.std() - 1.0) < 0.11


def test_a_single_string_is_refused():
    with pytest.raises(TypeError, match="as a list of strings"):
        jaxsbi.command("./sim --seed {seed}")
