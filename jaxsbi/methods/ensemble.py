"""Several trainings of one method, used together."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data, Key, Simulations, Theta, Variables, configuration, leaf
from jaxsbi.methods import likelihood
from jaxsbi.methods.npe import DirectInfo
from jaxsbi.priors import Prior


@configuration
class Ensemble:
    """A method whose variables have a leading axis of members.

    Roads that draw directly become an equal mixture of their members' posteriors; roads with a
    likelihood or a ratio average it over the members, and run one set of chains.

    Attributes:
        method: The method of each member.
        size: The number of members.
    """

    method: Any = leaf()
    size: int

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return each member's variables, stacked."""
        keys = jax.random.split(key, self.size)
        return jax.vmap(lambda k: self.method.init(k, prior, simulations))(keys)

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return the mean loss over members, per row."""
        return jnp.mean(
            jax.vmap(lambda v: self.method.loss(v, prior, key, batch))(variables), axis=0
        )

    @property
    def iid(self) -> bool:
        """Whether the members read any number of independent draws."""
        return getattr(self.method, "iid", False)

    @property
    def long_draws(self) -> bool:
        """Whether the members' draws are compiled for speed."""
        return getattr(self.method, "long_draws", False)

    @property
    def sampler(self) -> Any:
        """The members' sampler, where the road has one."""
        return self.method.sampler

    @property
    def target(self) -> Prior | None:
        """The prior to sample under, where it is not the prior of training."""
        return self.method.target

    def log_likelihood(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        """Return the log of the members' mean likelihood."""
        each = jax.vmap(lambda v: self.method.log_likelihood(v, prior, z, x))(variables)
        return jax.scipy.special.logsumexp(each) - jnp.log(self.size)

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws; a direct road's draws are split multinomially over its members.

        Where members report a `log_prob`, so does the ensemble: the mixture's. Another report is
        the members' own, with a leading axis of them.
        """
        if hasattr(self.method, "log_likelihood"):
            return likelihood.sample(self, variables, prior, key, x, n)
        key_member, key_draws = jax.random.split(key)
        member = jax.random.randint(key_member, (n,), 0, self.size)
        keys = jax.random.split(key_draws, self.size)
        draws, info = jax.vmap(lambda v, k: self.method.sample(v, prior, k, x, n))(variables, keys)
        draws = jax.tree.map(lambda a: a[member, jnp.arange(n)], draws)
        if not hasattr(info, "log_prob"):
            # A density that costs a solve per member and draw is left to whoever asks for it.
            return draws, info
        log_prob = jax.vmap(lambda theta: self.log_prob(variables, prior, theta, x))(draws)
        return draws, DirectInfo(log_prob)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return the mixture's log-density, or the averaged likelihood's times the prior."""
        if hasattr(self.method, "log_likelihood"):
            return likelihood.log_prob(self, variables, prior, theta, x)
        each = jax.vmap(lambda v: self.method.log_prob(v, prior, theta, x))(variables)
        return jax.scipy.special.logsumexp(each) - jnp.log(self.size)

    def __getattr__(self, name: str) -> Any:
        """Offer `with_prior` and `look_at` where the members have them."""
        if name == "with_prior" and hasattr(self.method, name):
            return lambda new: dataclasses.replace(self, method=self.method.with_prior(new))
        if name == "look_at" and hasattr(self.method, name):
            return lambda variables, prior, draws: self.method.look_at(
                jax.tree.map(lambda a: a[0], variables), prior, draws
            )
        raise AttributeError(name)
