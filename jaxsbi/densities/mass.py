"""Probability laws of one whole number with parameters from a network.

Each law acts on one number `k` and its vector of raw parameters `(p,)`; all values and gradients
are finite for any finite raw parameters, in float32. `start` solves the linear part of the problem,
a generalised linear model of each number on the context, before any training.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

from jaxsbi import latent
from jaxsbi.base import Array, Key, varies
from jaxsbi.densities.glm import least_squares, logistic_regression

Start = dict[str, Array]
"""Raw parameters before training: `{"offset": (d, p), "slopes": (d, p, c)}`."""
Spread = dict[str, Array]
"""Where a number's warped values lie: `{"location": (), "scale": ()}`; empty for 0 and 1."""

MAX_LOG_SCALE = 8.0


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """P(1) = sigmoid(log-odds)."""

    dtype: Any = jnp.bool_

    @property
    def num_parameters(self) -> int:
        """Raw parameters per number: the log-odds."""
        return 1

    def spread(self, k: Array) -> Spread:
        """Return nothing: 0 and 1 need no scale."""
        del k
        return {}

    def start(self, k: Array, context: Array) -> Start:
        """Return a logistic regression of each column of `k` `(n, d)` on `context` `(n, c)`."""
        return logistic_regression(k, 1, context)

    def log_prob(self, k: Array, raw: Array, spread: Spread) -> Array:
        """Return the log-probability (a scalar) of 0 or 1."""
        del spread
        return -jax.nn.softplus(jnp.where(k == 1, -raw[0], raw[0]))

    def draw(self, key: Key, raw: Array, spread: Spread) -> Array:
        """Draw one boolean."""
        del spread
        # The logistic noise keeps its tails; comparing a uniform with a sigmoid loses them.
        return raw[0] + jax.random.logistic(key, (), raw.dtype) > 0

    def features(self, k: Array, spread: Spread, dtype: Any) -> Array:
        """Return -1 or 1, shape `(1,)`, for networks to read."""
        del spread
        return 2.0 * k.astype(dtype)[None] - 1.0


