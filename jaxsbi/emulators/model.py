"""A trained emulator as a NumPyro model, to be put into a larger one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from jaxsbi.base import Array, Data, DataSpec, Fitted, Key, Posterior, Theta, is_concrete
from jaxsbi.boxed import Boxed
from jaxsbi.emulators.predict import emulate, emulator_of, posterior_of, reach_of
from jaxsbi.methods import Ensemble
from jaxsbi.networks import flatten
from jaxsbi.noise import Noise
from jaxsbi.priors import Prior
from jaxsbi.recentred import Seen

Model = Callable[..., Data]


def emulator_model(
    fitted: Fitted | Posterior,
    *,
    noise: Noise | None = None,
    observe: Callable[[Data], Data] | None = None,
) -> Model:
    """Return a NumPyro model of the parameters and the data, for any NumPyro kernel.

    `model(x=None, theta=None)` has a site for each parameter, under its name and prior, and a
    site "obs": the data set `x` as one vector, `jaxsbi.networks.flatten(x)`, observed if `x` is
    given and drawn if not. It returns the prediction.

        mcmc = numpyro.infer.MCMC(numpyro.infer.NUTS(model), num_warmup=500, num_samples=1000)
        mcmc.run(key, x)

    Call it within a model of your own for more: nuisances are sites of `observe`, parameters with
    another law (a hierarchy, say) are sampled before and passed as `theta`. In a plate each
    array of the parameters, the prediction and x has the plate's axes first.

    Within a kernel nothing can be warned of. Whether draws left the range in which the emulator
    was trained, as they may under a law of your own, is asked after the run, of any draws that have
    the parameters among their sites:

        jaxsbi.emulators.check_range(fitted, mcmc.get_samples())

    Args:
        fitted: What `fit` returned for an `emulator`, or its posterior. Sites have the prior of
            `with_prior`, if that was set; an ensemble predicts its members' mean.
        noise: The law of the data (`jaxsbi.noise`); the emulator's own by default.
        observe: From the emulated data set to the prediction of x, where x is something else:
            binned, calibrated, one part of many. In JAX; may hold NumPyro sites.

    Raises:
        TypeError: If the method is no emulator.
        ValueError: If there is no noise model, or a learned one would be of other data, or its
            covariance is none at the prediction in the middle of the training range; and by the
            model, if x is not of the prediction's structure and shapes, or not finite.
    """
    posterior = posterior_of(fitted)
    emulator = emulator_of(posterior)
    chosen, trained = (emulator.noise, _trained(posterior)) if noise is None else (noise, {})
    if chosen is None:
        raise ValueError(
            "emulator_model: expected a noise model, got an emulator without one. Pass "
            "noise=jaxsbi.noise.gaussian(covariance), or write a model with jaxsbi.emulate."
        )
    if trained.get("params") and observe is not None:
        raise ValueError(
            "emulator_model: the emulator's noise was learned for the simulator's data, and "
            "`observe` makes others of them. Pass their noise: noise=jaxsbi.noise.gaussian(...)."
        )
    _check_noise(posterior, chosen, observe)
    prior = posterior.prior if emulator.target is None else emulator.target

    def model(x: Data | None = None, theta: Mapping[str, Any] | None = None) -> Data:
        given = sample_sites(prior) if theta is None else dict(theta)
        depth = _depth(given, prior)
        mean = _mapped(functools.partial(emulate, posterior), depth)(given)
        mean = mean if observe is None else observe(mean)
        z = _mapped(posterior.prior.to_latent, depth)(given)
        law = Observation(chosen, trained, mean, z, depth)
        observed = None if x is None else _mapped(flatten, depth)(_checked(x, mean))
        numpyro.sample("obs", law, obs=observed)
        return mean

    return model


def sample_sites(prior: Prior | Seen) -> Theta:
    """Sample the parameters of a prior as NumPyro sites of their names.

    Within a box they are functions of one site more, standard normal numbers.
    """
    if isinstance(prior, Boxed):
        zeros = jnp.zeros(prior.dim, prior.low.dtype)
        normal = numpyro.sample("_normal", dist.Normal(zeros, zeros + 1.0).to_event(1))
        theta = prior.at(normal)
        return {name: numpyro.deterministic(name, value) for name, value in theta.items()}
    if isinstance(prior, Seen):
        return sample_sites(prior.prior)

    def site(name: str, d: Any) -> Array:
        return numpyro.sample(name, d.to_event(len(d.batch_shape)))

    if prior.model is None:
        return prior._visit(site)
    values = _Values()
    with values:
        prior.model()
    return {name: values.found[name] for name in prior.names}


class _Values(numpyro.primitives.Messenger):
    """Collects what a model's sites are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Theta = {}

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample":
            self.found[msg["name"]] = msg["value"]


