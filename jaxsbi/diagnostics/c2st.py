"""The classifier two-sample test (C2ST): how well a classifier tells two sets of draws apart.

The accuracy of a small network under cross-validation is 0.5 where the sets come from one
distribution and 1 where they do not overlap (Lopez-Paz & Oquab 2017, arXiv:1610.06545). The
benchmark of Lueckmann et al. (2021, arXiv:2101.04653) fixed the network, its training and the
scaling of the data, and that fixes the number:

- `c2st_standard` is that metric, trained by scikit-learn;
- `c2st_twin` is the same metric in JAX: same folds, initial weights, shuffles, optimiser and
  stopping rule, several times faster. Only the rounding of float32 sums differs, which a long
  training amplifies: the two agree closely, not to the bit;
- `c2st` is the twin with a seed drawn from a key.

The classifier is a network d → 10·d → 10·d → 1 with relu, trained with Adam (step 1e-3) on the log
loss plus an L2 penalty in batches of 200, until the mean loss of an epoch has failed to fall 1e-4
below the best one in more than 10 epochs running.

It asks how far draws are from a reference, and has no p-value: `classifier_test` does. Cannot see:
what so small a network does not learn. When it is far from 0.5: as for the other distances between
two sets (`two_sample.py`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxsbi.base import Array, Key, check_key

NUM_FOLDS = 5
MAX_EPOCHS = 10_000
_WIDTH = 10  # hidden units per dimension
_BATCH = 200
_RATE, _BETA1, _BETA2, _EPSILON = 1e-3, 0.9, 0.999, 1e-8
_ALPHA = 1e-4  # strength of the L2 penalty
_TOLERANCE, _PATIENCE = 1e-4, 10
_CHUNK = 16  # epochs per call: their shuffles are made on the host and sent together


class C2ST(NamedTuple):
    """The twin's result, fold by fold.

    Attributes:
        accuracy: Accuracy on each held-out fold, shape `(NUM_FOLDS,)`; their mean is the C2ST.
        epochs: Epochs until training stopped, shape `(NUM_FOLDS,)`.
    """

    accuracy: np.ndarray
    epochs: np.ndarray


class _State(NamedTuple):
    """Where the training of one fold stands; all weights and biases are one flat vector."""

    weights: Array
    mean: Array
    square: Array
    step: Array
    best: Array
    stale: Array
    epoch: Array


def c2st(key: Key, samples: ArrayLike, reference: ArrayLike) -> float:
    """Return the C2ST accuracy between two sets of draws, 0.5 where they cannot be told apart.

    A host function: it checks its arguments and its training stops when it has converged, so it
    cannot be put under `jax.jit` or `jax.vmap`. The compiled training is cached by shapes.

    Args:
        key: A typed key; it seeds the folds, the initial weights and the shuffles.
        samples: The draws to judge, shape `(n, d)`.
        reference: The draws to compare with, shape `(m, d)`; both sets are scaled by their mean
            and standard deviation (a column that does not vary is only shifted). With n ≠ m the
            accuracy of a blind guess is max(n, m) / (n + m), not 0.5.

    Returns:
        The mean accuracy on held-out draws under 5-fold cross-validation.

    Raises:
        TypeError: If the key is not a typed key.
        ValueError: If the sets are not matrices of equal width, hold fewer than 5 rows, or values
            that are not finite.

    Example:
        >>> a, b = jax.random.normal(jax.random.key(0), (2, 500, 1))
        >>> far = c2st(jax.random.key(1), a + 10.0, b)
        >>> far > 0.99
        True
    """
    check_key(key)
    return c2st_twin(samples, reference, int(jax.random.bits(key, dtype=jnp.uint32)))


def c2st_twin(samples: ArrayLike, reference: ArrayLike, seed: int = 1) -> float:
    """Return what `c2st_standard` returns for this seed, up to rounding in the training, faster.

    Args:
        samples: The draws to judge, shape `(n, d)`.
        reference: The draws to compare with, shape `(m, d)`.
        seed: The `random_state` of scikit-learn's folds and classifier, whose random numbers
            (NumPy's legacy generator, a fixed stream) are replayed. Whether a fold that begins on
            a plateau of the loss stops there depends on them, and moves the mean over folds.

    Raises:
        ValueError: As `c2st`.
    """
    return float(c2st_folds(samples, reference, seed).accuracy.mean())


def c2st_folds(samples: ArrayLike, reference: ArrayLike, seed: int = 1) -> C2ST:
    """Return the accuracy and the training length of each fold of `c2st_twin`."""
    x, y = labelled(samples, reference)
    order = np.arange(len(x))
    np.random.RandomState(seed).shuffle(order)
    tests = np.array_split(order, NUM_FOLDS)
    groups: dict[int, list[int]] = {}
    for fold, test in enumerate(tests):
        groups.setdefault(len(test), []).append(fold)
    accuracy, epochs = np.zeros(NUM_FOLDS), np.zeros(NUM_FOLDS, int)
    for folds in groups.values():
        shuffles = _Shuffles(x.shape, len(x) - len(tests[folds[0]]), seed)
        for some in _programs(folds):
            held = np.zeros((len(some), len(x)), bool)
            for row, fold in enumerate(some):
                held[row, tests[fold]] = True
            split = [np.stack([a[rows] for rows in mask]) for mask in (~held, held) for a in (x, y)]
            accuracy[some], epochs[some] = _train_and_score(split, shuffles)
    return C2ST(accuracy, epochs)


def c2st_standard(samples: ArrayLike, reference: ArrayLike, seed: int = 1) -> float:
    """Return the C2ST of the published benchmark, computed by scikit-learn.

    Args:
        samples: The draws to judge, shape `(n, d)`.
        reference: The draws to compare with, shape `(m, d)`; both sets are scaled by their mean
            and standard deviation.
        seed: `random_state` of the folds and of the classifier.

    Returns:
        The mean accuracy on held-out draws under 5-fold cross-validation.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: As `c2st`.
    """
    try:
        from sklearn.model_selection import KFold, cross_val_score
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise ImportError(
            "c2st_standard needs scikit-learn: pip install 'jaxsbi[bench]'. "
            "jaxsbi.diagnostics.c2st needs nothing else."
        ) from error
    x, y = labelled(samples, reference)
    classifier = MLPClassifier(
        activation="relu",
        hidden_layer_sizes=(_WIDTH * x.shape[1],) * 2,
        max_iter=MAX_EPOCHS,
        solver="adam",
        random_state=seed,
    )
    folds = KFold(n_splits=NUM_FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(classifier, x, y, cv=folds, scoring="accuracy").mean())


def labelled(samples: ArrayLike, reference: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Check, scale and stack both sets, the reference first, as the published metric does."""
    sets = {}
    for name, given in (("samples", samples), ("reference", reference)):
        rows = np.asarray(given)
        if rows.ndim != 2 or rows.shape[1] < 1:
            raise ValueError(
                f"{name}: expected a matrix (draws, dimensions), got shape {rows.shape}. "
                "Flatten named draws with prior.flatten, or add a column axis: x[:, None]."
            )
        if len(rows) < NUM_FOLDS:
            raise ValueError(f"{name}: expected at least {NUM_FOLDS} draws, got {len(rows)}.")
        rows = rows.astype(np.float64)
        bad = int((~np.isfinite(rows)).any(axis=1).sum())
        if bad:
            raise ValueError(
                f"{name}: {bad} of {len(rows)} draws hold NaN or infinite values. "
                "Leave them out, and report how many there were."
            )
        sets[name] = rows
    if sets["samples"].shape[1] != sets["reference"].shape[1]:
        widths = " and ".join(str(rows.shape[1]) for rows in sets.values())
        raise ValueError(f"samples and reference: expected equal dimensions, got {widths}.")
    centre, scale = sets["reference"].mean(0), sets["reference"].std(0, ddof=1)
    # Dividing by the zero spread of a constant column would make every draw NaN.
    scale = np.where(scale > 0, scale, 1.0)
    # float32 like the tensors that the published metric was computed from.
    x = np.concatenate([(sets[name] - centre) / scale for name in ("reference", "samples")])
    y = np.repeat(np.array([0, 1], np.float32), [len(sets["reference"]), len(sets["samples"])])
    return x.astype(np.float32), y


def _programs(folds: list[int]) -> list[list[int]]:
    """Split folds into those trained by one program, under `vmap`.

    On a CPU that is one each: five folds' steps cost there what five steps of one fold cost
    (measured within 20 % for d = 2 … 10), but together they all wait for the slowest. On an
    accelerator the number of steps decides, and one program trains them all.
    """
    return [[fold] for fold in folds] if jax.default_backend() == "cpu" else [folds]


class _Shuffles:
    """The initial weights and the epochs' shuffles of scikit-learn's classifier for one seed.

    Every fold of one size begins with the same seed, so all of them share these numbers.
    """

    def __init__(self, shape: tuple[int, int], num_rows: int, seed: int):
        random = np.random.RandomState(seed)
        sizes = _sizes(shape[1])
        parts = []
        for fan_in, fan_out in sizes:
            bound = np.sqrt(6.0 / (fan_in + fan_out))  # Glorot & Bengio 2010, for relu
            parts.append(random.uniform(-bound, bound, fan_in * fan_out))
            parts.append(random.uniform(-bound, bound, fan_out))
        # All matrices, then all biases: the penalty is then on a leading part of the vector.
        self.weights = np.concatenate(parts[::2] + parts[1::2]).astype(np.float32)
        self._random = random
        self._order = np.arange(num_rows)
        self._chunks: list[np.ndarray] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give the row orders of epochs 1 … _CHUNK, then of the next, shape `(_CHUNK, rows)`."""
        for number in range(-(-MAX_EPOCHS // _CHUNK)):
            if number == len(self._chunks):
                self._chunks.append(self._draw())
            yield self._chunks[number]

    def _draw(self) -> np.ndarray:
        chunk = np.empty((_CHUNK, len(self._order)), np.int32)
        for row in chunk:
            shuffle = np.arange(len(self._order))
            self._random.shuffle(shuffle)
            self._order = self._order[shuffle]  # each epoch shuffles what the last one left
            row[:] = self._order
        return chunk


def _train_and_score(split: list[np.ndarray], shuffles: _Shuffles) -> tuple[np.ndarray, np.ndarray]:
    """Train some folds of one size together; return accuracies and epochs, shape `(folds,)`."""
    x, y, x_test, y_test = (jnp.asarray(part) for part in split)
    state = jax.vmap(_init, (None, 0))(jnp.asarray(shuffles.weights), x[:, 0, 0])
    for orders in shuffles:
        state, running = _advance(state, x, y, jnp.asarray(orders))
        if not np.asarray(running).any():
            break
    if not np.isfinite(np.asarray(state.weights)).all():
        raise ValueError(
            "C2ST: the classifier's training diverged; the samples lie very many standard "
            "deviations of the reference apart. Look at them before scoring them."
        )
    return np.asarray(_accuracy(state.weights, x_test, y_test)), np.asarray(state.epoch)


def _sizes(dim: int) -> tuple[tuple[int, int], ...]:
    return (dim, _WIDTH * dim), (_WIDTH * dim, _WIDTH * dim), (_WIDTH * dim, 1)


def _init(weights: Array, _: Array) -> _State:
    zero = jnp.zeros_like(weights)
    count = jnp.zeros((), jnp.int32)
    best = jnp.full((), jnp.inf, jnp.float32)
    return _State(weights, zero, zero, jnp.zeros((), jnp.float32), best, count, count)


def _unpack(weights: Array, dim: int) -> tuple[list[Array], list[Array]]:
    """Return the three matrices and the three biases, as rows."""
    sizes = _sizes(dim)
    lengths = [fan_in * fan_out for fan_in, fan_out in sizes] + [fan_out for _, fan_out in sizes]
    parts = jnp.split(weights, np.cumsum(lengths)[:-1])
    matrices = [part.reshape(size) for part, size in zip(parts[:3], sizes, strict=True)]
    return matrices, [part[None] for part in parts[3:]]


def _running(state: _State) -> Array:
    return (state.stale <= _PATIENCE) & (state.epoch < MAX_EPOCHS)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
def _advance(state: _State, x: Array, y: Array, orders: Array) -> tuple[_State, Array]:
    """Train one fold for a chunk of epochs, or until it stops.

    Args:
        state: Where the training stands.
        x: Training rows, shape `(rows, d)`.
        y: Their labels, 0 or 1, shape `(rows,)`.
        orders: The order of the rows in each epoch, shape `(_CHUNK, rows)`.

    Returns:
        The new state, and whether the fold is still in training.
    """

    def running(carry: tuple[Array, _State]) -> Array:
        return (carry[0] < len(orders)) & _running(carry[1])

    def body(carry: tuple[Array, _State]) -> tuple[Array, _State]:
        return carry[0] + 1, _epoch(carry[1], x, y, orders[carry[0]])

    state = jax.lax.while_loop(running, body, (jnp.zeros((), jnp.int32), state))[1]
    return state, _running(state)


def _epoch(state: _State, x: Array, y: Array, order: Array) -> _State:
    """Take one step per batch, the last one smaller if need be, and judge the mean loss."""
    rows = len(x)
    size = min(_BATCH, rows)
    whole = rows // size * size
    # One gather per epoch instead of one per step: for small d overheads decide, not arithmetic.
    x, y = x[order], y[order]
    carry: Any = (*state[:4], jnp.zeros((), jnp.float32))

    def step(carry: Any, batch: tuple[Array, Array]) -> tuple[Any, None]:
        return _step(carry, *batch, rows), None

    batches = x[:whole].reshape(-1, size, x.shape[1]), y[:whole].reshape(-1, size)
    carry, _ = jax.lax.scan(step, carry, batches)
    if whole < rows:
        carry = _step(carry, x[whole:], y[whole:], rows)
    weights, mean, square, steps, loss = carry
    stale = jnp.where(loss > state.best - _TOLERANCE, state.stale + 1, 0)
    best = jnp.minimum(loss, state.best)
    return _State(weights, mean, square, steps, best, stale, state.epoch + 1)


def _step(carry: tuple[Array, ...], x: Array, y: Array, rows: int) -> tuple[Array, ...]:
    """Take one Adam step on a batch and add its share to the epoch's mean loss.

    The gradient is written by hand and Adam acts on one flat vector: the matrices are so small
    that the number of operations decides, not their size.
    """
    weights, mean, square, step, total = carry
    loss, gradient = _loss_and_gradient(weights, x, y)
    step = step + 1
    mean = _BETA1 * mean + (1 - _BETA1) * gradient
    square = _BETA2 * square + (1 - _BETA2) * gradient**2
    # expm1, since 1 - 0.999**t loses its digits in float32 where t is small
    rate = jnp.sqrt(-jnp.expm1(step * math.log(_BETA2))) / -jnp.expm1(step * math.log(_BETA1))
    weights = weights - _RATE * rate * mean / (jnp.sqrt(square) + _EPSILON)
    return weights, mean, square, step, total + loss * (len(x) / rows)


def _loss_and_gradient(weights: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the mean log loss plus penalty of a batch, and its gradient as a flat vector."""
    n, dim = x.shape
    (w1, w2, w3), (b1, b2, b3) = _unpack(weights, dim)
    a1 = jax.nn.relu(x @ w1 + b1)
    a2 = jax.nn.relu(a1 @ w2 + b2)
    p = jax.nn.sigmoid((a2 @ w3 + b3)[:, 0])
    tiny = np.finfo(np.float32).eps  # where scikit-learn clips probabilities, in float32
    q = jnp.clip(p, tiny, 1 - tiny)
    penalised = sum(fan_in * fan_out for fan_in, fan_out in _sizes(dim))
    norm = jnp.sum(weights[:penalised] ** 2)
    loss = -jnp.mean(jnp.log(jnp.where(y > 0, q, 1 - q))) + 0.5 * _ALPHA / n * norm

    d3 = (p - y)[:, None]
    d2 = jnp.where(a2 > 0, d3 * w3.T, 0.0)
    d1 = jnp.where(a1 > 0, d2 @ w2.T, 0.0)
    parts = [(x.T @ d1).ravel(), (a1.T @ d2).ravel(), (a2.T @ d3).ravel()]
    parts += [d1.sum(0), d2.sum(0), d3.sum(0)]
    decay = jnp.where(jnp.arange(len(weights)) < penalised, _ALPHA * weights, 0.0)
    return loss, (jnp.concatenate(parts) + decay) / n


@jax.jit
@jax.vmap
def _accuracy(weights: Array, x: Array, y: Array) -> Array:
    """Return the share of held-out rows on the right side of one half."""
    (w1, w2, w3), (b1, b2, b3) = _unpack(weights, x.shape[1])
    score = jax.nn.relu(jax.nn.relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3
    return jnp.mean((score[:, 0] > 0) == (y > 0))