@dataclasses.dataclass(frozen=True)
class Categorical:
    """P(k) = softmax(logits)_k for k = 0 … classes - 1."""

    classes: int
    dtype: Any = jnp.int32

    @property
    def num_parameters(self) -> int:
        """Raw parameters per number: one logit per class."""
        return self.classes

    def spread(self, k: Array) -> Spread:
        """Return nothing: classes have no scale."""
        del k
        return {}

    def start(self, k: Array, context: Array) -> Start:
        """Return the logarithm of each class's frequency, and slopes of zero."""
        count = jnp.sum(jax.nn.one_hot(k, self.classes, dtype=float), 0)
        offset = jnp.log((count + 0.5) / (k.shape[0] + 0.5 * self.classes))
        return {"offset": offset, "slopes": jnp.zeros((*offset.shape, context.shape[1]))}

    def log_prob(self, k: Array, raw: Array, spread: Spread) -> Array:
        """Return the log-probability (a scalar) of one class; -inf of what is none."""
        del spread
        chosen = k == jnp.arange(self.classes)
        log_prob = jnp.sum(jnp.where(chosen, jax.nn.log_softmax(raw), 0.0))
        return jnp.where(jnp.any(chosen), log_prob, -jnp.inf)

    def draw(self, key: Key, raw: Array, spread: Spread) -> Array:
        """Draw one class."""
        del spread
        return jax.random.categorical(key, raw).astype(self.dtype)

    def features(self, k: Array, spread: Spread, dtype: Any) -> Array:
        """Return the class as a one-hot vector, shape `(classes,)`."""
        del spread
        return jax.nn.one_hot(k, self.classes, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Binomial:
    """The number of successes in `total` trials of one probability, sigmoid(log-odds)."""

    total: int
    dtype: Any = jnp.int32

    @property
    def num_parameters(self) -> int:
        """Raw parameters per number: the log-odds."""
        return 1

    def spread(self, k: Array) -> Spread:
        """Return where each column's warped counts lie."""
        return spread_of(k)

    def start(self, k: Array, context: Array) -> Start:
        """Return a binomial regression of each column of `k` `(n, d)` on `context` `(n, c)`."""
        return logistic_regression(jnp.clip(k, 0, self.total), self.total, context)

    def log_prob(self, k: Array, raw: Array, spread: Spread) -> Array:
        """Return the log-probability (a scalar) of a count; -inf outside 0 … total."""
        del spread
        inside = (k >= 0) & (k <= self.total)
        hits = jnp.clip(k, 0, self.total).astype(raw.dtype)
        misses = self.total - hits
        ways = gammaln(self.total + 1.0) - gammaln(hits + 1.0) - gammaln(misses + 1.0)
        log_hit, log_miss = jax.nn.log_sigmoid(raw[0]), jax.nn.log_sigmoid(-raw[0])
        return jnp.where(inside, ways + hits * log_hit + misses * log_miss, -jnp.inf)

    def draw(self, key: Key, raw: Array, spread: Spread) -> Array:
        """Draw one count."""
        del spread
        chance = jax.nn.sigmoid(raw[0])
        return jax.random.binomial(key, self.total, chance, dtype=raw.dtype).astype(self.dtype)

    def features(self, k: Array, spread: Spread, dtype: Any) -> Array:
        """Return the warped and standardised count, shape `(1,)`."""
        return _standard(k, spread, dtype)[None]


@dataclasses.dataclass(frozen=True)
class LogisticMixture:
    """P(k) = F(k + 1/2) - F(k - 1/2) for a mixture of logistic distribution functions F.

    Source: Salimans et al. 2017, arXiv:1701.05517. Here F acts on asinh(k), which is linear
    near 0 and logarithmic beyond: counts of any size have locations and scales of order one,
    there is no range to declare, and the log-link of counts is a linear one.
    """

    components: int
    dtype: Any = jnp.int32

    @property
    def num_parameters(self) -> int:
        """Raw parameters per number: a shift and a scale of all, then weight and both of each."""
        return 2 + 3 * self.components

    def spread(self, k: Array) -> Spread:
        """Return where each column's warped values lie."""
        return spread_of(k)

    def start(self, k: Array, context: Array) -> Start:
        """Return a least-squares fit of each column's warped values, and its residuals' scale."""
        spread = spread_of(k)
        y = jax.vmap(lambda row: _standard(row, spread, float))(k)
        offset, slopes, residual = least_squares(y, context)
        rest = ((0, 0), (0, self.num_parameters - 2))
        # A count that the context determines still has the width of its own cell.
        log_scale = jnp.log(jnp.maximum(residual, 0.03))
        offset = jnp.pad(jnp.stack([offset, log_scale], 1), rest)
        slopes = jnp.stack([slopes, jnp.zeros_like(slopes)], 1)
        return {"offset": offset, "slopes": jnp.pad(slopes, (*rest, (0, 0)))}

    def _unpack(self, raw: Array) -> tuple[Array, Array, Array]:
        """Return log-weights, locations and log-scales, each of shape `(components,)`."""
        n = self.components
        places = jnp.linspace(-1.0, 1.0, n) if n > 1 else jnp.zeros(1)
        log_weight, place, log_scale = jnp.reshape(raw[2:], (3, n))
        common = _bounded(raw[1])
        location = raw[0] + jnp.exp(common) * (places.astype(raw.dtype) + place)
        # The places' variance and that of logistic noise of this scale make about one.
        return jax.nn.log_softmax(log_weight), location, _bounded(common + log_scale + START)

    def log_prob(self, k: Array, raw: Array, spread: Spread) -> Array:
        """Return the log-probability (a scalar) of one whole number."""
        log_weight, location, log_scale = self._unpack(raw)
        k = k.astype(raw.dtype)
        middle, unit = spread.get("location", 0.0), spread.get("scale", 1.0)
        slope = jnp.exp(-log_scale)
        above = ((jnp.arcsinh(k + 0.5) - middle) / unit - location) * slope
        below = ((jnp.arcsinh(k - 0.5) - middle) / unit - location) * slope
        width = _cell(k) / unit * slope
        # F(b) - F(a) = F(b) (1 - F(a)) (1 - exp(a - b)): nothing cancels, in either tail.
        each = jax.nn.log_sigmoid(above) + jax.nn.log_sigmoid(-below) + latent.log1mexp(width)
        return logsumexp(log_weight + each)

    def draw(self, key: Key, raw: Array, spread: Spread) -> Array:
        """Draw one whole number."""
        key_component, key_noise = jax.random.split(key)
        log_weight, location, log_scale = self._unpack(raw)
        i = jax.random.categorical(key_component, log_weight)
        noise = jax.random.logistic(key_noise, (), raw.dtype)
        y = location[i] + jnp.exp(log_scale[i]) * noise
        y = y * spread.get("scale", 1.0) + spread.get("location", 0.0)
        # asinh(2**31) is 22.18: the draw stays within an int32.
        return jnp.round(jnp.sinh(jnp.clip(y, -22.0, 22.0))).astype(self.dtype)

    def features(self, k: Array, spread: Spread, dtype: Any) -> Array:
        """Return the warped and standardised number, shape `(1,)`."""
        return _standard(k, spread, dtype)[None]


START = math.log(0.4)


def _bounded(log_scale: Array) -> Array:
    return MAX_LOG_SCALE * jnp.tanh(log_scale / MAX_LOG_SCALE)


def spread_of(k: Array) -> Spread:
    """Return mean and scale of asinh(k) over the leading axis; what never varies has scale 1."""
    y = jnp.arcsinh(k.astype(float))
    mean, scale = jnp.mean(y, 0), jnp.std(y, axis=0)
    return {"location": mean, "scale": jnp.where(varies(scale, 1.0 + jnp.abs(mean)), scale, 1.0)}


def _standard(k: Array, spread: Spread, dtype: Any) -> Array:
    y = jnp.arcsinh(k.astype(dtype))
    return (y - spread.get("location", 0.0)) / spread.get("scale", 1.0)


def _cell(k: Array) -> Array:
    """Return asinh(k + 1/2) - asinh(k - 1/2) to full precision, however large k is."""
    a = jnp.maximum(jnp.abs(k), 1.0)
    above, below = a + 0.5, a - 0.5
    # sinh of the difference, with the cancellation done by hand.
    step = 2.0 * a / (above * jnp.hypot(1.0, below) + below * jnp.hypot(1.0, above))
    return jnp.where(k == 0, 2.0 * math.asinh(0.5), jnp.arcsinh(step))
