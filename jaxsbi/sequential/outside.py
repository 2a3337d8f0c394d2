"""Whether an observation is like anything that was simulated, before rounds are spent on it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.abc.distances import scaled_euclidean
from jaxsbi.abc.nearest import FEW, NEIGHBOURS
from jaxsbi.base import Data, Simulations, warn
from jaxsbi.networks.flatten import flatten
from jaxsbi.reach import Reach

FAR = 3.0
"""How isolated an observation is that is warned of. Of ordinary ones about 1 in 100 exceeds 1."""
ROWS, NUMBERS = 10_000, 2**25
"""Simulations that are looked at for what is said of all numbers together, and how many numbers
they may have where they are large (but 1,000 simulations always)."""
NEAREST = 1_000
"""Those near the observation whose distances from one another are measured."""
WHITENED = 500
"""Numbers of x beyond which correlations are not taken out: their matrix is slow, and unknown."""
CLIP, FLOOR = 5.0, 1e-4
"""Robust deviations beyond which a number says no more of correlations; and the least variance that
a combination of numbers is said to have: a hundredth of a deviation is no matter to a network."""


def warn_outside(x: Data, simulations: Simulations) -> None:
    """Warn if an observation lies outside all that was simulated, by one number or by several."""
    used = np.flatnonzero(np.asarray(simulations.weight) > 0)
    if not used.size:
        return
    if _reach(simulations, used).warn(x):
        return
    apart = isolated(x, simulations.x, used)
    if apart > FAR:
        warn(
            f"observation: its numbers together are unlike all {len(simulations)} simulations from "
            f"the prior: the nearest is {apart:.3g} times as far away as those near it are from "
            "one another: the simulator may not describe these data, and what is learned there is "
            "an extrapolation. Look at prior predictive draws."
        )


def missed(x: Data, simulations: Simulations) -> bool:
    """Return whether an observation lies outside all that was simulated where its posterior is.

    Then that posterior was wrong: what it proposed does not look like the observation.
    """
    used = np.flatnonzero(np.asarray(simulations.weight) > 0)
    if not used.size:
        return True
    far = bool(_reach(simulations, used).beyond(x))
    return far or isolated(x, simulations.x, used) > FAR


def _reach(simulations: Simulations, used: np.ndarray) -> Reach:
    return Reach.of(jax.tree.map(lambda a: np.asarray(a)[used], simulations.x))


def isolated(x: Data, simulated: Data, used: np.ndarray) -> float:
    """Return the distance of the nearest simulation, in units of its neighbours'.

    It is `abc.nearest.isolation` without a program to compile. Numbers that only make sense
    together, as those of a time series, are seen together: distances are of numbers whose linear
    correlations were taken out.
    """
    if used.size < FEW:
        return 0.0
    observed = np.asarray(flatten(x))
    used = used[: min(ROWS, max(NEAREST, NUMBERS // observed.size))]
    z = _scaled(observed, jax.tree.map(lambda a: jnp.asarray(np.asarray(a)[used]), simulated))
    distances = np.sum(z**2, axis=1)
    order = np.argsort(distances, kind="stable")[:NEAREST]
    z, gap = z[order], float(np.sqrt(distances[order[0]]))
    # Of a row's distances the smallest is the one from itself.
    apart = [np.partition(np.sum((z - row) ** 2, axis=1), 1)[1] for row in z[:NEIGHBOURS]]
    unit = float(np.sqrt(np.max(apart)))
    if unit == 0.0:
        # Counts that all came twice: a count between two of them is nothing unusual.
        return np.inf if gap > 1.0 else 0.0
    return gap / unit


def _scaled(observed: np.ndarray, simulated: Data) -> np.ndarray:
    """Return simulations less the observation, `(n, p)`, in robust units and uncorrelated."""
    scale = np.asarray(scaled_euclidean(simulated).scale)
    z = (np.asarray(jax.vmap(flatten)(simulated)) - observed) / scale
    n, p = z.shape
    # With fewer rows for a number, the observation, which was none of them, would look far away.
    if p > min(WHITENED, n // 20):
        return z
    centred = np.clip(z - np.median(z, axis=0), -CLIP, CLIP)
    size, axes = np.linalg.eigh(np.atleast_2d(np.cov(centred, rowvar=False)))
    return z @ (axes / np.sqrt(np.maximum(size, FLOOR)))
