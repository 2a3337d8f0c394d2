"""The loader of observations and reference posteriors: where it looks, what it refuses."""

import bz2
import hashlib
import subprocess
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi import tasks
from jaxsbi.tasks import references
from jaxsbi.tasks.references import WHEEL, cache_directory, find_wheel


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch, request):
    if "published" not in request.fixturenames:
        monkeypatch.delenv("JAXSBI_SBIBM_WHEEL", raising=False)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Make a small wheel with one observation of sir, and accept its hash."""
    path = tmp_path / "given" / WHEEL
    path.parent.mkdir()
    base = "sbibm/tasks/sir/files/num_observation_3"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{base}/observation.csv", "a,b,c\n0.0,1.0,352.0\n")
        archive.writestr(f"{base}/true_parameters.csv", "$\\beta$,$\\gamma$\n0.61,0.19\n")
        rows = b"$\\beta$,$\\gamma$\n0.62,0.16\n0.63,0.18\n0.64,1e-3\n"
        archive.writestr(f"{base}/reference_posterior_samples.csv.bz2", bz2.compress(rows))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(references, "SHA256", digest)
    return path


@pytest.fixture(scope="session")
def published():
    """Return the published wheel, from the environment, the cache or the network."""
    try:
        return find_wheel()
    except RuntimeError as error:
        pytest.skip(f"needs the published wheel: {error}")


def _refuse_network(*args, **kwargs):
    raise AssertionError("nothing may be downloaded here")


def test_reads_a_wheel_the_user_gives(fake, monkeypatch):
    monkeypatch.setattr(subprocess, "run", _refuse_network)
    found = tasks.reference("sir", 3, wheel=fake)
    np.testing.assert_array_equal(found.x, np.float32([0, 1, 352]))
    np.testing.assert_array_equal(found.theta_true, np.float32([0.61, 0.19]))
    assert found.posterior_samples.shape == (3, 2)
    assert found.posterior_samples.dtype == np.float32
    assert (found.task, found.observation) == ("sir", 3)
    assert find_wheel(fake.parent) == fake
    monkeypatch.setenv("JAXSBI_SBIBM_WHEEL", str(fake))
    assert find_wheel() == fake


def test_unknown_task_and_observation(fake):
    with pytest.raises(ValueError, match=r"task: expected one of two_moons, .*got 'sirs'"):
        tasks.reference("sirs", 1, wheel=fake)
    for bad in (0, 11, 1.0, True, "1"):
        with pytest.raises(ValueError, match=r"observation: expected an integer from 1 to 10, got"):
            tasks.reference("sir", bad, wheel=fake)


def test_a_damaged_wheel_is_refused_wherever_it_is(fake, tmp_path, monkeypatch):
    damaged = tmp_path / WHEEL
    damaged.write_bytes(fake.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"expected .* SHA-256 .*, got .*damaged or another"):
        find_wheel(damaged)
    monkeypatch.setenv("JAXSBI_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"delete it to have it downloaded again"):
        find_wheel()
    # The same path with the right content is hashed anew.
    damaged.write_bytes(fake.read_bytes())
    assert find_wheel() == damaged


def test_missing_path_says_where_it_came_from(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"from the argument"):
        find_wheel(tmp_path / "no.whl")
    monkeypatch.setenv("JAXSBI_SBIBM_WHEEL", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"from the environment variable"):
        find_wheel()


def test_offline_error_says_what_was_tried_and_what_to_do(tmp_path, monkeypatch):
    def offline(command, **kwargs):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no network")

    monkeypatch.setenv("JAXSBI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", offline)
    expected = r"JAXSBI_SBIBM_WHEEL \(not set\).*no such file.*pip download.*ERROR: no network"
    with pytest.raises(RuntimeError, match=expected):
        tasks.reference("sir", 1)

    def hang(command, timeout, **kwargs):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(RuntimeError, match=r"timed out.*set JAXSBI_SBIBM_WHEEL"):
        tasks.reference("sir", 1)
    assert list((tmp_path / "cache").iterdir()) == []


def test_download_appears_complete_or_not_at_all(fake, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    content = fake.read_bytes()

    def download(command, **kwargs):
        assert command[1:4] == ["-m", "pip", "download"]
        assert {"--no-deps", "--only-binary=:all:", "sbibm==1.1.0"} <= set(command)
        assert not (cache / WHEEL).exists()
        (Path(command[command.index("--dest") + 1]) / WHEEL).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("JAXSBI_CACHE", str(cache))
    monkeypatch.setattr(subprocess, "run", download)
    content = content[:-1]
    with pytest.raises(ValueError, match="SHA-256"):
        find_wheel()
    assert list(cache.iterdir()) == []

    content = fake.read_bytes()
    assert tasks.reference("sir", 3).posterior_samples.shape == (3, 2)
    assert [path.name for path in cache.iterdir()] == [WHEEL]
    monkeypatch.setattr(subprocess, "run", _refuse_network)
    assert find_wheel() == cache / WHEEL


def test_cache_directory_of_each_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXSBI_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    for platform, expected in {
        "linux": ".cache/jaxsbi",
        "darwin": "Library/Caches/jaxsbi",
        "win32": "AppData/Local/jaxsbi",
    }.items():
        monkeypatch.setattr(references.sys, "platform", platform)
        assert cache_directory() == tmp_path / expected
    monkeypatch.setattr(references.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "jaxsbi"
    monkeypatch.setenv("JAXSBI_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"


@pytest.mark.parametrize("name", tasks.NAMES)
def test_published_references_fit_the_task(name, published):
    """Shapes, the prior's support, and a likelihood that peaks where the reference is."""
    task, found = tasks.get(name), tasks.reference(name, 2, wheel=published)
    assert found.x.shape == task.x_shape
    assert found.theta_true.shape == (task.dim,)
    assert found.posterior_samples.shape == (10_000, task.dim)
    rows = jnp.asarray(np.vstack([found.theta_true[None], found.posterior_samples[:200]]))
    score = jax.jit(
        jax.vmap(
            lambda row, x: (
                task.log_likelihood(task.unflatten(row), x),
                task.prior.log_prob(task.unflatten(row)),
            ),
            (0, None),
        )
    )
    shuffled = jax.random.permutation(jax.random.key(0), rows, axis=0, independent=True)
    (truth, *here), prior = score(rows, jnp.asarray(found.x))
    assert jnp.isfinite(prior).all()
    assert np.isfinite(here).all()
    # The truth is as likely as a posterior draw: log-ratios are of the order of the dimension.
    assert abs(truth - np.median(here)) < 5 + task.dim
    # Draws that exchanged their coordinates with one another's are not more likely on average.
    assert score(shuffled, jnp.asarray(found.x))[0].mean() < np.mean(here) + 0.5


