"""Posteriors of a few parameters out of many, each learned directly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from jaxsbi.base import Fitted, Key, Method, Simulations, check_key
from jaxsbi.fit import fit
from jaxsbi.priors import Prior

Group = tuple[str, ...]


def marginals(
    key: Key,
    method: Method,
    prior: Prior,
    simulations: Simulations,
    groups: Iterable[str | Group],
    **options: Any,
) -> dict[Group, Fitted]:
    """Learn the posterior of each group of parameters, the others integrated out.

    The simulations stay what they are; leaving a parameter out of θ makes it part of the noise. A
    corner plot of many parameters needs their pairs only, which are far easier to learn than the
    whole (marginal ratio estimation, Miller et al. 2021, arXiv:2107.01214). Groups of equal
    dimension are trained by one compiled program.

    Args:
        key: A typed key.
        method: Any method, for instance `nre` or `npe`.
        prior: The prior of the simulations, built from independent distributions by name.
        simulations: What `simulate` returned.
        groups: A name, or a tuple of names, for each posterior.
        options: Passed on to `fit`.

    Returns:
        Group → what `fit` returned; its posterior's draws have the group's names.

    Raises:
        TypeError: If the key is not typed.
        PriorError: If a name is not one of the prior's, or its parameters depend on one another.
        ValueError: If there is no group, or a group has no name, or one twice.
    """
    check_key(key)
    wanted = [(group,) if isinstance(group, str) else tuple(group) for group in groups]
    if not wanted or any(not group or len(set(group)) < len(group) for group in wanted):
        raise ValueError(
            f"groups: expected names, or tuples of different names, got {wanted}. For all pairs: "
            "itertools.combinations(prior.names, 2)."
        )
    priors = [prior.marginal(*group) for group in wanted]
    fitted = {}
    for number, (group, part) in enumerate(zip(wanted, priors, strict=True)):
        theta = {name: simulations.theta[name] for name in group}
        # The other parameters are latents: for the group, joint scores are those of its own part.
        score = simulations.score and {name: simulations.score[name] for name in group}
        rows = Simulations(theta, simulations.x, simulations.weight, score)
        fitted[group] = fit(jax.random.fold_in(key, number), method, part, rows, **options)
    return fitted
