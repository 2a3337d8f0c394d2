"""Prior: named parameters, and the latent space in which they are N(0, I).

A prior is built from NumPyro distributions by name, or from a NumPyro model whose parameters may
depend on one another. Each parameter is mapped to latent coordinates z by the Rosenblatt map
z_i = Φ⁻¹(F_i(θ_i | θ_<i)) (Rosenblatt 1952, Ann. Math. Stat. 23, 470) wherever its conditional has
a usable distribution function, and by the bijection of its support elsewhere (`jaxsbi.latent`).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from jaxsbi import latent
from jaxsbi.base import Theta, check_key
from jaxsbi.latent import PriorError, Route

Visit = Callable[[str, Any], Array]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, init=False, eq=False, repr=False)
class Prior:
    """The law of the named parameters θ, with its map to and from latent coordinates z.

    ``Prior(a=dist.Normal(0.0, 1.0), b=...)`` makes the parameters independent;
    ``Prior(model)`` takes a NumPyro model: a function without arguments whose ``numpyro.sample``
    sites are the parameters (plates allowed). All methods are unbatched and pure: put them under
    ``jax.jit``, ``jax.vmap`` (over keys, θ or z) and ``jax.grad``. A batch shape of a distribution
    is part of the parameter's shape.

    A prior is a pytree. The distributions' parameters are leaves; names, routes and a model
    function are static, so priors of equal structure share one compiled program. Which latent map
    a parameter takes is decided here, once, from concrete parameter values (for a model, from a
    few draws of it); where these are traced (a prior built inside ``jit``) a family whose
    quantiles need a check takes its support's bijection.

    Masks are removed: a prior is a normalised law, and a mask does not change what is sampled.

    Attributes:
        names: the parameters in order of declaration (of sites for a model): the order of z.
        dim: the dimension of z.
        shapes: name to the shape of one θ.
        exact: name to whether its part of z is N(0, I).

    Raises:
        TypeError: something is not a NumPyro distribution, or the model is not a function.
        PriorError: no parameter at all, or one that is discrete, improper, observed, a point mass,
            or without a bijection onto its support (named in the message).
    """

    distributions: tuple[Any, ...]
    names: tuple[str, ...]
    model: Callable[[], Any] | None
    _routes: tuple[Route, ...]
    _shapes: tuple[tuple[int, ...], ...]

    def __init__(
        self, model: Callable[[], Any] | None = None, /, **distributions: dist.Distribution
    ) -> None:
        if model is not None and distributions:
            raise PriorError(
                "expected a model or named distributions, got both; put "
                f"{sorted(distributions)} into the model as sample sites"
            )
        with jax.numpy_rank_promotion("allow"):  # see `_program`
            self._set(*(_of_model(model) if model is not None else _of_names(distributions)))

    def _set(self, *values: Any) -> None:
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """Leaves: the distributions' parameters. Static: everything else."""
        names = self.names if self.distributions else ()
        children, structures = [], []
        for name, d in zip(names, self.distributions, strict=True):
            leaves, structure = jax.tree.flatten(d)
            order = _leaf_order(structure)
            children.append((jax.tree_util.GetAttrKey(name), tuple(leaves[i] for i in order)))
            structures.append(structure)
        static = (tuple(structures), self.names, self.model, self._routes, self._shapes)
        return tuple(children), static

    @classmethod
    def tree_unflatten(cls, static: Any, children: Any) -> "Prior":
        """Rebuild without checks, as JAX requires (the leaves may be anything)."""
        structures, *rest = static
        distributions = []
        for structure, leaves in zip(structures, children, strict=True):
            inverse = np.argsort(_leaf_order(structure))
            distributions.append(jax.tree.unflatten(structure, [leaves[i] for i in inverse]))
        self = object.__new__(cls)
        self._set(tuple(distributions), *rest)
        return self

    def __repr__(self) -> str:
        """Names, families, shapes, and which parts are mapped by their support."""
        parts = (
            f"{name}: {route.family}{list(shape) if shape else ''}"
            f"{'' if route.exact else ' (by its support)'}"
            for name, shape, route in zip(self.names, self._shapes, self._routes, strict=True)
        )
        return f"Prior({', '.join(parts)}; dim={self.dim})"

    @property
    def dim(self) -> int:
        """Dimension of z (a Dirichlet on K categories has K - 1)."""
        return sum(math.prod(route.shape) for route in self._routes)

    @property
    def latent(self) -> Self:
        """A prior of one parameter "z" of shape (dim,), whose latent coordinates are z itself."""
        zeros = np.zeros(self.dim, jnp.result_type(float))  # NumPy's need no compiling
        return type(self)(z=dist.Normal(zeros, zeros + 1.0).to_event(1))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter in one θ."""
        return dict(zip(self.names, self._shapes, strict=True))

    @property
    def exact(self) -> dict[str, bool]:
        """Whether each parameter's part of z is N(0, I); elsewhere see `latent_log_prob`."""
        return {name: route.exact for name, route in self.routes.items()}

    @property
    def routes(self) -> dict[str, Route]:
        """The latent map that each parameter takes."""
        return dict(zip(self.names, self._routes, strict=True))

    def marginal(self, *names: str) -> Self:
        """Return the prior of some of the parameters, in the order given.

        Raises:
            PriorError: An unknown name, or a prior made from a model, whose parameters may depend
                on one another.
        """
        if self.model is not None:
            raise PriorError(
                "marginal: the parameters of a model may depend on one another; expected a prior "
                "of independent distributions, Prior(a=..., b=...)"
            )
        if not names or set(names) - set(self.names):
            raise PriorError(f"marginal: expected names among {list(self.names)}, got {names}")
        return type(self)(**{n: self.distributions[self.names.index(n)] for n in names})

    def sample(self, key: Array) -> Theta:
        """Draw one θ: a dict in the order of `names`, with the shapes of `shapes`.

        Args:
            key: one typed key, ``jax.random.key(seed)``.

        Raises:
            TypeError: a legacy uint32 key, or several keys.
        """
        check_key(key)
        return self._ordered(_sample(self, key))

    def log_prob(self, theta: Mapping[str, Any]) -> Array:
        """Normalised log density of one named θ, a scalar; -inf outside the support, never NaN.

        Raises:
            TypeError: ``theta`` is not a dict.
            PriorError: missing or extra names, or wrong shapes.
        """
        return _log_prob(self, self.check(theta))

    def to_latent(self, theta: Mapping[str, Any]) -> Array:
        """z of one named θ, shape ``(dim,)``, concatenated in the order of `names`.

        Finite on the boundary of the support; meaningless outside it.

        Raises:
            TypeError: ``theta`` is not a dict.
            PriorError: missing or extra names, or wrong shapes.
        """
        return _to_latent(self, self.check(theta))

    def from_latent(self, z: Array) -> Theta:
        """One named θ from ``z`` of shape ``(dim,)``; always inside the support.

        Raises:
            PriorError: ``z`` has another shape.
        """
        return self._ordered(_from_latent(self, self._latent(z)))

    def latent_log_prob(self, z: Array) -> Array:
        """Log density of ``z``, a scalar: N(0, I) exactly where `exact`.

        Elsewhere the density of the support's bijection, ``log p(θ(z)) + log|dθ/dz|``.

        Raises:
            PriorError: ``z`` has another shape.
        """
        return _latent_log_prob(self, self._latent(z))

    def log_abs_det_jacobian(self, z: Array) -> Array:
        """``log|dθ/dz|``, a scalar: ``log_prob(from_latent(z))`` plus this is `latent_log_prob`."""
        return self.latent_log_prob(z) - self.log_prob(self.from_latent(z))

    def _ordered(self, theta: Theta) -> Theta:
        return {name: theta[name] for name in self.names}  # a jitted dict comes back sorted

    def _visit(self, visit: Visit) -> Theta:
        """Call ``visit(name, distribution) -> value`` in order; conditionals see earlier values."""
        if self.model is not None:
            return latent.run(self.model, visit)
        # Copies: a distribution caches some of its properties on itself.
        return {
            name: visit(name, jax.tree.map(lambda leaf: leaf, d))
            for name, d in zip(self.names, self.distributions, strict=True)
        }

    def _latent(self, z: Any) -> Array:
        z = _floating(z)
        if z.shape != (self.dim,):
            raise PriorError(
                f"z: expected shape ({self.dim},), got {z.shape}. For a batch use jax.vmap."
            )
        return z

    def _split(self, z: Array) -> Theta:
        parts, start = {}, 0
        for name, route in self.routes.items():
            size = math.prod(route.shape)
            parts[name] = z[start : start + size].reshape(route.shape)
            start += size
        return parts

    def _columns(self, *names: str) -> Array:
        """Which latent coordinates are some parameters', in the order given."""
        place = self._split(jnp.arange(self.dim))
        return jnp.concatenate([place[name].ravel() for name in names])

    def check(self, theta: Any) -> Theta:
        """θ as arrays in the order of `names`.

        Raises:
            TypeError: ``theta`` is not a dict.
            PriorError: missing or extra names, or wrong shapes.
        """
        if not isinstance(theta, Mapping):
            raise TypeError(
                f"theta: expected a dict with the names {list(self.names)}, "
                f"got {type(theta).__name__}. From a flat z use prior.from_latent(z)."
            )
        if set(theta) != set(self.names):
            missing = [name for name in self.names if name not in theta]
            extra = [name for name in theta if name not in self.names]
            raise PriorError(
                f"theta: expected the names {list(self.names)}, got {list(theta)} "
                f"(missing {missing}, extra {extra})."
            )
        arrays = {name: _floating(theta[name]) for name in self.names}
        for name, shape in self.shapes.items():
            if arrays[name].shape != shape:
                raise PriorError(
                    f"theta[{name!r}]: expected shape {shape}, got {arrays[name].shape}. "
                    "For a batch use jax.vmap."
                )
        return arrays


