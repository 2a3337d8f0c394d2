"""Emulators of CAMB's spectra, and how wrong they are at runs they were not trained on.

Run it: `python emulators.py`, after `python boltzmann.py`. The trained emulators are kept in the
cache beside the runs; the picture is `emulators.png`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from boltzmann import PRIOR, TRAIN, WAVENUMBERS, campaign

import jaxsbi
from jaxsbi.base import Array, Data, Fitted, Key, Simulations, Theta
from jaxsbi.tasks.references import cache_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CMB = ("TT", "TE", "EE")
MATTER = ("linear", "nonlinear", "H0", "sigma8")
NEUTRINOS = 0.000645
"""Density Ω h² of one neutrino of 0.06 eV."""
PERCENTILES = (68, 95, 99)


def train(key: Key, simulations: Simulations, names: tuple[str, ...], **options: Any) -> Fitted:
    """Return an emulator of some of CAMB's outputs, which have no noise."""
    method = jaxsbi.emulator(
        components=48 if names == CMB else 24,
        transform={name: "log" for name in names if name != "TE"},  # TE has both signs
        exact=True,
    )
    x = {name: simulations.x[name] for name in names}
    part = Simulations(simulations.theta, x, simulations.weight)
    return jaxsbi.fit(key, method, PRIOR, part, **options)


def trained(simulations: Simulations) -> tuple[Fitted, Fitted, float]:
    """Return the emulators of the CMB and of matter, from the cache if they are there.

    The last number is how many seconds they took to train.
    """
    folder = cache_directory() / f"camb_emulators_{len(simulations)}"
    if not folder.is_dir():
        began = time.perf_counter()
        keys = jax.random.split(jax.random.key(1))
        fits = {
            name: train(key, simulations, outputs, progress=False)
            for name, key, outputs in (("cmb", keys[0], CMB), ("matter", keys[1], MATTER))
        }
        seconds = time.perf_counter() - began
        for name, fitted in fits.items():
            jaxsbi.save(folder / name, fitted)
        (folder / "seconds").write_text(str(seconds))
    cmb, matter = (jaxsbi.load(folder / name) for name in ("cmb", "matter"))
    return cmb, matter, float((folder / "seconds").read_text())


def derived(matter: Fitted, theta: Theta) -> dict[str, Array]:
    """Return `H0`, `omegam`, `sigma8` and `S8` of draws, each of shape `(n,)`."""
    found = jax.vmap(lambda t: jaxsbi.emulate(matter, t))(theta)
    omegam = (theta["ombh2"] + theta["omch2"] + NEUTRINOS) / (found["H0"] / 100) ** 2
    s8 = found["sigma8"] * jnp.sqrt(omegam / 0.3)
    return {"H0": found["H0"], "omegam": omegam, "sigma8": found["sigma8"], "S8": s8}


def errors(emulator: Fitted, runs: Simulations) -> dict[str, np.ndarray]:
    """Return absolute errors relative to the truth, TE's to √(TT·EE); each `(runs, points)`."""
    found: Data = jax.lax.map(lambda t: jaxsbi.emulate(emulator, t), runs.theta, batch_size=16)
    scale = dict(runs.x)
    scale["TE"] = jnp.sqrt(runs.x["TT"] * runs.x["EE"])
    return {name: np.abs(np.asarray((a - runs.x[name]) / scale[name])) for name, a in found.items()}


def accuracy(cmb: Fitted, matter: Fitted, runs: Simulations) -> tuple[dict[str, Any], Figure]:
    """Return the percentiles of the errors at held-out runs, and a picture of them."""
    from matplotlib import pyplot as plt

    found = errors(cmb, runs) | errors(matter, runs)
    figure, axes = plt.subplots(1, 5, figsize=(15, 3), layout="constrained")
    report: dict[str, Any] = {"runs": len(runs)}
    for axis, name in zip(axes, (*CMB, *MATTER[:2]), strict=True):
        bands = np.percentile(found[name], PERCENTILES, axis=0)
        place = np.arange(2, 2 + bands.shape[1]) if name in CMB else WAVENUMBERS
        for band, percentile, shade in zip(
            bands[::-1], PERCENTILES[::-1], (0.2, 0.4, 0.8), strict=True
        ):
            axis.fill_between(
                place, 0, 100 * band, color="C0", alpha=shade, lw=0, label=f"{percentile} %"
            )
        axis.set(xscale="log", xlabel="ℓ" if name in CMB else "k [h/Mpc]", ylim=(0, None))
        axis.set_title(name if name in CMB else f"P(k), {name}")
        report[name] = {
            f"{p}%": {"median": float(np.median(b)), "largest": float(b.max())}
            for p, b in zip(PERCENTILES, bands, strict=True)
        }
    axes[0].set_ylabel("error [%]")
    axes[1].set_ylabel("of √(TT·EE) [%]")
    axes[-1].legend(frameon=False)
    return report, figure


def main() -> None:
    """Train, measure, draw."""
    simulations = campaign()
    cmb, matter, seconds = trained(simulations[:TRAIN])
    report, figure = accuracy(cmb, matter, simulations[TRAIN:])
    print(f"trained in {seconds:.0f} s")
    for name in (*CMB, *MATTER[:2]):
        print(name, {p: f"{v['largest']:.3%}" for p, v in report[name].items()})
    figure.savefig(Path(__file__).parent / "emulators.png", dpi=90)


if __name__ == "__main__":
    main()
