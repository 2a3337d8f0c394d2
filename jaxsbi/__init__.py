"""jaxsbi: simulation-based inference in JAX, by both roads, from simulator to posterior."""

from jaxsbi import (
    abc,
    base,
    densities,
    diagnostics,
    emulators,
    fields,
    methods,
    networks,
    noise,
    plots,
    priors,
    samplers,
    sequential,
    tasks,
    transforms,
)
from jaxsbi.base import Fitted, History, Method, Posterior, Simulations
from jaxsbi.comparison import compare
from jaxsbi.diagnostics import check
from jaxsbi.draws import Record
from jaxsbi.emulators import acquire, emulate, emulate_with_error, emulator_model
from jaxsbi.external import command, simulate_external
from jaxsbi.fit import fit
from jaxsbi.importance import importance
from jaxsbi.interop import to_arviz
from jaxsbi.marginals import marginals
from jaxsbi.methods import emulator, fmpe, joint, nle, npe, npse, nre
from jaxsbi.online import Signals, fit_online
from jaxsbi.priors import Prior
from jaxsbi.saving import load, save
from jaxsbi.simulate import simulate
from jaxsbi.store import Store
from jaxsbi.workarounds import disable_ynn_fusion

disable_ynn_fusion()

__version__ = "0.1.0"

__all__ = [
    "Fitted",
    "History",
    "Method",
    "Posterior",
    "Prior",
    "Record",
    "Signals",
    "Simulations",
    "Store",
    "abc",
    "acquire",
    "base",
    "check",
    "command",
    "compare",
    "densities",
    "diagnostics",
    "emulate",
    "emulate_with_error",
    "emulator",
    "emulator_model",
    "emulators",
    "fields",
    "fit",
    "fit_online",
    "fmpe",
    "importance",
    "joint",
    "load",
    "marginals",
    "methods",
    "networks",
    "nle",
    "noise",
    "npe",
    "npse",
    "nre",
    "plots",
    "priors",
    "samplers",
    "save",
    "sequential",
    "simulate",
    "simulate_external",
    "tasks",
    "to_arviz",
    "transforms",
]
