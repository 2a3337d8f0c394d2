"""CAMB's power spectra of draws from a box around Planck's cosmology, kept in the cache.

Run it: `python boltzmann.py` (about 2.5 s a run on one core). Interrupt it and start it again: what
is done is on disk, and is not run twice.
"""

from __future__ import annotations

import argparse
import os

import jax
import numpy as np
import numpyro.distributions as dist

import jaxsbi
from jaxsbi.tasks.references import cache_directory

# 4 to 5 standard deviations of Planck's posterior on either side. `theta_mc` is 100 θ_MC, the
# angle of the sound horizon, which the heights and places of the peaks know far better than H₀.
PRIOR = jaxsbi.Prior(
    ombh2=dist.Uniform(0.0217, 0.0230),
    omch2=dist.Uniform(0.1140, 0.1265),
    theta_mc=dist.Uniform(1.0395, 1.0423),
    tau=dist.Uniform(0.02, 0.09),
    log_as=dist.Uniform(2.98, 3.11),
    ns=dist.Uniform(0.945, 0.985),
)
# Where Planck's likelihood is checked: independent normal laws of Planck's published widths
# (arXiv:1807.06209, table 2), which go further from the truth than the posterior does.
NEAR = jaxsbi.Prior(
    ombh2=dist.Normal(0.02236, 0.00015),
    omch2=dist.Normal(0.1202, 0.0014),
    theta_mc=dist.Normal(1.0409, 0.00031),
    tau=dist.Normal(0.0544, 0.0075),
    log_as=dist.Normal(3.045, 0.016),
    ns=dist.Normal(0.9649, 0.0044),
)
LMAX = 2508
WAVENUMBERS = np.geomspace(1e-3, 5.0, 200)
"""Of the matter power spectra, in h/Mpc."""
TRAIN, TEST, CHECKS = 512, 64, 50
CHUNK = 16
KEY = 20180717


def spectra(seed: int, theta: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run CAMB once, at its default accuracy with lensing potentials of accuracy 1.

    Returns:
        `TT`, `TE` and `EE`, lensed Dₗ in μK² for ℓ = 2 … 2508; `linear` and `nonlinear`, the matter
        power at z = 0 in (Mpc/h)³ over `WAVENUMBERS`; and `H0` and `sigma8`.
    """
    del seed  # nothing is random
    # One thread: runs, not their parts, are what is done in parallel.
    os.environ["OMP_NUM_THREADS"] = "1"
    import camb

    # As in Planck's baseline: one massive neutrino of 0.06 eV, N_eff = 3.046.
    parameters = camb.set_params(
        ombh2=float(theta["ombh2"]),
        omch2=float(theta["omch2"]),
        cosmomc_theta=float(theta["theta_mc"]) / 100,
        tau=float(theta["tau"]),
        As=float(np.exp(theta["log_as"].astype(float))) * 1e-10,
        ns=float(theta["ns"]),
        mnu=0.06,
        nnu=3.046,
        lmax=LMAX + 100,
        lens_potential_accuracy=1,
    )
    parameters.set_matter_power(redshifts=[0.0], kmax=10.0)
    parameters.NonLinear = camb.model.NonLinear_both
    results = camb.get_results(parameters)
    tt, ee, _, te = results.get_lensed_scalar_cls(LMAX, CMB_unit="muK")[2:].T
    linear, nonlinear = (
        results.get_matter_power_interpolator(nonlinear=n).P(0.0, WAVENUMBERS)
        for n in (False, True)
    )
    found = {"TT": tt, "TE": te, "EE": ee, "linear": linear, "nonlinear": nonlinear}
    found |= {"H0": parameters.H0, "sigma8": results.get_sigma8_0()}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def campaign(
    prior: jaxsbi.Prior, name: str, n: int, *, workers: int = 1, progress: bool = False
) -> tuple[jaxsbi.Simulations, jaxsbi.Record]:
    """Return runs of CAMB at draws from a prior, from the cache as far as they are there."""
    key = jax.random.key(KEY)
    store = jaxsbi.Store.create(cache_directory() / f"camb_{name}", key, prior, chunk=CHUNK)
    return jaxsbi.simulate_external(
        key, prior, spectra, n, store=store, workers=workers, timeout=120.0, progress=progress
    )


def main() -> None:
    """Make the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    workers = parser.parse_args().workers
    for prior, name, n in ((PRIOR, "planck", TRAIN + TEST), (NEAR, "near", CHECKS)):
        _, record = campaign(prior, name, n, workers=workers, progress=True)
        print(f"{name}: {record.counts}, {np.median(record.seconds):.2f} s a run")


if __name__ == "__main__":  # the worker processes import this file
    main()
