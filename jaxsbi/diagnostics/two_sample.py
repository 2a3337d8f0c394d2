"""Distances between two sets of draws, each with a p-value from exchanged labels.

Asks whether draws and a reference (of MCMC, say) are of one law.

Cannot see: what the distance does not weigh (each says so), differences below the scatter of that
many draws; and the p-values take draws for independent, so that those of a chain must be thinned.

When it fails: `plots.corner` of both shows where. If the reference is right, train with more
simulations, or weigh the draws by the likelihood (`importance`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsbi.base import Array, Key, check_key
from jaxsbi.diagnostics.c2st import labelled
from jaxsbi.diagnostics.classifiers import logit, train
from jaxsbi.diagnostics.orderings import unit_vectors
from jaxsbi.diagnostics.uniformity import failing

LIMIT, MANY = 2_000, 10_000
"""Draws of each set, at most, that a matrix of all distances is made of, or else a sorted line;
more are thinned to these."""
_DIRECTIONS = 100
_BINS = 32


class TwoSample(NamedTuple):
    """A distance, and what it would be between sets of the same law.

    Attributes:
        name: Of the distance.
        statistic: The distance, in standard deviations of the reference where it has a unit.
        p_value: Share of relabelled sets that are at least as far apart, these two among them.
        null: The distances of relabelled sets, shape `(permutations,)`.
    """

    name: str
    statistic: float
    p_value: float
    null: np.ndarray

    @property
    def verdict(self) -> str:
        """One line: are the two sets of one law, as far as this distance can see?"""
        floor = f"{self.statistic:.3g}, {float(np.mean(self.null)):.3g} between equal laws"
        if self.p_value > failing(len(self.null)):
            return f"passes ({self.name} {floor}; p = {self.p_value:.2g})"
        return f"FAILS: {self.name} {floor}; p = {self.p_value:.2g}"


class MarginalJSD(NamedTuple):
    """Jensen-Shannon divergences of the marginals.

    Attributes:
        jsd: Of each parameter, in nats, at most log 2, shape `(d,)`; less the mean over relabelled
            sets, which finite numbers of draws cause, so that it may be slightly negative.
        error: Its standard deviation over relabelled sets, shape `(d,)`.
        p_value: Of each parameter by itself, shape `(d,)`.
    """

    jsd: np.ndarray
    error: np.ndarray
    p_value: np.ndarray


def mmd(
    key: Key, samples: ArrayLike, reference: ArrayLike, *, permutations: int = 500
) -> TwoSample:
    """Return the squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13).

    The kernel is Gaussian, with the median distance as its width: it sees shifts and widths well,
    and details much smaller than the whole badly.

    Args:
        key: A typed key, for the relabelling.
        samples: Draws, shape `(n, d)`.
        reference: Draws to compare with, shape `(m, d)`.
        permutations: Relabelled sets.

    Raises:
        TypeError: If the key is not typed.
        ValueError: If the shapes do not fit, or a draw is not finite.
    """
    return _test("MMD²", _mmd, key, samples, reference, permutations, LIMIT)


def energy_distance(
    key: Key, samples: ArrayLike, reference: ArrayLike, *, permutations: int = 500
) -> TwoSample:
    """Return the energy distance 2 E|a - b| - E|a - a'| - E|b - b'| (Székely & Rizzo 2013).

    Zero for equal laws only, without a width to choose. Arguments and errors as for `mmd`.
    """
    return _test("energy distance", _energy, key, samples, reference, permutations, LIMIT)


def sliced_wasserstein(
    key: Key, samples: ArrayLike, reference: ArrayLike, *, permutations: int = 200
) -> TwoSample:
    """Return the mean 1-Wasserstein distance of projections (Bonneel et al. 2015).

    Of 100 random directions; how far, on average, a projected draw has to move, in the reference's
    standard deviations. Arguments and errors as for `mmd`.
    """
    return _test("sliced Wasserstein", _sliced, key, samples, reference, permutations, MANY)


def marginal_jsd(
    key: Key, samples: ArrayLike, reference: ArrayLike, *, permutations: int = 200
) -> MarginalJSD:
    """Return the Jensen-Shannon divergence of every marginal, as gravitational-wave papers do.

    Between histograms of 32 bins of equal content: blind to correlations. Arguments and errors as
    for `mmd`.
    """
    value, null = _values(_jsd, key, samples, reference, permutations, MANY)
    return MarginalJSD(jsd=value - null.mean(0), error=null.std(0), p_value=_p_value(value, null))


class ClassifierTest(NamedTuple):
    """What a classifier tells of two sets, on draws that it was not trained on.

    Attributes:
        accuracy: Share that it assigns rightly: 1/2 for equal laws.
        js: The Jensen-Shannon divergence, in nats, as far as the classifier sees it (its held-out
            loss below log 2): at most log 2, on average not above the true one, and negative by
            what it has learned from noise.
    """

    accuracy: TwoSample
    js: TwoSample


def classifier_test(
    key: Key, samples: ArrayLike, reference: ArrayLike, *, permutations: int = 100
) -> ClassifierTest:
    """Return a classifier two-sample test with a p-value (Lopez-Paz & Oquab 2017, 1610.06545).

    One small network and, side by side with it, one for each exchange of labels between a sample
    and its partner in the reference: the p-values are exact, however poor the networks. Half of
    the draws train, half test. Use `c2st` for the accuracy that is quoted in the field.

    Arguments and errors as for `mmd`; as many draws of both sets are used, at least 20.
    """
    sets = _sets(key, samples, reference, permutations, MANY)
    n = min(map(len, sets))
    if n < 20:
        raise ValueError(f"classifier_test: expected at least 20 draws of each set, got {n}.")
    values = np.asarray(_classify(key, *(one[:n] for one in sets), permutations), float)
    tests = (
        TwoSample(name, float(column[0]), float(_p_value(column[0], column[1:])), column[1:])
        for name, column in zip(("C2ST", "Jensen-Shannon"), values, strict=True)
    )
    return ClassifierTest(*tests)


def _test(name: str, *arguments: Any) -> TwoSample:
    value, null = _values(*arguments)
    return TwoSample(name, float(value), float(_p_value(value, null)), null)


def _p_value(value: np.ndarray, null: np.ndarray) -> np.ndarray:
    return (1.0 + np.sum(null >= value, axis=0)) / (1.0 + len(null))


def _values(
    distance: Callable[[Key, Array, Array], Array],
    key: Key,
    samples: ArrayLike,
    reference: ArrayLike,
    permutations: int,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of the two sets, and those of relabelled ones.

    A distance is a function of a key, all draws `(n, d)`, and which are samples, one row for each
    labelling: as given, then relabelled, `(1 + permutations, n)`.
    """
    sets = _sets(key, samples, reference, permutations, limit)
    label = jnp.asarray(np.repeat([0.0, 1.0], [len(one) for one in sets]))
    key_labels, key_distance = jax.random.split(key)
    keys = jax.random.split(key_labels, permutations)
    shuffled = jax.vmap(lambda k: jax.random.permutation(k, label))(keys)
    labels = jnp.concatenate([label[None], shuffled])
    values = np.asarray(distance(key_distance, jnp.asarray(np.concatenate(sets)), labels), float)
    return values[0], values[1:]


