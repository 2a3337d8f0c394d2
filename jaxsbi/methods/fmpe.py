"""Flow matching posterior estimation: a velocity field from the prior to the posterior."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn

from jaxsbi.base import Array, Data, Key, Simulations, Theta, Variables, configuration
from jaxsbi.fields import FieldInfo, FlowMatching, ResidualField, ode
from jaxsbi.methods import field as shared
from jaxsbi.priors import Prior


@configuration
class FMPE:
    """Flow matching posterior estimation (Wildberger et al. 2023, arXiv:2305.17161).

    Attributes:
        field: A vector field (`jaxsbi.fields`).
        path: The path from noise to data.
        sampler: The solver that draws.
        summary: A Flax module from one data set to a vector, trained jointly; `None` flattens.
        noises: Times and noises that each example is seen with per step.
    """

    latent: ClassVar[bool] = True
    long_draws: ClassVar[bool] = True
    field: nn.Module = ResidualField()
    path: Any = FlowMatching()
    sampler: Any = ode()
    summary: nn.Module | None = None
    noises: int = 4

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            TypeError: If the field, the sampler or the path is none.
            ValueError: If `noises` is not positive.
        """
        shared.check(self)
        shared.check_field("field", self.field, "ResidualField()", "noise", "u", "context")

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the data's mean and scale."""
        return shared.init(self, key, prior, simulations)

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the squared error of the velocity per row, shape `(n,)`."""
        return shared.loss(self, variables, prior, key, batch)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, FieldInfo]:
        """Return `n` draws; none is ever rejected, for every latent point is in the support."""
        return shared.sample(self, variables, prior, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return log q(theta | x) by the ODE (`fields.ODE`); -inf outside the prior's support."""
        return shared.log_prob(self, variables, prior, theta, x)


def fmpe(
    *,
    field: nn.Module | None = None,
    path: FlowMatching | None = None,
    sampler: Any = None,
    summary: nn.Module | None = None,
    noises: int = 4,
) -> FMPE:
    """Return the configuration of flow matching posterior estimation.

    Args:
        field: A vector field (`jaxsbi.fields`); a residual network by default.
        path: Which times are trained at, `jaxsbi.fields.FlowMatching(...)`.
        sampler: The solver that draws, `jaxsbi.fields.ode(...)`.
        summary: A Flax module called as `summary(x)` on one data set that returns a vector; it is
            trained jointly with the field. By default the data are flattened.
        noises: Times and noises that each example is seen with per step.

    Raises:
        TypeError: If the field, the sampler or the path is none.
        ValueError: If `noises` is not positive.
    """
    return FMPE(
        field=field if field is not None else ResidualField(),
        path=path if path is not None else FlowMatching(),
        sampler=sampler if sampler is not None else ode(),
        summary=summary,
        noises=noises,
    )
