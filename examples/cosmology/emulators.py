"""Emulators of CAMB's spectra, and how wrong they are where they were not trained.

Run it: `python emulators.py`, after `python boltzmann.py`; it writes `emulators.png`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from boltzmann import TRAIN, WAVENUMBERS, campaign

import jaxsbi
from jaxsbi.base import Array, Data, Fitted, Key, Simulations

CMB = ("TT", "TE", "EE")
MATTER = ("linear", "nonlinear", "H0", "sigma8")
NEUTRINOS = 0.000645
"""Density Ω h² of 0.06 eV."""
PERCENTILES = (68.0, 95.0, 99.0)


def train(key: Key, simulations: Simulations, names: tuple[str, ...], **options: Any) -> Fitted:
    """Return an emulator of some of the outputs of CAMB."""
    positive = {name: "log" for name in names if name != "TE"}
    method = jaxsbi.emulator(
        network=jaxsbi.networks.MLP(256, 256),
        components=64 if names == CMB else 24,
        transform=positive,
        exact=True,
    )
    x = {name: simulations.x[name] for name in names}
    part = Simulations(simulations.theta, x, simulations.weight)
    return jaxsbi.fit(key, method, simulations.prior, part, **options)


def s8(h0: Array, sigma8: Array, theta: dict[str, Array]) -> dict[str, Array]:
    """Return the derived parameters `H0`, `omegam`, `sigma8` and `S8`."""
    omegam = (theta["ombh2"] + theta["omch2"] + NEUTRINOS) / (h0 / 100) ** 2
    return {"H0": h0, "omegam": omegam, "sigma8": sigma8, "S8": sigma8 * jnp.sqrt(omegam / 0.3)}
