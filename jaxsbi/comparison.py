"""Model comparison without likelihoods: amortized probabilities of simulators, by a classifier.

A classifier trained on equally many simulations of each model learns the models' posterior
probabilities, and so the ratios of their evidences, for any observation at once (Radev et al.
2021, arXiv:2004.10629; Elsemüller et al. 2023, arXiv:2301.11873).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxsbi.base import (
    Array,
    Data,
    DataSpec,
    Key,
    Posterior,
    Simulations,
    Simulator,
    check_key,
)
from jaxsbi.fit import fit
from jaxsbi.methods.classification import ModelClassifier
from jaxsbi.priors import Prior
from jaxsbi.simulate import simulate, simulator_shape
from jaxsbi.workarounds import register_dataclass

Models = Mapping[str, tuple[Prior, Simulator]]
"""Name → the prior and the simulator of one model."""
BINS = 10
RESAMPLES = 999


class ComparisonCheck(NamedTuple):
    """Are the probabilities of models what they say? On fresh simulations of all models.

    Attributes:
        names: The models.
        confusion: Simulations of model i (rows) for which model j was the most probable, `(K, K)`.
        predicted: Mean predicted probability of each model in each bin of it, shape `(K, bins)`;
            NaN where there is none.
        observed: Share of simulations in that bin that were of the model, same shape.
        counts: Simulations in that bin, same shape.
        error: Expected calibration error: mean |observed - predicted| over models and bins,
            weighted by their counts.
        error_if_calibrated: What it would be, on average, for perfect probabilities: not zero,
            for the simulations are finitely many.
        p_value: Share of resampled truths, drawn from the predicted probabilities, whose error is
            at least as large.
        log_score: Mean log-probability of the true model, in nats. Calibrated probabilities may
            say nothing: those of the prior score `log_score_prior`.
        log_score_prior: That of the prior's probabilities.
    """

    names: tuple[str, ...]
    confusion: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    error: float
    error_if_calibrated: float
    p_value: float
    log_score: float
    log_score_prior: float

    @property
    def accuracy(self) -> float:
        """The share of simulations whose most probable model is the true one."""
        return float(np.trace(self.confusion) / np.sum(self.confusion))

    @property
    def verdict(self) -> str:
        """One line: whether the probabilities are calibrated, and how much they say."""
        passed = "passes" if self.p_value >= 0.01 else "FAILS"
        return (
            f"calibration {passed} (p = {self.p_value:.2g}; error {self.error:.3f}, "
            f"{self.error_if_calibrated:.3f} if calibrated); {self.accuracy:.1%} recognised, "
            f"{self.log_score - self.log_score_prior:.2f} nats gained on the prior"
        )


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Comparison:
    """Amortized probabilities of models: what `compare` returns. A pytree.

    Attributes:
        posterior: Of the model's index, all models equally probable a priori.
        log_weights: Log of the models' prior probabilities, shape `(K,)`.
        validation_loss: The classifier's cross-entropy on simulations held out from training, in
            nats (a scalar): log K for one that has learned nothing.
        names: The models.
    """

    posterior: Posterior
    log_weights: Array
    validation_loss: Array
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def probabilities(self, x: Data) -> dict[str, Array]:
        """Return the posterior probability of each model given one observation, by name.

        Put it under `jax.vmap` for many observations. No classifier notices an observation that
        none of the models makes: look at `jaxsbi.diagnostics.prior_predictive` first.

        Raises:
            TypeError, ValueError: If `x` is not a data set as the simulators return it.

        Warns:
            UserWarning: If a number of `x` lies far beyond all simulations.
        """
        values = jnp.exp(_log_probabilities(self, self._observation(x)))
        return dict(zip(self.names, values, strict=True))

    def log_bayes_factors(self, x: Data, reference: str | None = None) -> dict[str, Array]:
        """Return log p(x | model) - log p(x | reference) of each model, in nats, by name.

        They do not depend on the models' prior probabilities. A classifier learns them where
        simulations of both models are found: beyond about the log of their number, 8 nats for
        4,000, it extrapolates.

        Args:
            x: One data set.
            reference: The name of the model to compare with; the first one by default.

        Raises:
            TypeError, ValueError: If `x` is not a data set as the simulators return it.
            ValueError: If there is no such model.
        """
        if reference is not None and reference not in self.names:
            raise ValueError(f"reference: expected one of {list(self.names)}, got {reference!r}.")
        log_p = _log_probabilities(self, self._observation(x)) - self.log_weights
        base = 0 if reference is None else self.names.index(reference)
        return dict(zip(self.names, log_p - log_p[base], strict=True))

    def _observation(self, x: Data) -> Data:
        x = self.posterior.conform(x)
        self.posterior.warn_beyond(x)
        return x

    def check(self, key: Key, models: Models, n: int = 2000) -> ComparisonCheck:
        """Check the probabilities on `n` fresh simulations of models drawn from their prior.

        A host function. The p-value resamples the truth from the predictions (Vaicenavicius et al.
        2019, arXiv:1902.06977), so it holds at any n; the error is the class-wise one of Kull et
        al. 2019, arXiv:1910.12656.

        Args:
            key: A typed key.
            models: As for `compare`.
            n: Simulations, of all models together.

        Raises:
            TypeError: If the key is not typed, or the models' data are not those of the training.
            ValueError: If `models` has other names, or `n < 100`.
        """
        check_key(key)
        _check_models(models)
        if set(models) != set(self.names) or n < 100:
            raise ValueError(
                f"check: expected the models {list(self.names)} and n >= 100, got {list(models)} "
                f"and n={n}."
            )
        for name, model in models.items():
            _check_spec(name, DataSpec.of(simulator_shape(*model)), self.posterior.data)
        key_truth, key_x, key_null = jax.random.split(key, 3)
        drawn = np.asarray(jax.random.categorical(key_truth, self.log_weights, shape=(n,)))
        counts = np.bincount(drawn, minlength=len(self.names))
        sizes = dict(zip(self.names, counts.tolist(), strict=True))
        rows = _simulate({name: models[name] for name in self.names}, sizes, key_x, False)
        valid = np.asarray(rows.weight) > 0
        log_p = np.asarray(_all_log_probabilities(self, rows.x), float)[valid]
        truth = np.asarray(rows.theta["model"]).astype(int)[valid]
        generator = np.random.default_rng(np.asarray(jax.random.bits(key_null, (4,))))
        log_weights = np.asarray(self.log_weights, float)
        return _calibration(generator, self.names, log_weights, log_p, truth)


def compare(
    key: Key,
    models: Models,
    n: int,
    *,
    weights: Mapping[str, float] | None = None,
    classifier: nn.Module | None = None,
    summary: nn.Module | None = None,
    progress: bool = True,
) -> Comparison:
    """Learn the posterior probabilities of models from simulations, for any observation at once.

    Each model's evidence includes its prior: a wide prior that predicts much else costs evidence.
    Simulations that are not finite are left out, and lower their model's evidence, as they should:
    no observation is like them.

    Args:
        key: A typed key; the same key gives the same comparison on the same machine.
        models: Name → (prior, simulator), two or more. All simulators return data of one structure.
        n: Simulations of each model.
        weights: Name → prior probability of the model, up to a common factor; equal by default.
        classifier: A Flax module called on a vector, the standardised data or their summary; a
            linear head with a logit per model is added. A residual perceptron by default.
        summary: A Flax module called on one data set that returns a vector; flattened by default.
        progress: Show progress bars.

    Returns:
        `.probabilities(x)`, `.log_bayes_factors(x)`, and `.check(key, models)`.

    Raises:
        TypeError: If the key is not typed, a model is not a pair of a prior and a simulator, or
            their data have different structures, shapes or dtypes.
        ValueError: If there are fewer than two models, weights have other names or are not
            positive, or there are too few simulations.

    Example:
        >>> import jaxsbi, numpyro.distributions as dist
        >>> near = jaxsbi.Prior(mean=dist.Normal(0.0, 1.0))
        >>> far = jaxsbi.Prior(mean=dist.Normal(4.0, 1.0))
        >>> simulator = lambda key, theta: theta["mean"] + jax.random.normal(key, (1,))
        >>> models = {"near": (near, simulator), "far": (far, simulator)}
        >>> comparison = compare(jax.random.key(0), models, 500, progress=False)
        >>> bool(comparison.probabilities(jnp.array([5.0]))["far"] > 0.9)
        True
    """
    check_key(key)
    _check_models(models)
    names = tuple(models)
    log_weights = _log_weights(names, weights)
    if not isinstance(n, int | np.integer) or n < 10:
        raise ValueError(f"n: expected at least 10 simulations of each model, got {n!r}.")
    key_x, key_fit = jax.random.split(key)
    rows = _simulate(models, dict.fromkeys(names, int(n)), key_x, progress)
    given = {} if classifier is None else {"classifier": classifier}
    method = ModelClassifier(size=len(names), summary=summary, **given)
    prior = Prior(model=dist.Uniform(-0.5, len(names) - 0.5))
    fitted = fit(key_fit, method, prior, rows, progress=progress)
    loss = jnp.asarray(fitted.history.best_loss, float)
    return Comparison(fitted.posterior, log_weights, loss, names)


def _check_models(models: Any) -> None:
    if not isinstance(models, Mapping) or not all(isinstance(name, str) for name in models):
        raise TypeError(
            "models: expected a dict such as {'line': (prior, simulator), 'parabola': (prior, "
            f"simulator)}}, got {type(models).__name__}."
        )
    if len(models) < 2:
        raise ValueError(f"models: expected at least two to compare, got {list(models)}.")
    for name, model in models.items():
        pair = isinstance(model, tuple | list) and len(model) == 2
        if not pair or not isinstance(model[0], Prior) or not callable(model[1]):
            raise TypeError(
                f"models[{name!r}]: expected (prior, simulator), got "
                f"{type(model).__name__}. Pass a jaxsbi.Prior and a function (key, theta) -> x."
            )
    specs = {name: DataSpec.of(simulator_shape(*model)) for name, model in models.items()}
    for name, spec in specs.items():
        _check_spec(name, spec, next(iter(specs.values())))


def _check_spec(name: str, spec: DataSpec, wanted: DataSpec) -> None:
    if spec != wanted:
        raise TypeError(
            f"models[{name!r}]: expected data {wanted}, as the other models', got {spec}. All "
            "simulators must return one structure, with equal names, shapes and dtypes: a "
            "difference would tell the models apart by itself."
        )


def _log_weights(names: tuple[str, ...], weights: Mapping[str, float] | None) -> Array:
    if weights is None:
        return jnp.full(len(names), -math.log(len(names)), float)
    if not isinstance(weights, Mapping) or set(weights) != set(names):
        got = list(weights) if isinstance(weights, Mapping) else type(weights).__name__
        raise ValueError(f"weights: expected one for each of {list(names)}, by name, got {got}.")
    values = np.array([weights[name] for name in names], float)
    if not np.all(np.isfinite(values)) or not np.all(values > 0):
        raise ValueError(
            f"weights: expected positive numbers, got {dict(weights)}. Leave out a model that is "
            "impossible."
        )
    return jnp.asarray(np.log(values / values.sum()), float)


def _simulate(models: Models, sizes: dict[str, int], key: Key, progress: bool) -> Simulations:
    """Simulate each model, and return all rows in random order, with their model's index."""
    key_order, *keys = jax.random.split(key, 1 + len(models))
    total = sum(sizes.values())
    # Small enough that the sizes of a check, drawn at random, share one compiled program.
    chunk = max(1, total // (4 * len(models))) if len(set(sizes.values())) > 1 else None
    parts = []
    for index, (each, (name, (prior, simulator))) in enumerate(
        zip(keys, models.items(), strict=True)
    ):
        n = sizes[name]
        if n:
            part = simulate(each, prior, simulator, n, chunk_size=chunk, progress=progress)
            parts.append((np.full(n, index, float), part.x, part.weight))
    # `fit` validates on the last rows: they must be of all models.
    order = np.asarray(jax.random.permutation(key_order, total))
    # By NumPy, for JAX would compile a program for every combination of sizes.
    model, x, weight = jax.tree.map(
        lambda *a: jnp.asarray(np.concatenate([np.asarray(b) for b in a])[order]), *parts
    )
    return Simulations({"model": model}, x, weight)


@jax.jit
def _log_probabilities(comparison: Comparison, x: Data) -> Array:
    """Return the log of the models' posterior probabilities, shape `(K,)`."""
    posterior = comparison.posterior
    log_p = posterior.method.log_probabilities(posterior.variables, x)  # type: ignore[attr-defined]
    return jax.nn.log_softmax(log_p + comparison.log_weights)


@jax.jit
def _all_log_probabilities(comparison: Comparison, x: Data) -> Array:
    return jax.lax.map(lambda one: _log_probabilities(comparison, one), x, batch_size=1000)


def _calibration(
    generator: np.random.Generator,
    names: tuple[str, ...],
    log_weights: np.ndarray,
    log_p: np.ndarray,
    truth: np.ndarray,
) -> ComparisonCheck:
    """Return the check of log-probabilities `(n, K)` against true indices `(n,)`."""
    n, k = log_p.shape
    p = np.exp(log_p)
    p = p / p.sum(1, keepdims=True)
    # Model by model, the bin that its probability lies in.
    bins = np.minimum((p * BINS).astype(int), BINS - 1) + BINS * np.arange(k)

    def totals(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(np.ravel(bins), np.ravel(values), minlength=k * BINS)
        return sums.reshape(k, BINS)

    def error(labels: np.ndarray) -> float:
        return float(np.sum(np.abs(totals(np.eye(k)[labels] - p))) / (n * k))

    cumulative = np.cumsum(p, 1)
    null = np.array(
        [
            error(np.minimum(np.sum(cumulative < generator.random((n, 1)), 1), k - 1))
            for _ in range(RESAMPLES)
        ]
    )
    found, counts = error(truth), totals(np.ones_like(p))
    confusion = np.zeros((k, k), int)
    np.add.at(confusion, (truth, np.argmax(p, 1)), 1)
    with np.errstate(invalid="ignore"):
        predicted, observed = totals(p) / counts, totals(np.eye(k)[truth]) / counts
    return ComparisonCheck(
        names=names,
        confusion=confusion,
        predicted=predicted,
        observed=observed,
        counts=counts.astype(int),
        error=found,
        error_if_calibrated=float(null.mean()),
        p_value=float((1 + np.sum(null >= found)) / (1 + RESAMPLES)),
        log_score=float(np.mean(log_p[np.arange(n), truth])),
        log_score_prior=float(np.mean(log_weights[truth])),
    )