@functools.lru_cache(maxsize=1024)
def _leaf_order(structure: Any) -> tuple[int, ...]:
    """Where to find a distribution's leaves, sorted by name, among those that JAX lists.

    NumPyro lists them in the order of a set of strings, which differs from process to process: the
    same prior would then be another program, to be compiled again, in every one.
    """

    def walk(node: Any) -> list[int]:
        if not isinstance(node, dist.Distribution):
            return jax.tree.leaves(node)
        fields = sorted(type(node).gather_pytree_data_fields())
        return [i for field in fields for i in walk(node.__dict__.get(field))]

    return tuple(walk(jax.tree.unflatten(structure, range(structure.num_leaves))))


_Fields = tuple[
    tuple[Any, ...],
    tuple[str, ...],
    Callable[[], Any] | None,
    tuple[Route, ...],
    tuple[tuple[int, ...], ...],
]


def _of_model(model: Callable[[], Any]) -> _Fields:
    names, routes, shapes = latent.survey(model, _route)
    return (), names, model, routes, shapes


def _of_names(distributions: dict[str, dist.Distribution]) -> _Fields:
    if not distributions:
        raise PriorError(
            "a prior needs at least one parameter, for instance "
            "Prior(x=numpyro.distributions.Normal(0.0, 1.0))"
        )
    for name, d in distributions.items():
        latent.refuse(name, d)
    names = tuple(distributions)
    stripped = tuple(_as_arrays(latent.strip_masks(d)) for d in distributions.values())
    shapes = tuple(tuple(d.shape()) for d in stripped)
    routes = tuple(_route(name, d) for name, d in zip(names, stripped, strict=True))
    return stripped, names, None, routes, shapes


