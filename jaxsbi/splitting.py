"""Which simulations are trained on, which validate, and how a method's loss sees them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi import missing
from jaxsbi.base import Array, Simulations, warn
from jaxsbi.priors import Prior
from jaxsbi.support import allowed

PREPARED = 256
"""Data sets that a fixed summary reads at once."""
VALIDATION_ROWS = 20
"""Rows that validate at least, or a quarter of all."""
PAIRS, ORDERED = 5_000, 6.0
"""Neighbouring rows that are looked at, and standard errors by which they are too much alike."""
LOOKED_AT = 1024
"""Rows of which it is looked whether the prior allows them."""


def split(simulations: Simulations, fraction: float, prior: Prior) -> tuple[Simulations, int]:
    """Return the valid rows, and how many of them, the first, to train on."""
    check_fraction(fraction)
    check_theta(simulations, prior)
    valid = np.flatnonzero(np.asarray(simulations.weight) > 0)
    invalid = len(simulations) - valid.size
    if valid.size < 4:
        raise ValueError(
            f"simulations: expected at least 4 finite ones to train and validate on, got "
            f"{valid.size} (and {invalid} that are not finite). Simulate more."
        )
    ordered = in_order(simulations, valid)
    if ordered:  # others' runs, on a grid or sorted: the last ones would validate at its end
        valid = np.random.default_rng(0).permutation(valid)
    rows = simulations
    if ordered or invalid:
        rows = jax.tree.map(jnp.asarray, taken(simulations, valid))
    # Draws are independent, so the last rows are as good a validation set as any; every member
    # and every method then sees the same one, and their losses can be compared.
    return rows, valid.size - _held_out(valid.size, fraction)


def _check_finite(simulations: Simulations) -> None:
    """Raise a ValueError if a row that counts is not finite: of one alone the loss becomes NaN.

    Those of `simulate` and `from_arrays` have weight 0.
    """
    used = np.asarray(simulations.weight) > 0
    parts = {"theta": simulations.theta, "x": missing.cleared(simulations.x)}
    parts |= {name: getattr(simulations, name) for name in ("score", "contrasts", "log_ratio")}
    for place, part in parts.items():
        for path, a in jax.tree_util.tree_flatten_with_path(part)[0]:
            a = np.asarray(a).reshape(used.size, math.prod(a.shape[1:]))
            finite = np.isfinite(a).all() or np.isfinite(a).all(1)
            bad = int(np.sum(used & ~finite))
            if bad:
                raise ValueError(
                    f"simulations.{place}{jax.tree_util.keystr(path)}: expected finite numbers "
                    f"where weight > 0, got NaN or infinity in {bad} of {used.size} rows. Make "
                    "them by jaxsbi.from_arrays(theta, x), which leaves such rows out, or give "
                    "them weight 0."
                )


def in_order(simulations: Simulations, valid: np.ndarray) -> bool:
    """Whether a parameter changes less from one valid row to the next than independent draws.

    By von Neumann's ratio of ranks, whose standard error is that of a mean (Bartels 1982, JASA 77,
    40): six of them below what it is for independent draws.
    """
    first = np.linspace(0, valid.size - 2, min(valid.size - 1, PAIRS)).astype(int)
    pairs = np.concatenate([valid[first], valid[first + 1]])
    for a in simulations.theta.values():
        values = np.asarray(a)[pairs].reshape(pairs.size, -1)
        ranks = np.argsort(np.argsort(values, axis=0, kind="stable"), axis=0) / pairs.size
        change = np.mean((ranks[: first.size] - ranks[first.size :]) ** 2, axis=0)
        if np.any(change < (1.0 - ORDERED / np.sqrt(first.size)) * 2.0 * np.var(ranks, axis=0)):
            return True
    return False


def usual_fraction(method: Any, rows: int) -> float:
    """Return the share of the simulations that validates unless the user says otherwise.

    Early stopping by the loss of a few rows chooses narrow densities that happen to hold them.
    A method that has no noise to learn says so by a smaller `validation_rows`.
    """
    least = getattr(method, "validation_rows", VALIDATION_ROWS)
    return max(0.1, min(least, rows // 4) / max(rows, 1))


def check_fraction(fraction: float) -> None:
    """Raise a ValueError unless some are held out, and not all."""
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"validation_fraction: expected between 0 and 1, got {fraction}.")


def _held_out(rows: int, fraction: float) -> int:
    return min(max(2, round(rows * fraction)), rows - 2)


def taken(simulations: Simulations, index: np.ndarray) -> Simulations:
    """Return some rows; by NumPy, for JAX would compile a program for every number of them."""
    return jax.tree.map(lambda a: np.asarray(a)[index], simulations)


def repeated(
    rows: Simulations, cut: int, capacity: int, fraction: float
) -> tuple[Simulations, int]:
    """Return `capacity` rows: the training part repeated, the validation part padded.

    Raises:
        ValueError: If there are more rows than that.
    """
    if capacity < len(rows):
        raise ValueError(
            f"capacity: expected at least the {len(rows)} simulations there are, got {capacity}."
        )
    held_out = _held_out(capacity, fraction)
    training = np.arange(capacity - held_out) % cut
    validation = np.arange(held_out) % (len(rows) - cut)
    found = taken(rows, np.concatenate([training, cut + validation]))
    weight = np.array(found.weight)
    weight[capacity - held_out + len(rows) - cut :] = 0.0
    return dataclasses.replace(found, weight=jnp.asarray(weight)), capacity - held_out


def seen(method: Any, prior: Prior, rows: Simulations) -> Simulations:
    """Return simulations as the method's `init` and `loss` see them (`base.Method`)."""
    if getattr(method, "latent", False):
        z = {"z": jax.vmap(prior.to_latent)(rows.theta)}
        score = rows.score
        if score is not None:
            likelihood = jax.vmap(lambda z, s: jax.vjp(prior.from_latent, z)[1](s)[0])
            score = {"likelihood": likelihood(z["z"], score)}
            base = jax.vmap(jax.grad(prior.latent_log_prob))(z["z"])
            score["posterior"] = score["likelihood"] + base
        contrasts = rows.contrasts
        if contrasts is not None:
            contrasts = {"z": jax.vmap(jax.vmap(prior.to_latent))(contrasts)}
        rows = dataclasses.replace(rows, theta=z, score=score, contrasts=contrasts)
    return prepared(method, rows)


