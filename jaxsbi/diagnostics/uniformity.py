"""Are numbers uniform on (0, 1)? Kolmogorov-Smirnov, bands for their distribution function."""

from __future__ import annotations

import numpy as np

LEVEL = 0.01
"""Below it, corrected for the number of tests, a p-value fails: in every diagnostic the same."""


def failing(null: int, tests: int = 1) -> float:
    """Return the p-value down to which a rank among `null` others, of so many tests, fails.

    Few others have no p-value below the level: then the smallest there is fails.
    """
    return max(LEVEL, tests / (1.0 + null))


def ks_p_value(values: np.ndarray) -> np.ndarray:
    """Return the Kolmogorov-Smirnov p-value of each column for uniformity on (0, 1).

    Asymptotic with Stephens' correction (1970, JRSS B 32, 115), within 0.01 from ten rows on.

    Args:
        values: Shape `(n, *shape)`, independent rows.

    Returns:
        Shape `(*shape)`.
    """
    n = values.shape[0]
    ordered = np.sort(np.asarray(values, float), axis=0)
    grid = np.arange(1, n + 1).reshape(-1, *([1] * (ordered.ndim - 1))) / n
    distance = np.maximum(np.max(grid - ordered, 0), np.max(ordered - grid + 1 / n, 0))
    scaled = (np.sqrt(n) + 0.12 + 0.11 / np.sqrt(n)) * distance
    terms = np.arange(1, 101).reshape(-1, *([1] * np.ndim(scaled)))
    series = 2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * terms**2 * scaled**2), axis=0)
    return np.where(scaled < 0.2, 1.0, np.clip(series, 0.0, 1.0))


def ks_band(n: int, level: float = 0.95) -> float:
    """Return how far, at most, the distribution function of `n` uniform numbers strays.

    It does so everywhere at once with probability `level`.
    """
    low, high = 0.0, 3.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        terms = np.arange(1, 101)
        tail = 2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * terms**2 * middle**2))
        low, high = (middle, high) if tail > 1 - level or middle < 0.2 else (low, middle)
    return float(low / (np.sqrt(n) + 0.12 + 0.11 / np.sqrt(n)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number (Holm 1979, Scand. J. Stat. 6, 65)."""
    p = np.ravel(np.asarray(p_values, float))
    order = np.argsort(p)
    corrected = np.maximum.accumulate((p.size - np.arange(p.size)) * p[order])
    out = np.empty_like(p)
    out[order] = np.minimum(corrected, 1.0)
    return out.reshape(np.shape(p_values))
