"""Draw parameters from the prior and simulate: vmapped, jitted, in chunks that bound memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxsbi.base import (
    Array,
    Data,
    Key,
    Simulations,
    Simulator,
    Theta,
    check_key,
    positive,
    warn,
)
from jaxsbi.missing import cleared
from jaxsbi.priors import Prior

CHUNK_BYTES = 32 * 2**20
"""Target size of one chunk's outputs; intermediates of a simulator are often ten times that."""

CONTRASTS = 2**31 - 1
"""Folded into a simulation's key for its contrasts: no simulator splits its key into so many."""


def simulate(
    key: Key,
    prior: Prior,
    simulator: Simulator,
    n: int,
    *,
    chunk_size: int | None = None,
    progress: bool = True,
) -> Simulations:
    """Simulate `n` data sets, each from its own draw of the prior.

    Args:
        key: A typed key; the same key gives the same simulations for every chunk size (up to the
            rounding of batched matrix products inside the simulator).
        prior: The prior over named parameters.
        simulator: `simulator(key, theta) -> x` for one parameter set; pure JAX code, jitted and
            vmapped here. It is traced once per simulator *object*.
        n: The number of draws.
        chunk_size: Draws simulated at once; chosen from the size of `x` if not given.
        progress: Show a progress bar.

    Returns:
        Simulations with `weight` 0 where `x` (or theta) is not finite; these rows are reported by
        a warning and left out of training. What is masked may be anything, and becomes 0.

    Raises:
        TypeError: If the key is not typed, or the simulator returns something else than a pytree
            of arrays, or its shapes depend on the values of theta.
        ValueError: If `n < 1`, or every simulation is non-finite.
    """
    check_key(key)
    positive("n", n)
    shape = simulator_shape(prior, simulator)
    size = _chunk_size(shape, n) if chunk_size is None else positive("chunk_size", chunk_size)
    keys = jax.random.split(key, n)
    run = functools.partial(_simulate_chunk, simulator, prior)
    return _in_chunks(run, keys, size, simulator, progress)


def simulate_scored(
    key: Key,
    prior: Prior,
    simulator: Callable[[Key, Theta], tuple[Data, Any]],
    log_joint: Callable[[Theta, Data, Any], Array],
    n: int,
    *,
    contrasts: int = 0,
    progress: bool = True,
) -> Simulations:
    """Simulate as `simulate`, with the joint score of each draw, for methods with `score=…`.

    With `contrasts`, with joint ratios, too, for methods with `ratio=…`.

    The joint score is the gradient of log p(x, latents | theta) by theta, with x and the latents
    held (Brehmer et al. 2018, arXiv:1805.00013). It exists where every random number of the
    simulator has a law with a density that is written down; the likelihood, an integral over the
    latents, need not. The joint ratio is that of p(x, latents | theta) at two parameter sets, which
    is known where the score is: at those of the draw, and at others from the prior. Latents are
    used within the simulation, and not kept: there may be many of them.

    Args:
        key: A typed key; the same key gives the data that `simulate` gives.
        prior: The prior over named parameters.
        simulator: `simulator(key, theta) -> (x, latents)`, any pytrees of arrays.
        log_joint: `log_joint(theta, x, latents) -> scalar`, differentiable by theta.
        n: The number of draws.
        contrasts: How many more parameter sets get a joint ratio with each draw, at the cost of
            one `log_joint` each; 64, say. None by default.
        progress: Show a progress bar.

    Returns:
        Simulations with `score`, like `theta`, and, if wanted, with `contrasts` and `log_ratio`;
        draws for which one of them is NaN (or infinite: but a contrast may exclude a draw) have
        weight 0.

    Raises:
        TypeError, ValueError: As `simulate`; or if `contrasts` is negative.
    """
    if not isinstance(contrasts, int | np.integer) or contrasts < 0:
        raise ValueError(f"contrasts: expected an integer of 0 or more, got {contrasts!r}.")

    def scored(key: Key, theta: Theta) -> Data:
        x, latents = simulator(key, theta)
        log_p, score = jax.value_and_grad(log_joint)(theta, x, latents)
        found = {"x": x, "score": score, "contrasts": None, "log_ratio": None}
        if contrasts:
            keys = jax.random.split(jax.random.fold_in(key, CONTRASTS), contrasts)
            others = jax.vmap(prior.sample)(keys)
            log_ratio = jax.vmap(lambda other: log_joint(other, x, latents))(others) - log_p
            # Where a contrast excludes x or the latents its ratio is zero: no invalid simulation.
            lowest = jnp.where(jnp.isneginf(log_ratio), jnp.finfo(log_ratio.dtype).min, log_ratio)
            found |= {"contrasts": others, "log_ratio": lowest}
        return found

    rows = simulate(key, prior, scored, n, progress=progress)
    return Simulations(rows.theta, weight=rows.weight, **rows.x)


