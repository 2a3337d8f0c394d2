"""What the objectives that train a summary, and no posterior, have in common."""

from __future__ import annotations

from typing import Any, NoReturn

from jaxsbi.base import Array, Data, Key, Theta, Variables, configuration
from jaxsbi.priors import Prior


@configuration
class Objective:
    """A method without a posterior: `fit` trains its summary, and `compression.summary` takes it.

    A subclass has a network `summary`, `init` and `loss`, and keeps what it trains and what it
    knows of the data where the roads with a summary do: `variables["params"]["summary"]` and
    `variables["statistics"]`.
    """

    def sample(self, variables: Variables, prior: Prior, key: Key, x: Data, n: int) -> Any:
        """Raise a NotImplementedError: there is no posterior."""
        del variables, prior, key, x, n
        self._refuse()

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Raise a NotImplementedError: there is no density."""
        del variables, prior, theta, x
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} trains a summary, and has no posterior. Take the summary with "
            "jaxsbi.compression.summary(posterior), and train a road that reads it: "
            "jaxsbi.fit(key, jaxsbi.compression.frozen(jaxsbi.npe(), summary), prior, simulations)."
        )
