"""Counts, periodograms, and Fourier transforms of stationary noise."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import Array, Data, Key, configuration, is_concrete
from jaxsbi.networks import flatten
from jaxsbi.noise.base import Params
from jaxsbi.noise.gaussian import GaussianNoise


def _positive(mean: Data) -> Array:
    """Return a prediction that may have strayed below 0 as positive numbers."""
    flat = flatten(mean)
    return jnp.maximum(flat, jnp.finfo(flat.dtype).tiny)


@configuration
class PoissonNoise:
    """Counts, independent given their expectations."""

    def init(self, key: Key, scale: Array, dim: int) -> Params:
        """Return trainable parameters: none."""
        del key, scale, dim
        return {}

    def distribution(self, params: Params, mean: Data, scale: Array, z: Array) -> dist.Distribution:
        """Return the law of the flattened counts, shape `(d,)`."""
        del params, scale, z
        return dist.Poisson(_positive(mean)).to_event(1)


@configuration
class PeriodogramNoise:
    """Periodograms of a stationary process, independent given the power spectrum.

    Attributes:
        averages: How many independent periodograms were averaged.
    """

    averages: int = 1

    def init(self, key: Key, scale: Array, dim: int) -> Params:
        """Return trainable parameters: none."""
        del key, scale, dim
        return {}

    def distribution(self, params: Params, mean: Data, scale: Array, z: Array) -> dist.Distribution:
        """Return the law of the flattened periodogram, shape `(d,)`."""
        del params, scale, z
        rate = self.averages / _positive(mean)
        return dist.Gamma(jnp.full_like(rate, self.averages), rate).to_event(1)


def poisson() -> PoissonNoise:
    """Return the Poisson law of counts whose expectations are emulated.

    Emulate them with `transform="log"` from exact expectations (`exact=True`): they are then
    positive everywhere.
    """
    return PoissonNoise()


def periodogram(averages: int = 1) -> PeriodogramNoise:
    """Return Whittle's law of a periodogram whose power spectrum is emulated.

    log p = -Σ [log S_k + I_k / S_k] for one periodogram I (Whittle 1953, Ark. Mat. 2, 423), and a
    Gamma law for the average of several.

    Args:
        averages: How many independent periodograms were averaged.

    Raises:
        ValueError: If there are none.
    """
    if averages < 1:
        raise ValueError(f"noise.periodogram: expected averages >= 1, got {averages}.")
    return PeriodogramNoise(averages=int(averages))


def whittle(psd: Any, spacing: float) -> GaussianNoise:
    """Return Whittle's law of Fourier transforms whose signal is emulated, as in strain analysis.

    log p = -Σ 2 Δf |x - h|² / S - Σ log[π S / (2 Δf)] over frequencies (Finn 1992,
    arXiv:gr-qc/9209010): the transform of stationary noise is a complex normal number of
    variance S / (2 Δf).

    Args:
        psd: One-sided power spectral density S, in the structure and shapes of x, whose arrays
            are complex Fourier transforms (of a series in u: S in u²/Hz, x in u/Hz).
        spacing: Spacing Δf of the frequencies, the inverse of the duration, in Hz.

    Raises:
        ValueError: If the density is not finite and positive everywhere, or Δf not positive.
    """
    if not spacing > 0:
        raise ValueError(f"noise.whittle: expected spacing > 0, got {spacing}.")

    def root(s: Any) -> Array:
        # In double precision: S of strain is 1e-46, which single precision has no numbers for.
        s = jnp.sqrt(s) if not is_concrete(s) else np.sqrt(np.asarray(s, np.float64))
        s = jnp.asarray(s, float).ravel()
        return jnp.concatenate([s, s])  # the real parts, then the imaginary parts

    roots = flatten(jax.tree.map(root, psd))
    if is_concrete(roots) and not np.all(np.isfinite(roots) & (np.asarray(roots) > 0)):
        raise ValueError(
            "noise.whittle: expected a density that is finite and positive everywhere. Leave out "
            "the frequencies at which it is not, in the simulator too."
        )
    # Half of the variance is in each part.
    return GaussianNoise(cholesky=roots / (2.0 * math.sqrt(spacing)))
