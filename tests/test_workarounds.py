"""Faults of the libraries below that jaxsbi switches off."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsbi import workarounds
from jaxsbi.base import configuration

AFFECTED = workarounds.YNN_VERSIONS[0] <= jax.__version_info__ < workarounds.YNN_VERSIONS[1]


@pytest.mark.parametrize("n", [1_000, 40_000, 200_000])
def test_sums_over_large_batches_are_right(n):
    # github.com/jax-ml/jax/issues/39103: wrong from 32,769 rows on, without an error.
    row = jnp.stack([jnp.arange(n, dtype=jnp.float32), jnp.zeros(n), jnp.zeros(n)], axis=1)
    total = jax.jit(jax.vmap(lambda r: jnp.sum((jnp.eye(3) @ r) ** 2)))(row)
    np.testing.assert_allclose(total, np.arange(n, dtype=np.float64) ** 2, rtol=1e-6)


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_importing_jaxsbi_after_its_dependencies_is_in_time():
    imports = "import jax, jax.numpy as jnp, numpyro.distributions as dist, flax, optax\n"
    done = _run(
        f"{imports}import warnings; warnings.simplefilter('error', UserWarning); import jaxsbi"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not AFFECTED, reason="this JAX needs no flag")
def test_importing_jaxsbi_too_late_warns_and_says_what_to_do():
    # Without the flag that this process has put into its environment.
    before = "import os; os.environ.pop('XLA_FLAGS', None); import jax; jax.numpy.zeros(1) + 1\n"
    done = _run(f"{before}import jaxsbi")
    assert "UserWarning" in done.stderr
    assert "Import jaxsbi before the first JAX computation" in done.stderr


def test_a_flag_of_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{workarounds.YNN_FLAG}=dot")
    workarounds.disable_ynn_fusion()
    assert workarounds.os.environ["XLA_FLAGS"] == f"{workarounds.YNN_FLAG}=dot"


def test_configurations_of_different_classes_never_share_a_program():
    # With jax.tree_util.register_dataclass some 60 of these 400 run the program of another.
    made = [configuration(type(f"Is{i}", (), {"number": i, "__annotations__": {}}))() for i in
            range(400)]  # fmt: skip
    assert jax.tree.structure(made[0]) != jax.tree.structure(made[1])
    number = jax.jit(lambda each: jnp.int32(each.number))
    np.testing.assert_array_equal([number(each) for each in made], np.arange(400))


def test_a_registered_dataclass_is_a_pytree_with_named_leaves():
    @workarounds.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Pair:
        kind: str = dataclasses.field(metadata={"static": True})
        value: float

    pair = Pair("a", 2.0)
    ((path, value),) = jax.tree_util.tree_leaves_with_path(pair)
    assert (jax.tree_util.keystr(path), value) == (".value", 2.0)
    assert jax.tree.map(lambda a: 3 * a, pair) == Pair("a", 6.0)
    assert jax.tree.structure(pair) == jax.tree.structure(Pair("a", 5.0))
    assert jax.tree.structure(pair) != jax.tree.structure(Pair("b", 2.0))