def _sets(
    key: Key, samples: ArrayLike, reference: ArrayLike, permutations: int, limit: int
) -> list[np.ndarray]:
    """Return samples and reference, scaled, and thinned to `limit`; refuse what does not fit."""
    check_key(key)
    if permutations < 19:
        raise ValueError(
            f"permutations: expected at least 19, for p-values down to 0.05, got {permutations}."
        )
    rows, y = labelled(samples, reference)
    sets = [rows[y == label] for label in (0.0, 1.0)]
    return [one[:: -(-len(one) // limit)] for one in sets]


def _counts(labels: Array) -> tuple[Array, Array]:
    """Return how many draws are samples, and how many are not: the same for every labelling."""
    n = jnp.sum(labels[0])
    return n, labels.shape[1] - n


def _distances(rows: Array) -> Array:
    """Return all Euclidean distances `(n, n)`."""
    return jax.lax.map(
        lambda row: jnp.sqrt(jnp.sum((rows - row[None]) ** 2, 1)), rows, batch_size=100
    )


def _contrast(matrix: Array, labels: Array) -> Array:
    """Return the mean within both sets minus twice that between them, for each labelling.

    The diagonal of the matrix must be zero: a draw is not compared with itself.
    """
    n, m = _counts(labels)
    to_samples = labels @ matrix
    to_all = jnp.sum(matrix, 0)[None]
    within = jnp.sum(to_samples * labels, 1)
    between = jnp.sum(to_samples * (1.0 - labels), 1)
    other = jnp.sum((to_all - to_samples) * (1.0 - labels), 1)
    return within / (n * (n - 1.0)) + other / (m * (m - 1.0)) - 2.0 * between / (n * m)


@jax.jit
def _mmd(_: Key, rows: Array, labels: Array) -> Array:
    distance = _distances(rows)
    # The diagonal is a negligible part of the median.
    kernel = jnp.exp(-0.5 * (distance / jnp.median(distance)) ** 2)
    return _contrast(kernel - jnp.diag(jnp.diagonal(kernel)), labels)


@jax.jit
def _energy(_: Key, rows: Array, labels: Array) -> Array:
    return -_contrast(_distances(rows), labels)


@jax.jit
def _sliced(key: Key, rows: Array, labels: Array) -> Array:
    n, m = _counts(labels)

    def one(direction: Array) -> Array:
        line = rows @ direction
        order = jnp.argsort(line)
        gap = jnp.diff(line[order])
        step = labels[:, order] / n - (1.0 - labels[:, order]) / m
        return jnp.abs(jnp.cumsum(step, 1)[:, :-1]) @ gap

    return jnp.mean(jax.lax.map(one, unit_vectors(key, _DIRECTIONS, rows.shape[1])), 0)


@jax.jit
def _jsd(_: Key, rows: Array, labels: Array) -> Array:
    n, m = _counts(labels)

    def entropy(p: Array) -> Array:
        return -jnp.sum(jax.scipy.special.xlogy(p, p), -1)

    def one(column: Array) -> Array:
        edges = jnp.quantile(column, jnp.arange(1, _BINS) / _BINS)
        bins = jax.nn.one_hot(jnp.searchsorted(edges, column), _BINS)
        p, q = labels @ bins / n, (1.0 - labels) @ bins / m
        return entropy(0.5 * (p + q)) - 0.5 * (entropy(p) + entropy(q))

    return jax.lax.map(one, rows.T).T


@functools.partial(jax.jit, static_argnames="permutations")
def _classify(key: Key, samples: Array, reference: Array, permutations: int) -> Array:
    """Return accuracies and divergences, shape `(2, 1 + permutations)`; first of the true labels.

    Pairs are shuffled: draws of a chain stand in an order that a test on their second half sees.
    """
    key_order, key_sign, key_start, key_batch = jax.random.split(key, 4)
    n = len(samples)
    keys = jax.random.split(key_order)
    one, other = (
        a[jax.random.permutation(k, n)] for k, a in zip(keys, (samples, reference), strict=True)
    )
    exchanged = jax.random.rademacher(key_sign, (permutations, n), one.dtype)
    sign = jnp.concatenate([jnp.ones_like(exchanged[:1]), exchanged])
    half = n // 2

    def each(key: Key, sign: Array) -> Array:
        params = train(key, key_batch, one[:half], other[:half], sign[:half])
        score = jax.vmap(jax.vmap(logit, (None, 0)), (None, 0))(
            params, jnp.stack([one[half:], other[half:]])
        )
        score = sign[None, half:] * score * jnp.array([[1.0], [-1.0]])  # positive where it is right
        loss = jnp.mean(jax.nn.softplus(-score))
        return jnp.stack([jnp.mean(score > 0), jnp.log(2.0) - loss])

    return jax.vmap(each)(jax.random.split(key_start, 1 + permutations), sign).T
