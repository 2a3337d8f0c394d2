"""Any question to a joint network: draws and densities of any numbers given any others.

A question is two vectors of booleans over all numbers of (theta, x): which are given, and which
there are at all. They are traced, so all questions of one posterior share one compiled program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsbi import latent
from jaxsbi.base import (
    Array,
    Data,
    DataSpec,
    Key,
    Posterior,
    Theta,
    check_key,
    is_concrete,
    positive,
)
from jaxsbi.fields import widest_angle
from jaxsbi.methods.ensemble import Ensemble
from jaxsbi.methods.joint import Joint, apply, gather_data, spread_data, tokens
from jaxsbi.networks import flatten
from jaxsbi.priors import Prior

Some = Mapping[str, Any]
"""Some numbers of a pair: `{"theta": some of the named parameters, "x": a data set}`, or less."""


def conditional(
    key: Key,
    posterior: Posterior,
    given: Some,
    n: int,
    *,
    observed: Data | None = None,
    impute: bool = False,
) -> dict[str, Any]:
    """Draw everything that is not given, from one training of `jaxsbi.joint`.

    `{"x": x}` asks for the posterior, `{"theta": theta}` for new data (the likelihood), `{}` for
    pairs, `{"theta": {"a": a}, "x": x}` for the other parameters given a; `observed` says which
    numbers of x were measured. Put it under `jax.vmap` for many questions at once.

    Args:
        key: A typed key.
        posterior: What `jaxsbi.fit` returned for `jaxsbi.joint()`, or an ensemble of it.
        given: The numbers conditioned on: `"theta"`, a dict with any of the parameters, and `"x"`,
            a data set. A parameter is given as a whole.
        n: The number of draws (static).
        observed: A pytree like x of booleans that broadcast to it: which of its numbers count.
            The others may hold anything, also NaN.
        impute: Draw the numbers of x that were not observed, jointly with the parameters, instead
            of leaving them out of the question.

    Returns:
        `{"theta": named draws, "x": data sets}`, every leaf with a leading axis `n`, as floats.
        Given numbers are repeated as they came; numbers left out are NaN.

    Raises:
        TypeError: If the posterior is of another road or of rounds, or a part has another
            structure or dtype.
        ValueError: If a shape or a name is not known, given parameters lie outside the prior's
            support, nothing is left to draw, or the prior is a model and only some of its
            parameters are given: z of one parameter then depends on the others.
    """
    check_key(key)
    positive("n", n)
    _check(posterior, observed, given=given)
    theta, known = _parameters(posterior.prior, given.get("theta", {}))
    _check_support(posterior.prior, theta)
    x, counts = _data(posterior.data, given.get("x"), observed)
    counts = counts & ("x" in given)
    posterior.warn_beyond(x, _unflatten(posterior.data, counts))
    mask = jnp.concatenate([known, counts])
    if is_concrete(mask) and bool(jnp.all(mask)):
        raise ValueError("given: expected something left to draw, got all parameters and data.")
    drawn = impute | ("x" not in given)
    present = jnp.concatenate([jnp.ones_like(known), counts | drawn])
    return _draw(posterior, key, theta, x, mask, present, int(n))


def conditional_log_prob(
    posterior: Posterior, of: Some, given: Some, *, observed: Data | None = None
) -> Array:
    """Return log q(of | given), normalised; what is in neither is marginalised (a scalar).

    `of={"theta": {"a": a}}` and `given={"x": x}` asks for a marginal posterior, `of={"x": x}` and
    `given={"theta": theta}` for the likelihood. The density is that of the probability-flow ODE;
    with more numbers in theta and x than its `exact_dim` (`fields.ODE`) the divergence is
    estimated.

    Args:
        posterior: What `jaxsbi.fit` returned for `jaxsbi.joint()`, or an ensemble of it.
        of: The numbers whose density is asked for: `"theta"`, `"x"` or both.
        given: The numbers conditioned on, of the same form; no parameter is in both.
        observed: A pytree like x of booleans that broadcast to it. Where x is on one side, only
            these of its numbers count; where it is on both, these are given and the others asked.

    Raises:
        TypeError: If the posterior is of another road or of rounds, or a part has another
            structure or dtype.
        ValueError: As `conditional`; or if something is on both sides, nothing is asked, or x is
            asked where it is no floating-point number: only those have a density.
    """
    _check(posterior, observed, of=of, given=given)
    asked_theta, given_theta = of.get("theta", {}), given.get("theta", {})
    both = sorted(set(asked_theta) & set(given_theta))
    if both:
        raise ValueError(f"of and given: expected each parameter on one side, got {both} on both.")
    if "x" in of and "x" in given and observed is None:
        raise ValueError("of and given: x is in both; say with observed which numbers are given.")
    prior = posterior.prior
    if "x" in of:
        _check_continuous(posterior.data, observed if "x" not in given else None)
    theta, asked = _parameters(prior, asked_theta)
    theta_given, known = _parameters(prior, given_theta)
    _check_support(prior, theta_given)
    theta = {name: theta_given[name] if name in given_theta else theta[name] for name in theta}
    x, counts = _data(posterior.data, given.get("x"), observed)
    none = jnp.zeros_like(counts)
    mask = jnp.concatenate([known, counts if "x" in given else none])
    if "x" in of:
        opposite = None if observed is None else jax.tree.map(jnp.logical_not, observed)
        x_of, counts = _data(posterior.data, of["x"], opposite if "x" in given else observed)
        x = jax.tree.map(jnp.add, x, x_of)  # each is zero where the other counts
    asked = jnp.concatenate([asked, counts if "x" in of else none])
    if is_concrete(asked) and not bool(jnp.any(asked)):
        raise ValueError("of: expected at least one number whose density is asked for, got none.")
    return _density(posterior, theta, x, asked, mask)


@functools.partial(jax.jit, static_argnames="n")
def _draw(
    posterior: Posterior, key: Key, theta: Theta, x: Data, given: Array, present: Array, n: int
) -> dict[str, Any]:
    prior, data, method = posterior.prior, posterior.data, _single(posterior)

    def one(variables: Any, key: Key) -> dict[str, Any]:
        values = tokens(variables, prior, theta, x)
        rotation = _rotation(method, variables, values, given, present)
        z, _ = method.sampler(key, rotation, values.size, n, widest_angle(method.path))
        drawn = jax.vmap(prior.from_latent)(z[:, : prior.dim])
        stats = variables["statistics"]
        numbers = jax.vmap(lambda v: _unflatten(data, gather_data(variables, v)))(z[:, prior.dim :])
        numbers = jax.tree.map(
            lambda a, m, s: a * s[None] + m[None], numbers, stats["mean"], stats["scale"]
        )
        return {"theta": drawn, "x": numbers}

    if isinstance(posterior.method, Ensemble):
        key_member, key = jax.random.split(key)
        member = jax.random.randint(key_member, (n,), 0, posterior.method.size)
        keys = jax.random.split(key, posterior.method.size)
        draws = jax.vmap(one)(posterior.variables, keys)
        draws = jax.tree.map(lambda a: a[member, jnp.arange(n)], draws)
    else:
        draws = one(posterior.variables, key)
    for name, where in _slices(prior):
        draws["theta"][name] = jnp.where(given[where][0], theta[name][None], draws["theta"][name])

    def known(drawn: Array, value: Array, given: Array, present: Array) -> Array:
        drawn = jnp.where(given[None], value[None].astype(drawn.dtype), drawn)
        return jnp.where(present[None], drawn, jnp.nan)

    masks = (_unflatten(data, given[prior.dim :]), _unflatten(data, present[prior.dim :]))
    return {"theta": draws["theta"], "x": jax.tree.map(known, draws["x"], x, *masks)}


@jax.jit
def _density(posterior: Posterior, theta: Theta, x: Data, asked: Array, given: Array) -> Array:
    prior, method = posterior.prior, _single(posterior)
    inside = jnp.isfinite(prior.log_prob(theta))

    def one(variables: Any) -> Array:
        values = tokens(variables, prior, theta, x)
        values = jnp.where(jnp.isfinite(values), values, 0.0)
        rotation = _rotation(method, variables, values, given, asked | given)
        state = jnp.where(asked, values, 0.0)
        value = method.sampler.log_prob(rotation, state, widest_angle(method.path))
        # The numbers that are not asked stay at zero, where each adds log N(0; 0, 1).
        value = value + 0.5 * math.log(2.0 * math.pi) * jnp.sum(~asked)
        _, log_slope = spread_data(variables, x)
        scale = variables["statistics"]["scale"]
        scale = jax.tree.map(lambda s, a: jnp.broadcast_to(s, a.shape), scale, x)
        log_slope = log_slope - jnp.log(flatten(scale))
        value = value + jnp.sum(jnp.where(asked[prior.dim :], log_slope, 0.0))
        return value - _volume(prior, values[: prior.dim], asked)

    if isinstance(posterior.method, Ensemble):
        each = jax.vmap(one)(posterior.variables)
        value = jax.scipy.special.logsumexp(each) - math.log(posterior.method.size)
    else:
        value = one(posterior.variables)
    return jnp.where(inside, value, -jnp.inf)


def _rotation(method: Joint, variables: Any, values: Array, given: Array, present: Array) -> Any:
    """Return the field of all numbers; those that are not drawn stay where they are."""

    def rotation(noise: Array, u: Array) -> Array:
        u = jnp.where(given, values.astype(u.dtype), u)
        F = apply(method, variables, noise, u, given, present)
        return jnp.where(present & ~given, F, 0.0)

    return rotation


def _volume(prior: Prior, z: Array, asked: Array) -> Array:
    """Return the sum of log|dtheta/dz| over the parameters that are asked for."""
    if prior.model is not None:  # all of them, or none
        return jnp.where(asked[0], prior.log_abs_det_jacobian(z), 0.0)
    total = jnp.zeros((), z.dtype)
    for (name, where), d in zip(_slices(prior), prior.distributions, strict=True):
        route = prior.routes[name]
        part = z[where].reshape(route.shape)
        with jax.numpy_rank_promotion("allow"):  # NumPyro's
            value = latent.from_latent(route, d, part)
            log_prob, _ = latent.log_prob(route, d, value)
            log_det = latent.latent_log_prob(route, d, part) - log_prob
        total = total + jnp.where(asked[where][0], log_det, 0.0)
    return total


def _slices(prior: Prior) -> Iterator[tuple[str, slice]]:
    """Yield where the numbers of each parameter are."""
    start = 0
    for name, route in prior.routes.items():
        stop = start + math.prod(route.shape)
        yield name, slice(start, stop)
        start = stop


def _unflatten(data: DataSpec, vector: Array) -> Data:
    leaves, start = [], 0
    for _, shape, _ in data.leaves:
        stop = start + math.prod(shape)
        leaves.append(vector[start:stop].reshape(shape))
        start = stop
    return jax.tree.unflatten(data.treedef, leaves)


def _single(posterior: Posterior) -> Any:
    """Return the method of one member."""
    method = posterior.method
    return method.method if isinstance(method, Ensemble) else method


def _check(posterior: Posterior, observed: Data | None, **sides: Any) -> None:
    if not isinstance(_single(posterior), Joint):
        raise TypeError(
            "posterior: expected one of jaxsbi.joint(), which learns all conditionals, got one of "
            f"{type(_single(posterior)).__name__}."
        )
    if not isinstance(posterior.prior, Prior):
        raise TypeError(
            "posterior: expected one that jaxsbi.fit returned, got one of sequential rounds, which "
            "answers one question: posterior.sample."
        )
    for side, some in sides.items():
        if not isinstance(some, Mapping) or not isinstance(some.get("theta", {}), Mapping):
            raise TypeError(
                f'{side}: expected a dict such as {{"theta": {{name: value}}, "x": x}}, or less, '
                f"got {some!r}."
            )
        if set(some) - {"theta", "x"}:
            extra = sorted(set(some) - {"theta", "x"})
            raise ValueError(
                f'{side}: expected only "theta" and "x", got {extra}. Parameters go into "theta".'
            )
    if observed is not None and not any("x" in some for some in sides.values()):
        raise ValueError("observed: says which numbers of x count; pass x beside it.")


def _check_continuous(data: DataSpec, observed: Data | None) -> None:
    """Raise a ValueError if the density of a count, a bit or a mask is asked for: it has none."""
    masks = [True] * len(data.leaves) if observed is None else _masks(data, observed)
    for (path, _, dtype), asked in zip(data.leaves, masks, strict=True):
        none = is_concrete(asked) and not bool(jnp.any(jnp.asarray(asked)))
        if not none and not jnp.issubdtype(jnp.dtype(dtype), jnp.inexact):
            raise ValueError(
                f"of: x{path} is {dtype}, which has probabilities and no density. Leave it out "
                "with observed, or learn the likelihood with jaxsbi.nle()."
            )


def _parameters(prior: Prior, some: Theta) -> tuple[Theta, Array]:
    """Return a whole parameter set, and which numbers of z come from `some`, shape `(dim,)`."""
    extra = sorted(set(some) - set(prior.names))
    if extra:
        raise ValueError(f"theta: expected names among {list(prior.names)}, got {extra}.")
    if prior.model is not None and len(some) not in (0, len(prior.names)):
        raise ValueError(
            f"theta: expected all of {list(prior.names)} or none, got {sorted(some)}. The prior is "
            "a model, in which the latent value of one parameter depends on the others."
        )
    theta = prior.check({**prior.from_latent(jnp.zeros(prior.dim)), **some})
    # Strongly typed, so that a Python number is no new program.
    theta = {name: jnp.asarray(a, jnp.result_type(float)) for name, a in theta.items()}
    parts = [np.full(w.stop - w.start, name in some) for name, w in _slices(prior)]
    return theta, jnp.asarray(np.concatenate(parts))


def _check_support(prior: Prior, theta: Theta) -> None:
    value = prior.log_prob(theta)
    if is_concrete(value) and not bool(jnp.isfinite(value)):
        raise ValueError("given: expected parameters inside the prior's support.")


def _data(data: DataSpec, x: Data | None, observed: Data | None) -> tuple[Data, Array]:
    """Return a data set that is zero where it does not count, and where it does, as a vector."""
    shapes = [shape for _, shape, _ in data.leaves]
    masks = [jnp.ones(shape, bool) for shape in shapes]
    if x is None:
        zeros = [jnp.zeros(shape, dtype) for _, shape, dtype in data.leaves]
        return jax.tree.unflatten(data.treedef, zeros), _joined(masks)
    if observed is not None:
        masks = _masks(data, observed)
        leaves, treedef = jax.tree.flatten(x)
        if treedef == data.treedef and [jnp.shape(a) for a in leaves] == shapes:
            kept = [jnp.where(m, a, jnp.zeros_like(a)) for m, a in zip(masks, leaves, strict=True)]
            x = jax.tree.unflatten(treedef, kept)
    return data.conform(x), _joined(masks)


def _joined(masks: list[Array]) -> Array:
    return jnp.concatenate([jnp.ravel(m) for m in masks])


def _masks(data: DataSpec, observed: Data) -> list[Array]:
    leaves, treedef = jax.tree.flatten(observed)
    kinds = [str(jnp.result_type(m)) for m in leaves]
    if treedef != data.treedef or set(kinds) != {"bool"}:
        raise TypeError(
            f"observed: expected booleans in the structure of the data, {data}, got {kinds} in "
            f"{treedef}."
        )
    masks = []
    for m, (path, shape, _) in zip(leaves, data.leaves, strict=True):
        try:
            masks.append(jnp.broadcast_to(jnp.asarray(m), shape))
        except ValueError:
            raise ValueError(
                f"observed{path}: expected booleans that broadcast to {shape}, got {jnp.shape(m)}."
            ) from None
    return masks
