"""The machine, the versions and the compilation cache: what a timing depends on."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "jaxsbi", "jax", "jaxlib", "flax", "optax", "distrax", "numpyro", "diffrax", "numpy",
    "scikit-learn",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
_hits = 0


@functools.cache
def environment() -> dict[str, Any]:
    """Return versions, device, cores and git commit of this process, as each record holds them."""
    device = jax.devices()[0]
    return {
        "versions": versions(),
        "device": processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "cores": cores(),
        "commit": commit(),
    }


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, with the environment that it was made in."""
    report = report | {"environment": environment()}
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "jaxsbi" not in found:  # run from a checkout that is not installed
        import jaxsbi

        found["jaxsbi"] = jaxsbi.__version__
    return found


def cores() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the name of the CPU."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_mib() -> int:
    """Return the most memory that this process has held so far: the accelerator's if there is one.

    On a CPU it is the resident memory: Python, the libraries and compiled programs included.
    """
    statistics = jax.devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return round(statistics["peak_bytes_in_use"] / 2**20)
    import resource  # not on Windows

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / (2**20 if sys.platform == "darwin" else 2**10))


def commit() -> str | None:
    """Return the git commit of this checkout, with "+changes" where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def use_compilation_cache(enabled: bool) -> None:
    """Keep compiled programs on disk between runs, or leave JAX's cache alone.

    A program found there makes "compile" seconds short; `cache_hits` lets each record say so.
    """
    if not enabled:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir is None:
        from jaxsbi.tasks.references import cache_directory

        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _count_hits()


@functools.cache
def _count_hits() -> None:
    def listen(event: str, **_: Any) -> None:
        global _hits
        _hits += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_listener(listen)


def cache_hits() -> int:
    """Return how many programs this process has taken from the cache on disk so far."""
    return _hits


def pin(worker: int, workers: int) -> None:
    """Give this process its own share of the cores, so that timings do not disturb one another.

    It must run before JAX starts its thread pool. Where the system cannot, nothing happens.
    """
    if not hasattr(os, "sched_setaffinity") or sys.platform != "linux":
        return
    available = sorted(os.sched_getaffinity(0))
    share = max(1, len(available) // workers)
    os.sched_setaffinity(0, available[worker * share : (worker + 1) * share] or available)
