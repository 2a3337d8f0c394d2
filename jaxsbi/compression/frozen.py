"""A road that reads data through a fixed summary."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxsbi.base import (
    FORWARDED,
    Array,
    Data,
    Key,
    Simulations,
    Theta,
    Variables,
    configuration,
    leaf,
)
from jaxsbi.methods.fixed import fixed
from jaxsbi.priors import Prior
from jaxsbi.splitting import prepared


@configuration
class Frozen:
    """A method that sees summaries in the place of data; its posterior reads the data themselves.

    Attributes:
        method: The road that is trained.
        summary: A pytree that is called on one data set, and is not trained.
    """

    method: Any = leaf()
    summary: Any = leaf()

    def prepare(self, x: Data) -> Data:
        """Return the summary of one data set: what `init` and `loss` see, made once by `fit`."""
        return self.summary(x)

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return the method's initial variables, from summaries."""
        return self.method.init(key, prior, simulations)

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the method's loss per row, shape `(n,)`, from summaries."""
        return self.method.loss(variables, prior, key, batch)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws for one data set, and what the method reports."""
        return self.method.sample(variables, prior, key, self.summary(x), n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return the method's log-density for one data set."""
        return self.method.log_prob(variables, prior, theta, self.summary(x))

    def __getattr__(self, name: str) -> Any:
        """Offer what the method offers of `latent`, `steps`, `target`, `look_at` and the like."""
        if name in FORWARDED:
            return getattr(self.method, name)
        if name == "check" and hasattr(self.method, name):
            return lambda simulations: self.method.check(prepared(self, simulations))
        if name == "settled" and hasattr(type(self.method), name):
            return lambda prior, simulations: dataclasses.replace(
                self, method=self.method.settled(prior, prepared(self, simulations))
            )
        if name == "with_prior" and hasattr(type(self.method), name):
            return lambda new: dataclasses.replace(self, method=self.method.with_prior(new))
        if name == "log_likelihood" and hasattr(type(self.method), name):
            return lambda variables, prior, z, x: self.method.log_likelihood(
                variables, prior, z, self.summary(x)
            )
        raise AttributeError(name)


def frozen(method: Any, summary: Any) -> Frozen:
    """Return a road that is trained on summaries, and whose posterior reads the data.

    `fit` summarizes the simulations once. The likelihood that `nle` then learns is the summary's.

    Args:
        method: Any road, `jaxsbi.npe()`, `nle()`, `nre()` …; without a `summary=` of its own it
            reads the summary's numbers as they are.
        summary: What `compression.summary`, `score` or `gaussian_score` returned, or a function of
            one data set, which cannot be saved.

    Raises:
        TypeError: If the summary cannot be called.
    """
    if not callable(summary):
        raise TypeError(
            "summary: expected jaxsbi.compression.summary(posterior), or a function of one data "
            f"set, got {type(summary).__name__}."
        )
    return Frozen(method=method, summary=fixed(summary))