def ready(method: Any, prior: Prior, rows: Simulations) -> Simulations:
    """Return them as `loss` sees them, with zeros where the weight is zero."""
    return clean(seen(method, prior, rows))


def prepared(method: Any, rows: Simulations) -> Simulations:
    """Return simulations whose data went through the method's fixed summary, if it has one."""
    prepare = getattr(method, "prepare", None)
    if prepare is None:
        return rows
    return dataclasses.replace(rows, x=jax.lax.map(prepare, rows.x, batch_size=PREPARED))


def check_theta(simulations: Simulations, prior: Prior) -> None:
    """Look whether simulations are of this prior, and as many in every leaf.

    Raises:
        ValueError: If they are not, some that count are not finite, or the prior excludes them
            all; it warns if it excludes some.
    """
    shapes = {name: tuple(a.shape[1:]) for name, a in simulations.theta.items()}
    if shapes != prior.shapes:
        raise ValueError(
            f"simulations.theta: expected the prior's parameters {prior.shapes}, got {shapes}. "
            "Pass the prior that the simulations were drawn from."
        )
    missing.refuse_masked_arrays("simulations.x", simulations.x)
    leaves = jax.tree.leaves(simulations)
    if not jax.tree.leaves(simulations.x):
        raise ValueError(f"simulations.x: expected arrays, got {simulations.x!r}.")
    ragged = any(isinstance(a, np.ndarray) and a.dtype.hasobject for a in leaves)
    rows = set() if ragged else {jnp.shape(a)[0] for a in leaves}
    if ragged or len(rows) > 1:
        got = "an array of objects" if ragged else sorted(rows)
        raise ValueError(
            "simulations: expected the same number of rows in theta, x and weight, got "
            f"{got}. Every leaf has a leading axis of simulations; data sets of several sizes are "
            "padded to one, with a mask: jaxsbi.networks.pad(list_of_arrays)."
        )
    _check_finite(simulations)
    _check_support(simulations, prior)


def _check_support(simulations: Simulations, prior: Prior) -> None:
    """Say so if the prior excludes simulated parameters, of which most are not looked at.

    Raises:
        ValueError: If it excludes all: they are in other units, or of another prior.
    """
    valid = np.flatnonzero(np.asarray(simulations.weight) > 0)
    if not valid.size:
        return
    # As many whatever there are, so that the program is compiled once.
    index = valid[np.linspace(0, valid.size - 1, LOOKED_AT).astype(int)]
    theta = {name: np.asarray(a)[index] for name, a in simulations.theta.items()}
    outside = 1.0 - float(np.mean(np.asarray(allowed(prior, theta))))
    if not outside:
        return
    told = (
        "simulations.theta: expected parameters that the prior allows, got "
        f"{'only' if outside == 1.0 else f'about {outside:.2g} of them'} outside of its support, "
        "where nothing can be learned. Pass the prior that they were drawn from, in their units."
    )
    if outside == 1.0:
        raise ValueError(told)
    warn(told)


def check_there(rows: Simulations) -> None:
    """Look (on the host) at whether masked data hold anything to learn from.

    Raises:
        ValueError: If a masked part of x has nothing there in any row.

    Warns:
        UserWarning: If there are rows of which nothing is there in any part.
    """
    for place, mask in missing.masks(rows.x).items():
        if not missing.occupied(mask).any():
            raise ValueError(
                f"simulations.x{place}: expected a mask that is true somewhere, got one that is "
                f"false in all {len(rows)} examples. True means present (in NumPy's masked arrays "
                "it means absent): invert it, or leave this part of x out."
            )
    bare = int(np.sum(missing.empty(rows.x)))
    if bare:
        warn(
            f"simulations: of {bare} of {len(rows)} examples nothing is there: their masks are "
            "false everywhere. True means present; where no data set can be empty, look at how "
            "the masks were made."
        )


def clean(rows: Simulations) -> Simulations:
    """Return rows that are zero where the weight is: 0 times the gradient of NaN is NaN."""
    valid = rows.weight > 0

    def zeroed(a: Array) -> Array:
        return jnp.where(valid.reshape(-1, *(1,) * (a.ndim - 1)), a, jnp.zeros_like(a))

    return jax.tree.map(zeroed, rows)