class Observation(dist.Distribution):
    """The law of the data around a prediction, which may have leading axes of a plate."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(
        self, noise: Noise, trained: dict[str, Any], mean: Data, z: Array, depth: int
    ) -> None:
        self._noise, self._mean, self._z, self._depth = noise, mean, z, depth
        size = jax.eval_shape(_mapped(flatten, depth), mean).shape[-1]
        self._trained = trained or _known(noise, size, z.shape[-1])
        super().__init__(z.shape[:depth], (size,))

    def _law(self, mean: Data, z: Array) -> dist.Distribution:
        return self._noise.distribution(self._trained["params"], mean, self._trained["scale"], z)

    def log_prob(self, value: Array) -> Array:
        """Return the log-density of each data set, shape of the plate."""

        def one(mean: Data, z: Array, x: Array) -> Array:
            return self._law(mean, z).log_prob(x)

        with jax.numpy_rank_promotion("allow"):
            return _mapped(one, self._depth)(self._mean, self._z, value)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws of shape `(*sample_shape, *plate, d)`."""
        shape = (*sample_shape, *self.batch_shape)
        mean, z = (
            jax.tree.map(lambda a: jnp.broadcast_to(a, (*sample_shape, *a.shape)), tree)
            for tree in (self._mean, self._z)
        )

        def one(key: Key, mean: Data, z: Array) -> Array:
            return self._law(mean, z).sample(key)

        return _mapped(one, len(shape))(jax.random.split(key, shape), mean, z)


def _known(noise: Noise, size: int, dim: int) -> dict[str, Any]:
    """Return what a noise model takes in place of what is learned.

    Raises:
        ValueError: If it is for another number of data, or has to be learned.
    """
    scale = jnp.ones(size)
    params = noise.init(jax.random.key(0), scale, dim)
    if params:
        raise ValueError(
            "emulator_model: expected noise of a known law, got one that has to be learned. Train "
            "the emulator with it on noisy simulations, or pass jaxsbi.noise.gaussian(covariance)."
        )
    return {"params": params, "scale": scale}


def _mapped(function: Callable[..., Any], depth: int) -> Callable[..., Any]:
    """Return a function that is mapped over `depth` leading axes."""
    for _ in range(depth):
        function = jax.vmap(function)
    return function


def _depth(theta: Theta, prior: Prior) -> int:
    """Return how many axes of a plate parameters have before their own.

    Raises:
        ValueError: If they do not agree.
    """
    depths = {jnp.ndim(theta[n]) - len(s) for n, s in prior.shapes.items() if n in theta}
    if set(theta) != set(prior.names) or len(depths) != 1 or min(depths) < 0:
        raise ValueError(
            f"emulator_model: expected theta of {prior.shapes}, each with the same axes of plates "
            f"before its own, got { ({n: jnp.shape(a) for n, a in theta.items()}) }."
        )
    return depths.pop()


def _checked(x: Data, mean: Data) -> Data:
    """Return data that are like their prediction.

    Raises:
        ValueError: If the structure or a shape is another, or a concrete number is not finite.
    """
    came, wanted = DataSpec.of(x), DataSpec.of(mean)
    form, expected = (
        (spec.treedef, [(shape, dtype.startswith("complex")) for _, shape, dtype in spec.leaves])
        for spec in (came, wanted)
    )
    if form != expected:
        raise ValueError(
            f"emulator_model: expected x as the prediction is, {wanted} (axes of plates first), "
            f"got {came}. Pass `observe`, which makes the prediction of x from what is emulated."
        )
    if is_concrete(x) and not all(np.isfinite(a).all() for a in jax.tree.leaves(x)):
        raise ValueError(
            "emulator_model: x: expected finite data, got NaN or infinity. Leave those numbers out "
            "of x, and of its prediction by `observe`."
        )
    return x


def _check_noise(
    posterior: Posterior, noise: Noise, observe: Callable[[Data], Data] | None
) -> None:
    """Look, outside of jit, at a law that may not be one in the middle of the training range.

    Raises:
        ValueError: If it is none.
    """
    look = getattr(noise, "check", None)
    if look is None:
        return
    middle = jnp.mean(reach_of(posterior), 0)
    mean = emulate(posterior, posterior.prior.from_latent(middle))
    if observe is not None:
        handlers = numpyro.handlers
        with handlers.block(), handlers.trace() as sites, handlers.seed(rng_seed=jax.random.key(0)):
            mean = observe(mean)
        if sites:  # a draw of the nuisances may be far from what is observed
            return
    if is_concrete(mean):
        look(jax.tree.map(lambda a: a[None], mean))


def _trained(posterior: Posterior) -> dict[str, Any]:
    """Return what an emulator's noise model has learned.

    Raises:
        ValueError: If each member of an ensemble has learned its own.
    """
    found = {
        "params": posterior.variables["params"]["noise"],
        "scale": posterior.variables["statistics"]["noise"],
    }
    if not isinstance(posterior.method, Ensemble):
        return found
    if found["params"]:
        raise ValueError(
            "emulator_model: each member of the ensemble has learned a noise of its own. Pass one: "
            "noise=jaxsbi.noise.gaussian(covariance)."
        )
    return {name: jax.tree.map(lambda a: a[0], value) for name, value in found.items()}