# One compiled program per structure of prior; under an outer jit or vmap these are traced into it.
# Parameters broadcast against values by NumPyro's rules, so a user's ban on implicit rank promotion
# is lifted inside.


def _program(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def lenient(*args: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return function(*args)

    return jax.jit(lenient)


@_program
def _sample(prior: Prior, key: Array) -> Theta:
    keys = dict(zip(prior.names, jax.random.split(key, len(prior.names)), strict=True))
    return prior._visit(lambda name, d: d.sample(keys[name]))


@_program
def _log_prob(prior: Prior, theta: Theta) -> Array:
    routes, total = prior.routes, []

    def visit(name: str, d: Any) -> Array:
        density, value = latent.log_prob(routes[name], d, theta[name])
        total.append(density)
        return value  # inside the support, so that it does no harm to the conditionals after it

    prior._visit(visit)
    return sum(total[1:], total[0])


@_program
def _to_latent(prior: Prior, theta: Theta) -> Array:
    routes, parts = prior.routes, []

    def visit(name: str, d: Any) -> Array:
        parts.append(jnp.ravel(latent.to_latent(routes[name], d, theta[name])))
        return theta[name]

    prior._visit(visit)
    return jnp.concatenate(parts)


@_program
def _from_latent(prior: Prior, z: Array) -> Theta:
    parts, routes = prior._split(z), prior.routes
    return prior._visit(lambda name, d: latent.from_latent(routes[name], d, parts[name]))


@_program
def _latent_log_prob(prior: Prior, z: Array) -> Array:
    if all(prior.exact.values()):
        return latent.log_normal_density(z).sum()
    parts, routes, total = prior._split(z), prior.routes, []

    def visit(name: str, d: Any) -> Array:
        total.append(latent.latent_log_prob(routes[name], d, parts[name]))
        return latent.from_latent(routes[name], d, parts[name])

    prior._visit(visit)
    return sum(total[1:], total[0])


def _floating(x: Any) -> Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _as_arrays(d: dist.Distribution) -> dist.Distribution:
    """Every leaf a strongly typed float array: 0, 0.0 and jnp.zeros(()) then trace alike."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(float)), d)


def _route(name: str, d: Any, verdict: Callable[[Any], bool] = latent.is_usable) -> Route:
    try:
        return latent.choose(d, verdict)
    except PriorError as error:
        raise PriorError(f"parameter {name!r}: {error}") from error
