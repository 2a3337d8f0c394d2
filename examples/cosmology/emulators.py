"""Emulators of CAMB's spectra, and how wrong they are at runs they were not trained on.

Run it: `python emulators.py`, after `python boltzmann.py`. It draws `emulators.png`.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from boltzmann import PRIOR, TRAIN, WAVENUMBERS, campaign

import jaxsbi
from jaxsbi.base import Array, Data, Fitted, Key, Simulations, Theta

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CMB = ("TT", "TE", "EE")
MATTER = ("linear", "nonlinear", "H0", "sigma8")
NEUTRINOS = 0.000645
"""Density Ω h² of one neutrino of 0.06 eV."""
PERCENTILES = (68, 95, 99)


class Polynomials(nn.Module):
    """Products of Legendre polynomials of the parameters' ranks, orthogonal under the prior.

    For an emulator whose box is so narrow that its outputs are nearly quadratic: a polynomial chaos
    expansion, as EuclidEmulator makes it (Knabenhans et al. 2019, arXiv:1809.04695), with few
    products of high powers. The emulator's head adds the products up.

    Attributes:
        degree: The highest power of one parameter; a product of powers a, b, … is there if
            (√a + √b + …)² is no more.
    """

    degree: int = 5

    def __call__(self, v: Array) -> Array:
        """Return the products, shape `(features,)`; `v` is latent parameters, then ranks."""
        _, ranks = jnp.split(v, 2)
        t = ranks / np.sqrt(3.0)  # ranks are of unit variance
        legendre = [jnp.ones_like(t), t]
        for k in range(1, self.degree):
            legendre.append(((2 * k + 1) * t * legendre[k] - k * legendre[k - 1]) / (k + 1))
        table = jnp.stack([np.sqrt(2 * k + 1.0) * p for k, p in enumerate(legendre)])
        powers = np.array(list(itertools.product(range(self.degree + 1), repeat=t.size)))
        size = np.sum(np.sqrt(powers), axis=1) ** 2
        chosen = powers[(size > 0) & (size < self.degree + 1e-6)]
        return jnp.prod(table[chosen, np.arange(t.size)[None]], axis=1)


def train(
    key: Key, prior: jaxsbi.Prior, simulations: Simulations, *, steps: int = 4_800, **options: Any
) -> Fitted:
    """Return an emulator of `simulations.x` by polynomials; options are those of `emulator`."""
    method = jaxsbi.emulator(network=Polynomials(), components=32, **options)
    # What is sought is linear in the features: steps may be large, if they end small.
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.3, steps // 20, 3 * steps // 4)
    batch = min(128, len(simulations) // 2)
    epochs = steps // (9 * len(simulations) // 10 // batch)
    return jaxsbi.fit(
        key,
        method,
        prior,
        simulations,
        optimizer=optax.adam(schedule),
        batch_size=batch,
        max_epochs=epochs,
        patience=epochs,
        progress=False,
    )


def of_spectra(key: Key, simulations: Simulations, names: tuple[str, ...]) -> Fitted:
    """Return an emulator of some of CAMB's outputs, which have no noise."""
    form = {name: "log" for name in names if name != "TE"}  # TE has both signs
    part = {name: simulations.x[name] for name in names}
    runs = Simulations(simulations.theta, part, simulations.weight)
    return train(key, PRIOR, runs, transform=form, exact=True)


def of_bins(key: Key, prior: jaxsbi.Prior, simulations: Simulations, **options: Any) -> Fitted:
    """Return an emulator of expected data of unit variance: errors count by what the data see."""
    size = sum(a.shape[1] for a in jax.tree.leaves(simulations.x))
    unit = jaxsbi.noise.gaussian(jnp.ones(size))
    return train(key, prior, simulations, noise=unit, **options)


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


def both(simulations: Simulations) -> tuple[Fitted, Fitted, dict[str, float]]:
    """Return emulators of the CMB and of matter, and how many seconds they took to train."""
    wall, cpu = time.perf_counter(), time.process_time()
    keys = jax.random.split(jax.random.key(1))
    cmb, matter = (
        of_spectra(key, simulations, names) for key, names in zip(keys, (CMB, MATTER), strict=True)
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return cmb, matter, {"wall_seconds": wall, "cpu_seconds": cpu}


def main() -> None:
    """Train, measure, draw."""
    simulations = campaign()
    cmb, matter, seconds = both(simulations[:TRAIN])
    report, figure = accuracy(cmb, matter, simulations[TRAIN:])
    print(
        f"trained in {seconds:.0f} s; errors at {report['runs']} other runs, largest over ℓ or k:"
    )
    for name in (*CMB, *MATTER[:2]):
        print(name, {p: f"{v['largest']:.3%}" for p, v in report[name].items()})
    figure.savefig(Path(__file__).parent / "emulators.png", dpi=80)


if __name__ == "__main__":
    main()