def test_variants_share_observations(published):
    """The hidden entries are slcp's, and the spikes' products are the statistics, as published."""
    from jaxsbi.tasks.bernoulli_glm import _design
    from jaxsbi.tasks.slcp import _distractors

    plain = tasks.reference("slcp", 1, wheel=published)
    hidden = tasks.reference("slcp_distractors", 1, wheel=published)
    np.testing.assert_array_equal(hidden.x[np.argsort(_distractors()[2])[:8]], plain.x.ravel())
    np.testing.assert_array_equal(hidden.posterior_samples, plain.posterior_samples)

    statistics = tasks.reference("bernoulli_glm", 1, wheel=published)
    spikes = tasks.reference("bernoulli_glm_raw", 1, wheel=published)
    np.testing.assert_allclose(spikes.x @ _design(), statistics.x, atol=1e-4)


def test_regenerated_constants_are_the_published_ones(published):
    """The bytes of the tensors in the wheel's files, found without unpickling anything."""
    from jaxsbi.tasks.bernoulli_glm import _design
    from jaxsbi.tasks.slcp import _distractors

    with zipfile.ZipFile(published) as archive:
        files = "sbibm/tasks/bernoulli_glm/files/design_matrix.pt"
        assert _design().tobytes() in archive.read(files)
        files = "sbibm/tasks/slcp/files/permutation_idx.torch"
        assert _distractors()[2].astype(np.int64).tobytes() in archive.read(files)
        mixture = archive.read("sbibm/tasks/slcp/files/gmm.torch")
    loc, factors, _ = _distractors()
    # Each tensor is its length (int64) and its values; the factors are the file's last.
    for values, start in ((factors, len(mixture) - 8 * factors.size), (loc, None)):
        head = np.int64(values.size).tobytes()
        begin = mixture.index(head) + 8 if start is None else start
        stored = np.frombuffer(mixture, "<f8", values.size, begin)
        np.testing.assert_array_equal(stored.astype(np.float32), values.ravel())
