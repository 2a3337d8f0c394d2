"""Strict settings for every test, a shared compilation cache, and the fixtures all tests may use.

Every test runs with JAX's key-reuse checker on and with implicit rank promotion an error.
Third-party code that cannot bear this is let off by a marker, `@pytest.mark.key_reuse` or
`@pytest.mark.rank_promotion`. Docstring examples run with a user's settings.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

# Read when JAX and matplotlib are imported; through the environment, subprocesses share them.
_CACHE = os.environ.get("JAXSBI_CACHE") or Path(
    os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "jaxsbi"
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(_CACHE).expanduser() / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of the suite's time is compilation: CPU code is generated as `fit` and `sample` ask for it
# (`jaxsbi.base.CPU_OPTIONS`), in whatever program a test jits.
_FLAGS = "--xla_backend_optimization_level=1"
if tuple(map(int, version("jax").split(".")[:2])) < (0, 11):  # later ones have one generator
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402
import pytest  # noqa: E402


class StrictSettings:
    """A plugin that holds the settings around a whole test, fixtures of every scope included."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with ExitStack() as settings:
            if not isinstance(item, pytest.DoctestItem):
                if item.get_closest_marker("key_reuse") is None:
                    settings.enter_context(jax.debug_key_reuse(True))
                if item.get_closest_marker("rank_promotion") is None:
                    settings.enter_context(jax.numpy_rank_promotion("raise"))
            return (yield)


def pytest_configure(config: pytest.Config) -> None:
    # Registered here, the plugin also sees the doctests, which lie outside this folder.
    config.pluginmanager.register(StrictSettings(), "jaxsbi-strict-settings")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and jax.default_backend() != "gpu":
        pytest.skip(f"needs a GPU; JAX runs on {jax.default_backend()}")


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    # Each compiled program holds memory maps, and Linux grants a process 65,530 of them: without
    # this, the suite ends in a segmentation fault inside the compiler.
    if nextitem is None or nextitem.path != item.path:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key() -> jax.Array:
    """Return a typed key, the same one for every test."""
    return jax.random.key(0)
