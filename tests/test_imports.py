"""What `import jaxsbi` brings with it, and what it leaves for later."""

import subprocess
import sys

import jaxsbi

LATER = (
    "matplotlib",
    "corner",
    "sklearn",
    "pandas",
    "diffrax",
    "arviz",
    "scipy.stats",
    "zarr",
    "dask",
    "h5py",
)
PROGRAM = """
import sys
import distrax, flax.linen, jax, numpyro.distributions, numpyro.infer.hmc, optax, tqdm
before = set(sys.modules)
import jaxsbi
print(*(name for name in {later!r} if name in set(sys.modules) - before))
"""


def test_optional_and_slow_packages_are_imported_when_needed():
    program = PROGRAM.format(later=LATER)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().split() == []


def test_every_public_name_exists_and_is_documented():
    for name in jaxsbi.__all__:
        assert getattr(jaxsbi, name).__doc__, name
