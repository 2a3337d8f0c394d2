"""Posteriors of a few parameters out of many, each learned directly, in one vmapped training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi.base import (
    FORWARDED,
    Array,
    Data,
    Fitted,
    History,
    Key,
    Method,
    Posterior,
    Simulations,
    Theta,
    Variables,
    check_key,
    configuration,
    leaf,
    positive,
)
from jaxsbi.fit import fit
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.priors import Prior
from jaxsbi.windows import Stored

Group = tuple[str, ...]
AT_ONCE = 16
"""Groups that are trained at once, at most: memory grows with their number."""
COLUMNS = "columns"
"""Where a member keeps in its statistics which latent numbers it learns."""


def marginals(
    key: Key,
    method: Method,
    prior: Prior,
    simulations: Simulations | Stored,
    groups: Iterable[str | Group],
    *,
    ensemble: int | None = None,
    **options: Any,
) -> dict[Group, Fitted]:
    """Learn the posterior of each group of parameters, the others integrated out.

    The simulations stay what they are; leaving a parameter out of θ makes it part of the noise. A
    corner plot of many parameters needs their pairs only, which are far easier to learn than the
    whole (marginal ratio estimation, Miller et al. 2021, arXiv:2107.01214). Groups of equal
    dimension are trained at once, as the members of an ensemble are; more than 16 of them in
    several trainings of one compiled program.

    Args:
        key: A typed key.
        method: `nre`, `npe`, or another that sees parameters by their latent numbers (all but
            `emulator(approximation=…)`).
        prior: The prior of the simulations, built from independent distributions by name.
        simulations: What `simulate` returned, or a `Store`.
        groups: A name, or a tuple of names, for each posterior.
        ensemble: Members for each group.
        options: Passed on to `fit`; with `refit` all groups of one training are trained again for
            as many epochs as were best in their mean.

    Returns:
        Group → what `fit` returned; its posterior's draws have the group's names. The seconds are
        those of all groups that were trained at once.

    Raises:
        TypeError: If the key is not typed, or the method does not see parameters so.
        PriorError: If a name is not one of the prior's, or its parameters depend on one another.
        ValueError: If there is no group, or a group has no name, or one twice; or as `fit`.
    """
    check_key(key)
    parts = parts_of(prior, method, groups)
    if "initial" in options:
        raise ValueError(
            "marginals: expected no initial=…: each group has a posterior of its own. Go on with "
            "one of them by jaxsbi.fit."
        )
    members = 1 if ensemble is None else positive("ensemble", ensemble)
    found: dict[Group, Fitted] = {}
    for number, alike in enumerate(_at_once(parts)):
        together = Grouped(
            method=method,
            inner=parts[alike[0]].latent,
            columns=jnp.stack([prior._columns(*group) for group in alike]),
            members=members,
        )
        here = dict(options)
        if options.get("checkpoint") is not None:
            here["checkpoint"] = Path(options["checkpoint"]) / f"groups-{number}"
        fitted = fit(
            jax.random.fold_in(key, number), together, prior, simulations,
            ensemble=len(alike) * members, **here,
        )  # fmt: skip
        for index, group in enumerate(alike):
            found[group] = _of_group(fitted, method, parts[group], index, ensemble)
    return {group: found[group] for group in parts}


def parts_of(prior: Prior, method: Method, groups: Iterable[str | Group]) -> dict[Group, Prior]:
    """Return the prior of each group, as tuples of names, each once.

    Raises:
        TypeError: If the method does not see parameters by their latent numbers.
        PriorError: If a name is not one of the prior's, or its parameters depend on one another.
        ValueError: If there is no group, or a group has no name, or one twice.
    """
    wanted = [(group,) if isinstance(group, str) else tuple(group) for group in groups]
    if not wanted or any(not group or len(set(group)) < len(group) for group in wanted):
        raise ValueError(
            f"groups: expected names, or tuples of different names, got {wanted}. For all pairs: "
            "itertools.combinations(prior.names, 2)."
        )
    if not getattr(method, "latent", False):
        raise TypeError(
            "marginals: expected a method that sees parameters by their latent numbers (npe, nre, "
            f"nle, fmpe, npse, joint), got {getattr(method, '__name__', type(method).__name__)}. "
            "An emulator of another one's error needs all; a method of your own says so by "
            "latent = True."
        )
    return {group: prior.marginal(*group) for group in dict.fromkeys(wanted)}


def _at_once(parts: dict[Group, Prior]) -> Iterator[list[Group]]:
    """Give the groups of each training: all of one dimension, and of this as many as in the others.

    So that one compiled program serves them, the last is filled up with groups that come twice.
    """
    for dim in sorted({part.dim for part in parts.values()}):
        alike = [group for group, part in parts.items() if part.dim == dim]
        trainings = -(-len(alike) // AT_ONCE)
        size = -(-len(alike) // trainings)
        for first in range(0, len(alike), size):
            yield (alike[first:] + alike)[:size]


@configuration
class Grouped:
    """A method each of whose members learns some of the latent parameters, and no others.

    Attributes:
        method: The method.
        inner: The prior of a group's latent parameters.
        columns: Which these are, shape `(groups, d)`.
        members: How many members, one after the other, learn the same.
    """

    method: Any = leaf()
    inner: Prior = leaf()
    columns: Array = leaf()
    members: int

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return the first member's initial variables."""
        return self.init_member(key, prior, simulations, jnp.array(0))

    def init_member(
        self, key: Key, prior: Prior, simulations: Simulations, member: Array
    ) -> Variables:
        """Return a member's initial variables; what it learns is among its statistics."""
        del prior
        columns = self.columns[member // self.members]
        made = self.method.init(key, self.inner, _only(columns, simulations))
        return {**made, "statistics": {**made["statistics"], COLUMNS: columns}}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the method's loss per row, shape `(n,)`, of the member's parameters."""
        del prior
        own = _only(variables["statistics"][COLUMNS], batch)
        return self.method.loss(_plain(variables), self.inner, key, own)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws of a member's latent parameters, and what the method reports."""
        del prior
        return self.method.sample(_plain(variables), self.inner, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return a member's log-density of its latent parameters `{"z": (d,)}`."""
        del prior
        return self.method.log_prob(_plain(variables), self.inner, theta, x)

    def __getattr__(self, name: str) -> Any:
        """Offer what the method says of itself."""
        if name in (*FORWARDED, "iid", "prepare", "check"):
            return getattr(self.method, name)
        raise AttributeError(name)


def _only(columns: Array, rows: Simulations) -> Simulations:
    """Return simulations with some of the latent parameters.

    The others are latents of the simulator: joint scores are those of the part. Joint ratios, of
    all parameters at once, say nothing of some.
    """
    return dataclasses.replace(
        rows,
        theta={"z": rows.theta["z"][:, columns]},
        score=jax.tree.map(lambda a: a[:, columns], rows.score),
        contrasts=None,
        log_ratio=None,
    )


def _plain(variables: Variables) -> Variables:
    """Return a member's variables as the method has them."""
    kept = {name: a for name, a in variables["statistics"].items() if name != COLUMNS}
    return {**variables, "statistics": kept}


def _of_group(
    fitted: Fitted, method: Method, prior: Prior, index: int, ensemble: int | None
) -> Fitted:
    """Return the posterior of the `index`-th group, and the history of its members."""
    together, history = fitted.posterior, fitted.history
    first = index * (ensemble or 1)
    at: Any = slice(first, first + ensemble) if ensemble else first
    posterior = Posterior(
        jax.tree.map(lambda a: a[at], _plain(together.variables)),
        prior,
        method if ensemble is None else Ensemble(method=method, size=ensemble),
        together.data,
        together.reach,
    )
    return Fitted(posterior, _history(history, at))


def _history(history: History, at: Any) -> History:
    """Return the history of some members: after their last epoch there is nothing."""
    if history.train_loss.ndim == 1:  # there was one member only
        return history
    train, validation = history.train_loss[at], history.validation_loss[at]
    epochs = int(np.max(np.sum(np.isfinite(validation), axis=-1)))
    return dataclasses.replace(
        history,
        train_loss=train[..., :epochs],
        validation_loss=validation[..., :epochs],
        best_epoch=history.best_epoch[at],
        stopped=history.stopped if epochs == history.epochs else "patience",
    )
