"""What tests of rounds count."""

import pytest

from jaxsbi import loop
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