def simulate_at(
    key: Key, simulator: Simulator, theta: Theta, *, progress: bool = True
) -> Simulations:
    """Simulate one data set at each of many given parameter sets.

    Args:
        key: A typed key.
        simulator: As for `simulate`.
        theta: Named parameters, each of shape `(n, *shape)`.
        progress: Show a progress bar.

    Raises:
        TypeError, ValueError: As `simulate`.
    """
    check_key(key)
    n = next(iter(theta.values())).shape[0]
    shape = _shape_of(lambda key: simulator(key, jax.tree.map(lambda a: a[0], theta)))
    run = functools.partial(_simulate_at_chunk, simulator)
    rows = (theta, jax.random.split(key, n))
    return _in_chunks(run, rows, _chunk_size(shape, n), simulator, progress)


def _in_chunks(
    run: Callable[[Any], Any], rows: Any, size: int, simulator: Simulator, progress: bool
) -> Simulations:
    """Apply `run` to the rows of a pytree, `size` of them at once."""
    n, parts = jax.tree.leaves(rows)[0].shape[0], []
    with tqdm(total=n, desc="simulate", unit="sim", disable=not progress, leave=False) as bar:
        for start in range(0, n, size):
            index = np.minimum(np.arange(start, start + min(size, n)), n - 1)  # padded: one shape
            part = run(jax.tree.map(lambda a, i=index: a[i], rows))
            keep = min(size, n - start)
            # Host copies release each chunk's device memory before the next one starts.
            parts.append(jax.tree.map(lambda a, k=keep: np.asarray(a)[:k], part))
            bar.update(keep)
    theta, x, valid = jax.tree.map(lambda *a: jnp.asarray(np.concatenate(a)), *parts)
    report(np.asarray(valid), simulator)
    return Simulations(theta, x, valid.astype(jnp.float32))


def simulator_shape(prior: Prior, simulator: Simulator) -> Data:
    """Return the pytree of `jax.ShapeDtypeStruct` that one simulation yields.

    Raises:
        TypeError: As `simulate`.
    """

    def one(key: Key) -> Data:
        key_theta, key_x = jax.random.split(key)
        return simulator(key_x, prior.sample(key_theta))

    return _shape_of(one)


def _shape_of(one: Callable[[Key], Data]) -> Data:
    try:
        shape = jax.eval_shape(one, jax.random.key(0))
    except (TypeError, IndexError) as error:
        message = _explanation(error)
        if message is None:
            raise
        raise TypeError(message) from error
    leaves = jax.tree.leaves(shape)
    if not leaves:
        raise TypeError(
            f"simulator: expected a pytree of arrays, got {shape!r} with no array in it. "
            "Does the simulator return its data?"
        )
    return shape


def _explanation(error: Exception) -> str | None:
    """Return what to tell the user about a failed trace; `None` if the error tells it itself."""
    text = str(error).split("\n", 1)[0]
    value_dependent = (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.JAXIndexError,
    )
    if isinstance(error, value_dependent) or "Shapes must be 1D sequences" in text:
        return (
            "simulator: expected a JAX function whose shapes and branches do not depend on the "
            "values of theta, got one that does (or that calls NumPy on a traced value). Use "
            f"jnp.where, jax.lax.cond and masks with a fixed size. JAX says: {text}"
        )
    if "not a valid JAX type" in text:
        return (
            "simulator: expected a pytree of arrays (an array, or dicts, tuples, lists of "
            f"arrays), got something JAX cannot hold: {text}"
        )
    return None


def _chunk_size(shape: Data, n: int) -> int:
    per_draw = sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(shape))
    return int(min(n, max(1, min(CHUNK_BYTES // max(per_draw, 1), 65_536))))


@functools.partial(jax.jit, static_argnums=0)
def _simulate_chunk(simulator: Simulator, prior: Prior, keys: Array) -> tuple[Theta, Data, Array]:
    return jax.vmap(lambda key: draw(simulator, prior, key))(keys)


def draw(simulator: Simulator, prior: Prior, key: Key) -> tuple[Theta, Data, Array]:
    """Return one draw of the prior, its simulation, and whether every number is finite."""
    key_theta, key_x = jax.random.split(key)
    theta = prior.sample(key_theta)
    x = cleared(simulator(key_x, theta))
    return theta, x, all_finite((theta, x))


@functools.partial(jax.jit, static_argnums=0)
def _simulate_at_chunk(
    simulator: Simulator, rows: tuple[Theta, Array]
) -> tuple[Theta, Data, Array]:
    def one(theta: Theta, key: Key) -> tuple[Theta, Data, Array]:
        x = cleared(simulator(key, theta))
        return theta, x, all_finite((theta, x))

    return jax.vmap(one)(*rows)


def all_finite(tree: Any) -> Array:
    """Return whether every number in a pytree is finite (a scalar bool)."""
    checks = [jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, checks)


def report(valid: np.ndarray, simulator: Callable[..., Data]) -> None:
    """Warn of simulations that are not finite; raise a ValueError if none is."""
    invalid = int(valid.size - valid.sum())
    if not invalid:
        return
    name = getattr(simulator, "__name__", repr(simulator))
    if invalid == valid.size:
        raise ValueError(
            f"simulator {name}: expected finite data, got NaN or infinity in all {invalid} "
            "simulations. Call simulator(key, prior.sample(key)) outside jit to find where."
        )
    warn(
        f"simulator {name}: {invalid} of {valid.size} simulations are not finite; they have "
        "weight 0 and are left out of training. A posterior learned without them ignores that "
        "part of the prior; look at simulations.theta where weight == 0."
    )
