"""What tests of rounds share: counting programs, and ending a run at a write to the disk."""

import itertools

import pytest

from jaxsbi import checkpoint, loop
from jaxsbi.base import CPU_OPTIONS, LONG_OPTIONS


@pytest.fixture(scope="session")
def compiled():
    """Return a function that counts the programs that run epochs."""

    def count() -> int:
        names = set(loop.PROGRAMS)
        if CPU_OPTIONS == LONG_OPTIONS:  # by JAX 0.11 two names of one program
            names -= {"cpu, long"}
        return sum(loop.PROGRAMS[name][1]._cache_size() for name in names)

    return count


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def killed(monkeypatch):
    """Return a function that runs another, and ends it at the given write to the disk."""
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    write = checkpoint.write

    def run(function, at):
        calls = itertools.count(1)

        def dying(*args):
            write(*args)
            if next(calls) == at:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write", dying)
            with pytest.raises(Killed):
                function()

    return run
