"""Normal scores: a monotone map of heavy-tailed numbers to N(0, 1), learned from quantiles.

A population that explodes, or a noise with outliers, has a standard deviation that says little of
its bulk: standardised, most of its values are nearly equal, and a few are huge.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxsbi.base import Array

EDGE = 3.0
"""Normal scores of the outermost knots; beyond, the map grows as a logarithm."""
KNOTS = 25
HALVINGS = 40
"""Of the range between the outermost knots, to find a number by its score."""
FLAT = 1e-6
"""Slope that the map of a law has at least."""
HEAVY = 5.0
"""Kurtosis (3 for a normal distribution) above which a number is replaced by its score.

Held-out gain over the prior at 1,000 simulations, in nats, if no, all or only heavy-tailed numbers
are: lotka_volterra 5.8, 7.5, 8.1; sir 4.82, 4.08, 4.63 (counts are best left alone)."""
HEAVY_LAW = 15.0
"""The same where x itself has a law that is learned with that of the parameters (`joint`)."""
WORTH = 0.03
"""Nats that scores must gain, of one number, to be taken for a law given the parameters. (Without
heavy tails no gain is worth it: 0.03 to 0.08 promised on bernoulli_glm, 0.2 to 0.3 lost.)"""
NEIGHBOURS, ASKED, AMONG = 16, 1_000, 4_000
"""Of how many simulations, and with which of how many, `_gains` looks at neighbours."""
NUMBERS, FEW = 4_000_000, 500
"""Of as many numbers only, where x is large; but of so many simulations always."""
ROUNDING = 1e-6
"""Width of neighbours that are all alike, in standard deviations of a number."""
EDGE_LAW, KNOTS_LAW = 2.5, 13
"""Knots of such a law, in which the noise of outer quantiles is a ragged tail. Nats after
1,000 and 10,000 simulations of lotka_volterra gained over 3.0 and 25: 1.0, 0.9; of slcp_distractors
-0.4 (+-7), 0.0. Of four numbers with Student's t noise (2.5 degrees of freedom), 10,000: 0.18."""

Scores = dict[str, Array]


def fit_law_scores(x: Array, z: Array, among: Array | None = None) -> Scores:
    """Return the scores by which a density given z learns the columns of `x`, as `fit_scores`.

    A marginal's heavy tails are not reason enough: where widths differ by decades with z, the law
    of a number given z may be normal, and its scores would not be. They are taken where neighbours
    in z expect such a number better by them (`_gains`).

    Args:
        x: Standardised data, shape `(n, p)`.
        z: Latent parameters, shape `(n, dim)`.
        among: Which numbers are learned so, shape `(p,)`, where other simulations have told.
    """
    scores = fit_scores(x, HEAVY if among is None else 0.0, EDGE_LAW, KNOTS_LAW)
    if among is None and x.size:
        gain, error = _gains(scores, x, z)
        among = gain > jnp.maximum(WORTH, 2 * error)
    return scores if among is None else {**scores, "heavy": scores["heavy"] & among}


