"""What can go wrong with files, and what becomes of it.

fault                         outcome                                         test
a worker is killed            the draw is tried again with its seed           external/test_dask
wrong dtype from a worker     the draw is invalid, and recorded               store/test_external
two writers                   they share the work                             store/test_store
a killed writer               its unfinished chunk is made again              store/test_store
a truncated or changed chunk  an error names the file; `fill` makes it again  store/test_store
a store of another version    an error says which, and what to do             here
a full disk                   an error; what was written before is whole      here
a read-only folder            it is read; an error before hours of work       here
an unwritable cache           no harm                                         here
"""

import contextlib
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxsbi
from jaxsbi import checkpoint

PRIOR = jaxsbi.Prior(theta=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
METHOD = jaxsbi.npe(density=jaxsbi.densities.Gaussian(hidden=8))


def simulator(key, theta):
    return theta["theta"] + 0.5 * jax.random.normal(key, (2,))


SIMULATIONS = jaxsbi.simulate(jax.random.key(0), PRIOR, simulator, 200, progress=False)


def fit(**options):
    options = {"max_epochs": 2, "progress": False, **options}
    return jaxsbi.fit(jax.random.key(1), METHOD, PRIOR, SIMULATIONS, **options)


def make(path):
    return jaxsbi.Store.create(path, jax.random.key(3), PRIOR, chunk=16)


class Disk:
    """A file system of one megabyte."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        done = self._mount("size=1m")
        if done.returncode:
            pytest.skip(f"needs the right to mount: {done.stderr.strip()}")

    def _mount(self, options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs the command mount")

    def again(self, options):
        """Change the file system."""
        assert self._mount(f"remount,{options}").returncode == 0

    def filled(self):
        """Leave no byte free; return what takes the room."""
        ballast = self.path / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", 0) as file:
            while file.write(b"0" * 4096):
                pass
        return ballast


@pytest.fixture
def disk(tmp_path):
    found = Disk(tmp_path / "disk")
    yield found
    subprocess.run(["umount", "--lazy", str(found.path)], check=True)


def full(error):
    return error.value.errno == errno.ENOSPC


def test_a_store_on_a_full_disk(disk, tmp_path):
    pytest.importorskip("zarr")
    store = make(disk.path / "store")
    with pytest.raises(OSError, match="No space") as error:
        store.fill(simulator, 16 * 60, progress=False)
    assert full(error)
    store = jaxsbi.Store.open(store.path)
    n = len(store)
    assert 16 <= n < 16 * 60
    whole = make(tmp_path / "whole")
    whole.fill(simulator, 16 * 60, progress=False)
    np.testing.assert_array_equal(store.simulations().x, whole.simulations(slice(n)).x)
    disk.again("size=64m")
    store.fill(simulator, 16 * 60, progress=False)
    np.testing.assert_array_equal(store.simulations().x, whole.simulations().x)


def test_a_checkpoint_on_a_full_disk(disk, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    folder = disk.path / "run"
    before = fit(checkpoint=folder, max_epochs=1)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    ballast = disk.filled()
    with pytest.raises(OSError, match="No space") as error:
        checkpoint.write(file, {}, {"a": np.zeros(1000)}, {})
    assert full(error)
    assert list(folder.iterdir()) == [file]
    assert file.read_bytes() == content
    with pytest.raises(OSError, match=r"checkpoint .*: expected a folder that can be written to"):
        fit(checkpoint=disk.path / "other")
    again = fit(checkpoint=folder, max_epochs=1)  # after its end, a run needs to write nothing
    jax.tree.map(np.testing.assert_array_equal, again.posterior, before.posterior)
    ballast.unlink()
    fit(checkpoint=disk.path / "other")


def test_saving_on_a_full_disk(disk):
    first = fit(max_epochs=1)
    jaxsbi.save(disk.path / "run", first)
    disk.filled()
    with pytest.raises(OSError, match="No space"):
        jaxsbi.save(disk.path / "run", fit())
    loaded = jaxsbi.load(disk.path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.posterior, first.posterior)


def test_a_read_only_folder(disk):
    pytest.importorskip("zarr")
    store = make(disk.path / "store")
    store.fill(simulator, 32, progress=False)
    fitted = fit(checkpoint=disk.path / "run")
    jaxsbi.save(disk.path / "saved", fitted)
    disk.again("ro")
    assert jaxsbi.Store.open(store.path).simulations().num_valid == 32
    assert fit(checkpoint=disk.path / "run").history.epochs == 2
    assert jaxsbi.load(disk.path / "saved").history.epochs == 2
    store.fill(simulator, 32, progress=False)  # nothing is missing
    with pytest.raises(PermissionError, match="can be read; to add draws, copy it"):
        store.fill(simulator, 48, progress=False)
    with pytest.raises(OSError, match=r"checkpoint .*: expected a folder that can be written to"):
        fit(checkpoint=disk.path / "other")
    with pytest.raises(OSError, match=r"[Rr]ead-only"):
        jaxsbi.save(disk.path / "saved", fitted)


@pytest.mark.parametrize("version", ["0", "2"])
def test_a_store_of_another_version(version, tmp_path):
    pytest.importorskip("zarr")
    store = make(tmp_path / "store")
    path = store.zarr / "zarr.json"
    text = path.read_text()
    path.write_text(re.sub(r'("version": \[\s*)1', rf"\g<1>{version}", text))
    hint = "Upgrade jaxsbi" if version == "2" else "the version of jaxsbi that made it"
    with pytest.raises(ValueError, match=rf"expected format 'jaxsbi store' 1.*{hint}"):
        jaxsbi.Store.open(store.path)


def test_an_unwritable_compilation_cache(disk):
    disk.again("ro")
    code = "from tests import test_faults; print(test_faults.fit().history.epochs)"
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(disk.path / "cache"),
        "PYTHONPATH": str(root),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["2"], done.stderr
