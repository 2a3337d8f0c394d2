"""CAMB's power spectra of draws from a box around Planck's cosmology, kept in the cache.

Run it: `python boltzmann.py` (about 2.5 s a run on one core). Interrupt it and start it again: what
is done is on disk, and is not run twice.
"""

from __future__ import annotations

import argparse
import hashlib
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
LMAX = 2508
WAVENUMBERS = np.geomspace(1e-3, 5.0, 200)
"""Of the matter power spectra, in h/Mpc."""
TRAIN, TEST = 512, 64
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


def cached(theta: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return CAMB's spectra at one parameter set, from the cache if it was run there before."""
    values = np.array([float(theta[name]) for name in PRIOR.names])
    name = hashlib.sha256(values.tobytes()).hexdigest()[:16]
    path = cache_directory() / "camb_checks" / f"{name}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **spectra(0, theta))
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def campaign(*, workers: int = 1, progress: bool = False) -> jaxsbi.Simulations:
    """Return all runs of CAMB at draws from the prior, from the cache as far as they are there."""
    key = jax.random.key(KEY)
    store = jaxsbi.Store.create(cache_directory() / "camb_planck", key, PRIOR, chunk=CHUNK)
    simulations, record = jaxsbi.simulate_external(
        key,
        PRIOR,
        spectra,
        TRAIN + TEST,
        store=store,
        workers=workers,
        timeout=120.0,
        progress=progress,
    )
    print(f"CAMB: {record.counts}, {np.median(record.seconds):.2f} s a run")
    return simulations


def main() -> None:
    """Make the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    campaign(workers=parser.parse_args().workers, progress=True)


if __name__ == "__main__":  # the worker processes import this file
    main()
