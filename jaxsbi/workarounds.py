"""What must be switched off in the libraries below, until they are mended."""

from __future__ import annotations

import os
import sys
import warnings

import jax

YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
YNN_VERSIONS = ((0, 10, 2), (0, 12))


def disable_ynn_fusion() -> None:
    """Keep JAX 0.10.2 and 0.11 on CPUs from computing wrong sums.

    Their CPU compiler hands sums over more than about a million products to a library that returns
    wrong numbers without an error (https://github.com/jax-ml/jax/issues/39103): the densities of
    a large batch, for example. The flag is read when JAX starts its first computation, so jaxsbi
    sets it when it is imported, unless the user has set it. It also makes such sums faster
    (https://github.com/jax-ml/jax/issues/37465).

    Warns:
        UserWarning: If JAX has computed something before, so that the flag comes too late.
    """
    lowest, beyond = YNN_VERSIONS
    flags = os.environ.get("XLA_FLAGS", "")
    if not lowest <= jax.__version_info__ < beyond or YNN_FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {YNN_FLAG}=".strip()
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", lambda: False)
    if started() and jax.default_backend() == "cpu":
        warnings.warn(
            f"JAX {jax.__version__} computes wrong sums over large batches on CPUs "
            "(github.com/jax-ml/jax/issues/39103), and had started before jaxsbi could prevent it. "
            "Import jaxsbi before the first JAX computation, or set "
            f'os.environ["XLA_FLAGS"] = "{YNN_FLAG}=" at the top of the program.',
            UserWarning,
            stacklevel=3,
        )