def _gains(scores: Scores, x: Array, z: Array) -> tuple[Array, Array]:
    """Return the nats that a simple law given z gains by scores, and their error, each `(p,)`.

    The law is what the nearest in z tell of a normal one: Student's t of their mean and variance
    (the predictive density). Under the prior its gain has the sign of the whole density's held-out
    gain: positive for growth (lotka_volterra) and outliers (slcp_distractors), negative for widths
    that differ by decades, slcp's, and counts as floats.
    """
    n, p = x.shape
    if n <= NEIGHBOURS:
        return jnp.zeros(p), jnp.zeros(p)
    there = _different(x, z)
    # Evenly, not the first ones: of independent draws, those of many parameter sets.
    size = min(n, AMONG, max(NUMBERS // p, FEW))
    among = jnp.arange(size) * jnp.maximum(there // size, 1)
    count = jnp.minimum(there, size)
    x, z = x[among], z[among]
    y, log_slope = jax.lax.map(functools.partial(spread, scores), x, batch_size=min(size, 100))
    number = min(size, ASKED)
    asked = jnp.arange(number) * count // number

    def expected(values: Array, nearest: Array, value: Array) -> Array:
        those = values[nearest]
        width = jnp.sqrt(jnp.var(those, 0, ddof=1) * (1 + 1 / NEIGHBOURS) + ROUNDING**2)
        off = (value - jnp.mean(those, 0)) / width
        return -0.5 * NEIGHBOURS * jnp.log1p(off**2 / (NEIGHBOURS - 1)) - jnp.log(width)

    def gain(i: Array) -> Array:
        others = (jnp.arange(size) < count) & (jnp.arange(size) != i)
        distance = jnp.where(others, jnp.sum((z - z[i][None]) ** 2, 1), jnp.inf)
        _, nearest = jax.lax.top_k(-distance, NEIGHBOURS)
        return expected(y, nearest, y[i]) + log_slope[i] - expected(x, nearest, x[i])

    gains = jax.lax.map(gain, asked)
    error = jnp.std(gains, 0) / jnp.sqrt(jnp.minimum(number, count))
    # Of fewer none are near.
    return jnp.where(count > NEIGHBOURS, jnp.mean(gains, 0), 0.0), error


def _different(x: Array, z: Array) -> Array:
    """Return how many rows there are before they repeat: `fit` fills its capacity with copies."""
    row = jnp.concatenate([z, jnp.min(x, 1, keepdims=True), jnp.max(x, 1, keepdims=True)], 1)
    same = jnp.all(row[1:] == row[:1], 1)
    return jnp.where(jnp.any(same), jnp.argmax(same) + 1, x.shape[0])


def fit_scores(x: Array, heavy: float = HEAVY, edge: float = EDGE, knots: int = KNOTS) -> Scores:
    """Return knots, their normal scores and slopes of each column of `x`, shape `(n, p)`.

    Knots are empirical quantiles, equally spaced in normal scores; slopes are those of a monotone
    cubic interpolant (Fritsch & Butland 1984, SIAM J. Sci. Stat. Comput. 5, 300). Knots that
    coincide (discrete data) share the mean of their scores.

    Args:
        x: Standardised data.
        heavy: Kurtosis above which a number counts as heavy-tailed.
        edge: Normal scores of the outermost knots.
        knots: How many there are.

    Returns:
        `{"knot": (p, k), "score": (p, k), "slope": (p, k), "heavy": (p,)}`.
    """
    level = jnp.linspace(-edge, edge, knots, dtype=x.dtype)
    knot = jnp.quantile(x, jax.scipy.stats.norm.cdf(level), axis=0).T
    closest = 1e-6 * jnp.maximum(jnp.max(jnp.abs(knot), 1), 1e-30)
    same = jnp.abs(knot[:, :, None] - knot[:, None, :]) <= closest[:, None, None]
    score = jnp.sum(jnp.where(same, level[None, None], 0.0), 2) / jnp.sum(same, 2)
    width = knot[:, 1:] - knot[:, :-1]
    apart = width > closest[:, None]
    secant = jnp.where(apart, (score[:, 1:] - score[:, :-1]) / jnp.where(apart, width, 1.0), 0.0)
    # The harmonic mean of the neighbouring secants keeps a cubic monotone.
    left, right = secant[:, :-1], secant[:, 1:]
    both = (left > 0) & (right > 0)
    inner = jnp.where(both, 2.0 * left * right / jnp.where(both, left + right, 1.0), 0.0)
    slope = jnp.concatenate([secant[:, :1], inner, secant[:, -1:]], 1)
    # A number whose quantiles all coincide (a bit that is hardly ever set) has no other scale.
    tails = (jnp.mean(x**4, 0) > heavy) & (knot[:, -1] - knot[:, 0] > closest)
    return {"knot": knot, "score": score, "slope": slope, "heavy": tails}


def tame(scores: Scores, x: Array) -> Array:
    """Return one standardised data set, shape `(p,)`, with normal scores for heavy-tailed numbers.

    The others are clipped where they are implausible, at `2 * EDGE` standard deviations.
    """

    def some(x: Array) -> Array:
        score = _interpolate(scores["knot"], scores["score"], scores["slope"], x)
        return jnp.where(scores["heavy"], score, clipped)

    clipped = jnp.clip(x, -2.0 * EDGE, 2.0 * EDGE)
    # Most problems have no heavy tails: a condition saves them the interpolation of every row.
    return jax.lax.cond(jnp.any(scores["heavy"]), some, lambda x: clipped, x)


def spread(scores: Scores, x: Array) -> tuple[Array, Array]:
    """Return `x` with normal scores for heavy-tailed numbers, and the logs of the map's slopes.

    Unlike `tame`, for the law of x itself: nothing is clipped. Where values coincide and the map is
    flat, its slope counts as `FLAT`: the law of what it leaves of x has no density there.
    """

    def some(x: Array) -> tuple[Array, Array]:
        at = functools.partial(_interpolate, scores["knot"], scores["score"], scores["slope"])
        score, slope = jax.jvp(at, (x,), (jnp.ones_like(x),))
        log_slope = jnp.log(jnp.maximum(slope, FLAT))
        heavy = scores["heavy"]
        return jnp.where(heavy, score, x), jnp.where(heavy, log_slope, 0.0)

    def none(x: Array) -> tuple[Array, Array]:
        return x, jnp.zeros_like(x)

    return jax.lax.cond(jnp.any(scores["heavy"]), some, none, x)


def gather(scores: Scores, y: Array) -> Array:
    """Return the numbers, shape `(p,)`, of which `y` is what `spread` makes."""
    knot, score, slope = scores["knot"], scores["score"], scores["slope"]
    low, high = knot[:, 0], knot[:, -1]
    y = y.astype(jnp.result_type(y, knot))

    def some(y: Array) -> Array:
        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            left, right = ends
            middle = 0.5 * (left + right)
            below = _interpolate(knot, score, slope, middle) < y
            return jnp.where(below, middle, left), jnp.where(below, right, middle)

        ends = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
        above, beneath = (
            jnp.expm1(jnp.maximum(a, 0.0)) for a in (y - score[:, -1], score[:, 0] - y)
        )
        first, last = (jnp.where(a > 0, a, 1.0) for a in _outer(knot, score, slope))
        x = 0.5 * (ends[0] + ends[1]) + above / last - beneath / first
        return jnp.where(scores["heavy"], x, y)

    return jax.lax.cond(jnp.any(scores["heavy"]), some, lambda y: y, y)


def _outer(knot: Array, score: Array, slope: Array) -> tuple[Array, Array]:
    """Return the slopes before the first knot and after the last.

    Where the last knots coincide (rare counts) the curve is flat there, but must rise beyond.
    """
    range_ = knot[:, -1] - knot[:, 0]
    rise = jnp.where(range_ > 0, (score[:, -1] - score[:, 0]) / jnp.where(range_ > 0, range_, 1), 0)
    return jnp.maximum(slope[:, 0], rise), jnp.maximum(slope[:, -1], rise)


def _interpolate(knot: Array, score: Array, slope: Array, x: Array) -> Array:
    low, high = knot[:, 0], knot[:, -1]
    inside = jnp.clip(x, low, high)
    # Comparisons and sums instead of gathers, which are slow under vmap.
    right = (inside[:, None] >= knot[:, 1:-1]).astype(x.dtype)
    one, zero = jnp.ones_like(right[:, :1]), jnp.zeros_like(right[:, :1])
    chosen = jnp.concatenate([one, right], 1) - jnp.concatenate([right, zero], 1)

    def pick(values: Array) -> tuple[Array, Array]:
        return jnp.sum(values[:, :-1] * chosen, 1), jnp.sum(values[:, 1:] * chosen, 1)

    (x0, x1), (y0, y1), (d0, d1) = pick(knot), pick(score), pick(slope)
    width = jnp.where(x1 > x0, x1 - x0, 1.0)
    # Not clipped: at a knot, where the bins meet, half of the slope would be lost.
    t = (inside - x0) / width
    s = 1.0 - t
    cubic = s * s * (1.0 + 2.0 * t) * y0 + t * t * (1.0 + 2.0 * s) * y1
    cubic = cubic + s * t * width * (s * d0 - t * d1)
    first, last = _outer(knot, score, slope)
    above = jnp.log1p(last * jnp.maximum(x - high, 0.0))
    below = jnp.log1p(first * jnp.maximum(low - x, 0.0))
    return cubic + above - below
