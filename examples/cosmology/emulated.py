"""Planck's likelihood with an emulator in CAMB's place: sampled by NUTS, and checked against CAMB.

An emulator predicts the 618 data of unit variance (`planck.py`), and the roots of EE at low ℓ
(`lowe.py`), which count instead of the last three data where a `LowE` is given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from boltzmann import PRIOR, cached, spectra
from emulators import CMB
from lowe import LowE
from numpyro.infer import MCMC, NUTS, init_to_uniform
from planck import CALIBRATION, Planck, calibrate

import jaxsbi
from jaxsbi.base import Array, Data, Fitted, Key, Simulations, Theta

CHECKS = 50
"""Draws of NUTS at which CAMB itself is run."""
EE_BINS = 3
"""The last data: log-normal bins that stand for lowE, and say less of tau."""


def expected(likelihood: Planck, low: LowE, spectra: Data) -> Data:
    """Return what spectra expect: of the data, `(618,)`, and the roots of EE, `(28,)`."""
    mean = likelihood.mean({name: spectra[name] for name in CMB})
    return {"data": mean, "roots": low.roots(spectra["EE"])}


def binned(likelihood: Planck, low: LowE, runs: Simulations) -> Simulations:
    """Return runs that hold what they expect of the data (`expected`) instead of their spectra."""
    mean = jax.jit(jax.vmap(lambda spectra: expected(likelihood, low, spectra)))(runs.x)
    return Simulations(runs.theta, mean, runs.weight)


def by_mcmc(
    key: Key,
    emulator: Fitted,
    data: Array,
    low: LowE | None = None,
    *,
    chains: int,
    warmup: int,
    steps: int,
) -> tuple[Theta, dict[str, Any]]:
    """Return draws by NUTS on the emulated likelihood, calibration included, and a report.

    With `low` EE at low ℓ counts as published, not by its bins.
    """

    def observe(found: Data) -> Array:
        # Chains start near 0.
        calibration = 1.0 + CALIBRATION * numpyro.sample("calibration", dist.Normal())
        mean = calibrate(found["data"], calibration)
        if low is None:
            return mean
        numpyro.factor("lowE", low.log_likelihood(found["roots"] / calibration))
        return mean[:-EE_BINS]

    x = data if low is None else data[:-EE_BINS]
    unit = jaxsbi.noise.gaussian(jnp.ones(x.size))
    model = jaxsbi.emulator_model(emulator, observe=observe, noise=unit)
    # The box is centred near the truth; at its corners χ² is a million.
    start = init_to_uniform(radius=0.3)
    mcmc = MCMC(
        NUTS(model, dense_mass=True, init_strategy=start),
        num_warmup=warmup,
        num_samples=steps,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    mcmc.run(key, x, extra_fields=("num_steps", "diverging"))
    draws = jax.block_until_ready(mcmc.get_samples())
    report: dict[str, Any] = {
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "load": os.getloadavg()[0],
    }
    summary = numpyro.diagnostics.summary(mcmc.get_samples(group_by_chain=True))
    fields = mcmc.get_extra_fields()
    report |= {"chains": chains, "warmup": warmup, "steps": steps}
    report["r_hat"] = max(float(site["r_hat"]) for site in summary.values())
    report["ess"] = min(float(site["n_eff"]) for site in summary.values())
    report["divergences"] = int(fields["diverging"].sum())
    report["gradients_per_step"] = float(fields["num_steps"].mean())
    return draws, report


def marginal(
    emulator: Fitted, likelihood: Planck, low: LowE | None, theta: Theta, x: Data
) -> Array:
    """Return log p(x | theta) but for a constant, the calibration integrated out.

    Over the calibration's width the expectation is linear in it, and so is the log-likelihood of EE
    at low ℓ: the integral is a Gaussian's.
    """
    del x  # compressed; the likelihood holds the data it was made from
    found = jaxsbi.emulate(emulator, theta)
    residual, slope = _at_calibration(lambda c: likelihood.data - calibrate(found["data"], c))
    value = push = 0.0
    if low is not None:
        residual, slope = residual[:-EE_BINS], slope[:-EE_BINS]
        value, push = _at_calibration(lambda c: low.log_likelihood(found["roots"] / c))
    seen = 1 + slope @ slope
    push = push - slope @ residual
    return value - 0.5 * (residual @ residual - push**2 / seen + jnp.log(seen))


def _at_calibration(function: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Return a function's value at a calibration of 1, and its change over the width."""
    return jax.jvp(function, (jnp.ones(()),), (jnp.full((), CALIBRATION),))


def check(draws: Theta, emulator: Fitted, likelihood: Planck, low: LowE) -> dict[str, Any]:
    """Compare log-likelihoods by the emulator with those by CAMB itself, and what each costs."""
    points = [{name: np.asarray(draws[name][i]) for name in PRIOR.names} for i in range(CHECKS)]

    def log_likelihoods(found: Data) -> Array:
        squares = (likelihood.data - found["data"]) ** 2
        maps = low.log_likelihood(found["roots"]) - 0.5 * jnp.sum(squares[:-EE_BINS])
        return jnp.stack([-0.5 * jnp.sum(squares), maps])

    emulated = jax.jit(lambda theta: log_likelihoods(jaxsbi.emulate(emulator, theta)))
    exact = jax.jit(lambda spectra: log_likelihoods(expected(likelihood, low, spectra)))
    rows = np.array([(exact(cached(theta)), emulated(theta)) for theta in points])
    difference = np.abs(rows[:, 0] - rows[:, 1])
    theta = points[0]
    # In turn, so that both see the same load; CAMB in this process, as MCMC would call it.
    costs = [
        (
            _seconds(lambda: spectra(0, theta)),
            _seconds(lambda: emulated(theta).block_until_ready(), 100),
        )
        for _ in range(5)
    ]
    camb, one = (tuple(np.median(each, axis=0)) for each in zip(*costs, strict=True))
    report: dict[str, Any] = {
        name: {
            "log_likelihoods": rows[:, :, i].tolist(),
            "largest_difference": float(difference[:, i].max()),
            "median_difference": float(np.median(difference[:, i])),
        }
        for i, name in enumerate(("bins", "lowE"))
    }
    return report | {
        "camb_seconds": {"wall": camb[0], "cpu": camb[1]},
        "emulator_seconds": {"wall": one[0], "cpu": one[1]},
        "ratio": {"wall": camb[0] / one[0], "cpu": camb[1] / one[1]},
        "load": os.getloadavg()[0],
    }


def _seconds(function: Callable[[], Any], times: int = 1) -> tuple[float, float]:
    """Return wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        function()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times
