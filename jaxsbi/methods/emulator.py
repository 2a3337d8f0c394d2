"""The likelihood-based road: an emulator of the forward model, a noise model, and MCMC."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi import noise as noises
from jaxsbi import transforms
from jaxsbi.base import (
    Array,
    Data,
    Fitted,
    Key,
    Posterior,
    Simulations,
    Theta,
    Variables,
    configuration,
    leaf,
    varies,
)
from jaxsbi.methods import approximation as approximations
from jaxsbi.methods import likelihood, reach
from jaxsbi.methods.approximation import Approximation
from jaxsbi.methods.reach import extremes
from jaxsbi.networks import CosmoPower, flatten
from jaxsbi.priors import Prior
from jaxsbi.samplers import smc
from jaxsbi.transforms import Transform

STEEPNESS = 0.5
"""In the loss of exact runs a principal component counts by its variance to this power: at 1 the
small ones are never learned, at 0 they are learned by heart (measured in benchmarks/README.md)."""

SMALLEST = 1e-3
"""Least unit of a component's amplitude, of the largest one's: components that hardly occur in the
training data would count too much where they do occur, in a second stage."""
SEEN = 2048
"""Rows that principal components are taken from: enough, and quickly decomposed."""


class Components(nn.Module):
    """A network that reads parameters, with a linear head and a linear path beside it."""

    network: nn.Module
    components: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Return amplitudes `(components,)` from latent parameters `(d,)`."""
        linear = nn.Dense(self.components, use_bias=False, kernel_init=nn.initializers.zeros)
        v = coordinates(z)
        return nn.Dense(self.components)(self.network(v)) + linear(v)


def coordinates(z: Array) -> Array:
    """Return latent parameters beside their ranks under the prior, both of unit variance.

    A forward model is smooth in one of the two: in z under a (log-)normal prior, in the rank under
    a (log-)uniform one.
    """
    return jnp.concatenate([z, np.sqrt(12.0) * (jax.scipy.stats.norm.cdf(z) - 0.5)])


