"""The description of a standard problem."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp

from jaxsbi.base import Array, Simulator, Theta
from jaxsbi.priors import Prior


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A standard problem: a prior, a simulator and, where it is tractable, its likelihood.

    All functions are unbatched and pure; batch them with `jax.vmap`.

    Attributes:
        name: The name of the task, one of `jaxsbi.tasks.NAMES`.
        prior: The prior of the named parameters, declared in the order of the reference's columns.
        simulator: `simulator(key, theta) -> x`, one draw.
        log_likelihood: `log_likelihood(theta, x) -> scalar`, or None where it is intractable.
            Normalised over `x` unless the task says otherwise.
        x_shape: The shape of one data set, a float array (counts and spikes included, so that
            every task feeds the same networks).
        exchangeable: Whether the leading axis of `x` counts independent draws given the
            parameters, whose order says nothing.
    """

    name: str
    prior: Prior
    simulator: Simulator
    log_likelihood: Callable[[Theta, Array], Array] | None
    x_shape: tuple[int, ...]
    exchangeable: bool = False

    @property
    def dim(self) -> int:
        """The number of scalar parameters."""
        return sum(math.prod(shape) for shape in self.prior.shapes.values())

    @property
    def labels(self) -> tuple[str, ...]:
        """One label per scalar parameter, in the order of `flatten`."""
        return tuple(
            f"{name}_{i + 1}" if shape else name
            for name, shape in self.prior.shapes.items()
            for i in range(math.prod(shape))
        )

    def flatten(self, theta: Theta) -> Array:
        """Return one parameter set as a vector of shape `(dim,)`, in the reference's order.

        Raises:
            ValueError: If a name is missing or extra, or a shape is not the prior's.
        """
        came = {name: tuple(jnp.shape(value)) for name, value in theta.items()}
        if came != self.prior.shapes:
            raise ValueError(
                f"theta: {self.name} expected one parameter set with shapes {self.prior.shapes}, "
                f"got {came}. For a batch use jax.vmap(task.flatten)."
            )
        return jnp.concatenate([jnp.ravel(theta[name]) for name in self.prior.names])

    def unflatten(self, vector: Array) -> Theta:
        """Return the named parameter set of one vector of shape `(dim,)`, `flatten`'s inverse.

        Raises:
            ValueError: If the vector has another shape.
        """
        if jnp.shape(vector) != (self.dim,):
            raise ValueError(
                f"vector: {self.name} expected shape {(self.dim,)}, got {jnp.shape(vector)}. "
                "For a batch use jax.vmap(task.unflatten)."
            )
        theta, start = {}, 0
        for name, shape in self.prior.shapes.items():
            stop = start + math.prod(shape)
            theta[name] = jnp.reshape(jnp.asarray(vector)[start:stop], shape)
            start = stop
        return theta
