"""GW150914 by neural posterior estimation and importance sampling, as DINGO does.

Run `python -m examples.gravitational_waves.dingo FOLDER` from the repository's root; a run that was
interrupted goes on where it was. Sources: Dax et al. 2021, arXiv:2106.12594 (the network); Dax et
al. 2023, arXiv:2210.05686 (importance sampling).
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax

import jaxsbi
from examples.gravitational_waves import data, problem
from examples.gravitational_waves.files import kept
from jaxsbi.base import Fitted, Key
from jaxsbi.networks import MLP, SVD, Fuse

SIGNALS, STEPS, BATCH = 65_536, 18_000, 256
EXTRINSIC = ("distance", "time")


def method(components: int = 80, hidden: int = 160, blocks: int = 3, layers: int = 6) -> jaxsbi.NPE:
    """Return the network: principal components of the strain, and the noise spectrum beside."""
    strain = SVD(components=components, out=32, hidden=hidden, blocks=blocks)
    return jaxsbi.npe(
        summary=Fuse({"strain": strain, "spectrum": MLP(32, 16)}, out=32, hidden=64),
        density=jaxsbi.densities.SplineCoupling(layers=layers, hidden=64),
    )


def train(
    key: Key,
    event: problem.Event,
    *,
    signals: int = SIGNALS,
    steps: int = STEPS,
    batch: int = BATCH,
    network: jaxsbi.NPE | None = None,
    folder: Path | None = None,
) -> Fitted:
    """Train on stored waveforms, at new distances and times and in new noise in each step."""
    key_signals, key_fit = jax.random.split(key)
    prior = problem.prior()
    stored = jaxsbi.simulate(
        key_signals, prior, lambda _, theta: event.source(theta), signals, progress=False
    )
    return jaxsbi.fit_online(
        key_fit,
        method() if network is None else network,
        prior,
        jaxsbi.Signals(stored, event.noisy, extrinsic=EXTRINSIC),
        num_steps=steps,
        batch_size=batch,
        checkpoint=folder,
        progress=False,
    )


def trained(folder: Path) -> tuple[problem.Event, dict, Fitted]:
    """Return the event's simulator, its data, and the network, trained if it was not."""
    event, x = problem.observe(data.segment())
    fitted = kept(
        folder / "fitted", lambda: train(jax.random.key(0), event, folder=folder / "training")
    )
    return event, x, fitted


if __name__ == "__main__":
    trained(Path(sys.argv[1] if len(sys.argv) > 1 else "gw150914"))