@configuration
class Emulator:
    """Principal components whose amplitudes a network predicts, and the law of the noise.

    As CosmoPower does it (Spurio Mancini et al. 2022, arXiv:2106.03846).

    Attributes:
        network: A Flax module from the parameters to a vector; a linear head is added. It reads
            latent parameters and their ranks (`coordinates`).
        components: Principal components kept; at most the number of data. Amplitudes and phases
            have as many each.
        noise: A noise model (`jaxsbi.noise`), `None` for an emulator that is not sampled from.
        transform: The form in which outputs are learned (`jaxsbi.transforms`).
        exact: The training data are predictions without noise: what is learned is the prediction,
            by squared errors, and the noise is the observation's only.
        approximation: A pytree that is called on theta and returns a data set, of which the error
            is learned, in the form of `transform`; `None` for an emulator of the data themselves.
        sampler: The sampler that draws from the posterior.
        target: Set by `posterior.with_prior`.
    """

    network: nn.Module = CosmoPower(hidden=(128, 128))
    components: int = 32
    noise: Any = leaf(default=noises.EstimatedNoise())
    transform: Transform = "none"
    exact: bool = False
    approximation: Any = leaf(default=None)
    sampler: Any = smc()
    target: Prior | None = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            TypeError: If the sampler is none.
            ValueError: If the noise is to be learned from data that have none, or there are no
                components.
        """
        likelihood.check_sampler(self.sampler)
        if self.components < 1:
            raise ValueError(f"emulator: expected components >= 1, got {self.components}.")
        if self.exact and isinstance(self.noise, noises.EstimatedNoise):
            raise ValueError(
                "emulator: exact simulations have no noise to learn from, got noise=estimated(). "
                "Pass the observation's, jaxsbi.noise.gaussian(covariance), or none."
            )

    @property
    def noiseless(self) -> bool:
        """Whether simulations may lack an observation's noise: unless it is learned from them."""
        return self.exact or not isinstance(self.noise, noises.EstimatedNoise)

    @property
    def latent(self) -> bool:
        """Whether training sees parameters by z only; an approximation reads them by name."""
        return self.approximation is None

    @property
    def steps(self) -> int:
        """Optimiser steps that `fit` aims at; what has no noise cannot be learned too long."""
        return 20_000 if self.exact else 5_600

    @property
    def epochs(self) -> int:
        """The most epochs that this may take."""
        return 5_000 if self.exact else 200

    @property
    def validation_rows(self) -> int:
        """Rows that `fit` holds out at least: without noise, few tell what is learned."""
        return 2 if self.exact else 20

    def check(self, simulations: Simulations) -> None:
        """Look at the simulations before training.

        Raises:
            ValueError: If the data have a mask, or the transform, the approximation or the noise is
                not of these data.
        """
        likelihood.check_all_there("emulator", simulations.x)
        valid = np.asarray(simulations.weight) > 0
        rows = jax.tree.map(lambda a: np.asarray(a)[valid], simulations)
        transforms.check(self.transform, rows.x)
        if hasattr(self.noise, "check"):
            # Noisy data are no predictions (a count may be 0), but their mean is like one.
            mean = jax.tree.map(lambda a: np.mean(a, 0, keepdims=True), rows.x)
            self.noise.check(rows.x if self.exact else mean)
        if self.approximation is not None:
            approximations.check(self.approximation, rows)

    def init(self, key: Key, prior: Prior, simulations: Simulations) -> Variables:
        """Return initial parameters, and the outputs' mean, scale and principal components.

        Raises:
            ValueError: If the data have a mask.
        """
        likelihood.check_all_there("emulator", simulations.x)
        key_network, key_noise = jax.random.split(key)
        z = jax.vmap(prior.to_latent)(simulations.theta)
        y = jax.vmap(lambda z, x: self._unknown(prior, z, x))(z, simulations.x)
        mean, scale = moments(y)
        scale = transforms.widths(self.transform, scale)
        rows = jax.vmap(lambda y: flatten(y) - flatten(mean))(y) / flatten(scale)[None]
        blocks = transforms.blocks(self.transform, jax.tree.map(lambda a: a[0], y))
        basis = principal(rows, self.components, blocks)
        network = Components(self.network, basis.shape[0]).init(key_network, z[0])
        flat = jax.vmap(flatten)(simulations.x)
        width = moments(flat)[1]
        noise = {} if self.noise is None else self.noise.init(key_noise, width, prior.dim)
        kept = {"mean": mean, "scale": scale, "basis": basis, "noise": width, "reach": extremes(z)}
        return {"params": {"network": network["params"], "noise": noise}, "statistics": kept}

    def loss(self, variables: Variables, prior: Prior, key: Key, batch: Simulations) -> Array:
        """Return one loss per row, shape `(n,)`.

        For noisy data -log p(x | theta), in nats of the standardised data; for `exact` ones the
        mean squared error of the components, which count by their standard deviation.
        """
        del key
        one = self._squares if self.exact else self._surprise
        return jax.vmap(lambda theta, x: one(variables, prior, prior.to_latent(theta), x))(
            batch.theta, batch.x
        )

    def outputs(self, variables: Variables, prior: Prior, z: Array) -> Data:
        """Return the emulated outputs at a latent point in the form in which they are learned."""
        stats = variables["statistics"]
        network = Components(self.network, stats["basis"].shape[0])
        amplitude = network.apply({"params": variables["params"]["network"]}, z)
        flat = flatten(stats["mean"]) + flatten(stats["scale"]) * (amplitude @ stats["basis"])
        leaves, structure = jax.tree.flatten(stats["mean"])
        cuts = np.cumsum([a.size for a in leaves])[:-1]
        parts = zip(jnp.split(flat, cuts), leaves, strict=True)
        learned = jax.tree.unflatten(structure, [part.reshape(a.shape) for part, a in parts])
        if self.approximation is None:
            return learned
        return jax.tree.map(jnp.add, self._known(prior, z), learned)

    def predict(self, variables: Variables, prior: Prior, z: Array) -> Data:
        """Return the emulated data set at a latent point, as the simulator would."""
        return transforms.inverse(self.transform, self.outputs(variables, prior, z))

    def distribution(self, variables: Variables, prior: Prior, z: Array) -> Any:
        """Return the law of the flattened data at a latent point, a NumPyro distribution.

        Raises:
            ValueError: If the emulator has no noise model.
        """
        if self.noise is None:
            raise ValueError(
                "emulator: expected a noise model of the observation to draw from a posterior, "
                "got none. Pass emulator(noise=jaxsbi.noise.gaussian(covariance), exact=True), or "
                "write the likelihood down: jaxsbi.emulator_model(fitted, noise=...)."
            )
        mean = self.predict(variables, prior, z)
        width, trained = variables["statistics"]["noise"], variables["params"]["noise"]
        return self.noise.distribution(trained, mean, width, z)

    def log_likelihood(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        """Return log p(x | theta(z)) under the noise model (a scalar)."""
        return noises.log_prob(self.distribution(variables, prior, z), flatten(x))

    def sample(
        self, variables: Variables, prior: Prior, key: Key, x: Data, n: int
    ) -> tuple[Theta, Any]:
        """Return `n` draws of the emulated likelihood times the prior, and the chains' report."""
        return likelihood.sample(self, variables, prior, key, x, n)

    def log_prob(self, variables: Variables, prior: Prior, theta: Theta, x: Data) -> Array:
        """Return log p(x | theta) + log p(theta), not normalised over theta."""
        return likelihood.log_prob(self, variables, prior, theta, x)

    def with_prior(self, new: Prior) -> Emulator:
        """Return the same road under another prior."""
        return dataclasses.replace(self, target=new)

    def look_at(self, variables: Variables, prior: Prior, draws: Theta) -> None:
        """Warn (on the host) of draws outside the range of the training parameters."""
        reach.warn_outside(prior, variables["statistics"]["reach"], draws)

    def _known(self, prior: Prior, z: Array) -> Data:
        """Return the approximation, as outputs are learned."""
        return approximations.in_form(self.approximation, self.transform, prior.from_latent(z))

    def _unknown(self, prior: Prior, z: Array, x: Data) -> Data:
        """Return what there is to learn of one data set."""
        y = transforms.forward(self.transform, x)
        if self.approximation is None:
            return y
        known = self._known(prior, z)
        return jax.tree.map(jnp.subtract, transforms.align(self.transform, y, known), known)

    def _surprise(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        constant = jnp.sum(jnp.log(variables["statistics"]["noise"]))
        return -self.log_likelihood(variables, prior, z, x) - constant

    def _squares(self, variables: Variables, prior: Prior, z: Array, x: Data) -> Array:
        stats = variables["statistics"]
        found = self.outputs(variables, prior, z)
        y = transforms.align(self.transform, transforms.forward(self.transform, x), found)
        residual = (flatten(y) - flatten(found)) / flatten(stats["scale"])
        deviation = jnp.linalg.norm(stats["basis"], axis=1)
        weight = deviation ** (2 * STEEPNESS)
        # What does not vary at all (an approximation without error) has components of length 0.
        unit, total = (jnp.where(a > 0, a, 1.0) for a in (deviation, jnp.sum(weight)))
        error = (stats["basis"] @ residual) / unit**2
        return jnp.sum(weight * error**2) / total


def moments(y: Data) -> tuple[Data, Data]:
    """Return mean and scale over the leading axis: of constants |mean|, or 1."""
    mean = jax.tree.map(lambda a: jnp.mean(a, 0), y)

    def scale(a: Array, m: Array) -> Array:
        # Centred first: the usual one-pass formula loses everything in float32.
        s = jnp.sqrt(jnp.mean((a - m[None]) ** 2, 0))
        return jnp.where(varies(s, m), s, jnp.where(m == 0, 1.0, jnp.abs(m)))

    return mean, jax.tree.map(scale, y, mean)


def principal(rows: Array, count: int, blocks: list[np.ndarray]) -> Array:
    """Return principal components of standardised rows, in units of their own scatter.

    The network's targets are then of order one.

    Args:
        rows: Shape `(n, d)`.
        count: The most that a block has.
        blocks: The numbers that share components.

    Returns:
        Shape `(k, d)`; a component is 0 outside its block.
    """
    found = []
    for block in blocks:
        part = rows[:SEEN, block]
        _, singular, basis = jnp.linalg.svd(part, full_matrices=False)
        kept = min(count, *part.shape)
        deviation = singular[:kept] / math.sqrt(part.shape[0])
        deviation = jnp.maximum(deviation, SMALLEST * deviation[0])
        empty = jnp.zeros((kept, rows.shape[1]), rows.dtype)
        found.append(empty.at[:, block].set(deviation[:, None] * basis[:kept]))
    return jnp.concatenate(found)


def emulator(
    *,
    network: nn.Module | None = None,
    components: int = 32,
    noise: Any = None,
    transform: str | Mapping[str, str] = "none",
    exact: bool = False,
    approximation: Fitted | Posterior | Approximation | None = None,
    sampler: Any = None,
) -> Emulator:
    """Return the configuration of the emulator road.

    Args:
        network: A Flax module that reads the parameters, as latent numbers and their ranks under
            the prior; by default `jaxsbi.networks.CosmoPower` with two layers of 128.
        components: Principal components kept; at most the number of data. Amplitudes and phases
            have as many each.
        noise: A noise model (`jaxsbi.noise`): `gaussian(covariance)` where it is known, by
            default `estimated()`, a covariance learned from the residuals of noisy simulations.
        transform: The form in which outputs are learned, and then mapped back: "log" for positive
            ones, "amplitude_phase" for complex ones, "none"; or a dict from the names of x's
            arrays to forms.
        exact: Say that the training data are predictions without noise. The prediction is then
            learned by squared errors, over a longer training, and `noise` is the observation's
            only; without one there is an emulator (`jaxsbi.emulate`, `jaxsbi.emulator_model`) and
            no posterior.
        approximation: What is nearly right already: an emulator of many runs of a cheaper
            simulator (what `fit` returned), or a function from named parameters to a data set.
            Its error is learned, relative for "log" and in radians for phases, so few runs are
            enough where that is small and smooth. It is not trained any further (`fit(initial=…)`
            does that), and called in every step. A plain function cannot be saved.
        sampler: A sampler (`jaxsbi.samplers`).

    Raises:
        TypeError: If the approximation is no emulator and no function, or the sampler is none.
        ValueError: If a transform is unknown, or the noise is to be learned from exact data.
    """
    given = {"network": network, "noise": noise, "sampler": sampler}
    given = {name: value for name, value in given.items() if value is not None}
    if exact and noise is None:
        given["noise"] = None
    if approximation is not None:
        given["approximation"] = approximations.approximation_of(approximation)
    form = transforms.transform_of(transform)
    return Emulator(components=components, transform=form, exact=exact, **given)
