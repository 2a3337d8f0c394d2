"""Which latent map a NumPyro distribution takes, decided once, when a prior is built.

A `Route` is static: it mirrors the nesting of the distribution and says at each level how z becomes
θ. The functions of `jaxsbi.latent.maps` follow it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

from jaxsbi.latent.gaussian import VECTORS
from jaxsbi.latent.tails import TAILS


class PriorError(ValueError):
    """A distribution, a parameter set or a latent vector that a prior cannot take."""


@dataclasses.dataclass(frozen=True)
class Route:
    """How one distribution's latent value becomes its parameter.

    Attributes:
        kind: one of `KINDS`.
        family: name of the distribution's class.
        shape: the shape of z for this distribution, batch included.
        event: how many trailing dimensions of z belong to one event.
        exact: whether z is N(0, I).
        inner: the route of the base distribution, where there is one.
    """

    kind: str
    family: str
    shape: tuple[int, ...]
    event: int
    exact: bool
    inner: Any = None  # a Route where `kind` has a base; which kinds do is checked by the tests


ELEMENTWISE = ("normal", "tails", "solved", "truncated")
KINDS = (*ELEMENTWISE, "vector", "unwrap", "push", "copula", "support")
SOLVED = (dist.Gamma, dist.Chi2, dist.Beta, dist.BetaProportion, dist.StudentT)
TRUNCATED = (
    dist.LeftTruncatedDistribution,
    dist.RightTruncatedDistribution,
    dist.TwoSidedTruncatedDistribution,
    dist.LeftTruncatedGamma,
    dist.RightTruncatedGamma,
    dist.TwoSidedTruncatedGamma,
)
WRAPPERS = (dist.Independent, dist.ExpandedDistribution)
# TransformedDistribution itself, and those subclasses that are no more than a base and a list of
# bijections. A subclass not named here may have its own density: it goes by its support.
PUSHED = (
    dist.TransformedDistribution,
    dist.LogNormal,
    dist.LogUniform,
    dist.Pareto,
    dist.InverseGamma,
    dist.RelaxedBernoulliLogits,
    dist.ZeroSumNormal,
    dist.CirculantNormal,
    dist.GaussianStateSpace,
    dist.LKJ,
    dist.Wishart,
    dist.InverseWishart,
)
NOT_BIJECTIVE = (transforms.AbsTransform,)
REFUSED: dict[type, str] = {
    dist.Delta: "a point mass has no density; fix the value inside the simulator instead",
    dist.ImproperUniform: "it is improper: there is nothing to sample from; use a proper prior",
    dist.Unit: "it has no value; it is a factor of a model, not a parameter",
    dist.LeftCensoredDistribution: "it describes a censored observation, not a parameter",
    dist.RightCensoredDistribution: "it describes a censored observation, not a parameter",
    dist.IntervalCensoredDistribution: "it describes a censored observation, not a parameter",
    dist.HurdleProbs: "it mixes a discrete and a continuous part, without a common density",
    dist.ZeroInflatedProbs: "it is discrete or mixed; only continuous parameters are supported",
}
"""What no prior takes, with the reason. Discrete supports are refused on top of these."""


def strip_masks(d: Any) -> Any:
    """``d`` without `MaskedDistribution`: a mask edits a log density, not the law."""
    if isinstance(d, dist.MaskedDistribution):
        return strip_masks(d.base_dist)
    if isinstance(d, dist.Independent):
        return strip_masks(d.base_dist).to_event(d.reinterpreted_batch_ndims)
    if isinstance(d, dist.ExpandedDistribution):
        return strip_masks(d.base_dist).expand(d.batch_shape)
    if type(d) is dist.TransformedDistribution:
        return dist.TransformedDistribution(strip_masks(d.base_dist), list(d.transforms))
    return d


def refuse(name: str, d: Any) -> None:
    """Raise if ``d`` cannot be the prior of a parameter.

    Raises:
        TypeError: not a NumPyro distribution.
        PriorError: discrete, mixed, improper or without a bijection onto its support.
    """
    if not isinstance(d, dist.Distribution):
        raise TypeError(
            f"parameter {name!r}: expected a NumPyro distribution, got {type(d).__name__} "
            f"({d!r}); write for instance numpyro.distributions.Normal(0.0, 1.0)"
        )
    for cls, reason in REFUSED.items():
        if isinstance(d, cls):
            raise PriorError(f"parameter {name!r}: {type(d).__name__} is refused: {reason}")
    base = getattr(d, "base_dist", None)
    if isinstance(d, (*WRAPPERS, dist.MaskedDistribution, dist.TransformedDistribution)):
        refuse(name, base)
    if getattr(d, "is_sparse", False):
        raise PriorError(f"parameter {name!r}: CAR needs a dense adjacency (is_sparse=False)")
    if d.support is None or d.support.is_discrete:
        raise PriorError(
            f"parameter {name!r}: {type(d).__name__} is discrete; only continuous parameters are "
            "supported. Sum it out of the simulator, or let the simulator draw it"
        )
    if 0 in d.shape():
        raise PriorError(f"parameter {name!r}: shape {d.shape()} holds no number")


def support_of(d: Any) -> Any:
    """The support; NumPyro's Levy forgets its own when it crosses a jit (0.22)."""
    return constraints.greater_than(d.loc) if type(d) is dist.Levy else d.support


def bijection_of(d: Any) -> Any:
    """The bijection from Rⁿ onto the support of ``d``.

    Raises:
        PriorError: none is known.
    """
    support = support_of(d)
    try:
        bijection = transforms.biject_to(support)
    except NotImplementedError as error:
        raise PriorError(
            f"{type(d).__name__} is refused: no bijection from Rⁿ onto its support "
            f"({type(support).__name__})"
        ) from error
    if support is constraints.corr_cholesky or support is constraints.corr_matrix:
        # Partial correlations are tanh(z): halved, |z| <= 4 stays where float32 resolves them, and
        # a weak prior has z of order one.
        half = transforms.AffineTransform(0.0, 0.5)
        return transforms.ComposeTransform([half, bijection])
    return bijection


def by_support(d: Any) -> Route:
    """The route through the support's own bijection, open to every density."""
    bijection = bijection_of(d)
    shape = tuple(bijection.inverse_shape(d.shape()))
    return Route("support", type(d).__name__, shape, len(shape) - len(d.batch_shape), False)


def _leaf(d: Any, good: bool) -> Route:
    family, shape = type(d).__name__, tuple(d.shape())
    if type(d) is dist.Normal:
        return Route("normal", family, shape, 0, True)
    if type(d) in VECTORS:
        return Route("vector", family, shape, len(d.event_shape), True)
    if not good:
        return by_support(d)
    if type(d) is dist.AsymmetricLaplaceQuantile:
        inner = Route("tails", "AsymmetricLaplace", shape, 0, True)
        return Route("unwrap", family, shape, 0, True, inner)
    if type(d) in TAILS:
        return Route("tails", family, shape, 0, True)
    if type(d) in SOLVED:
        return Route("solved", family, shape, 0, True)
    if type(d) in TRUNCATED:
        return Route("truncated", family, shape, 0, True, _leaf(d.base_dist, True))
    return by_support(d)


def choose(d: Any, verdict: Callable[[Any], bool]) -> Route:
    """The route of a distribution (masks already stripped).

    Args:
        d: a NumPyro distribution that `refuse` lets pass.
        verdict: says of a leaf distribution whether its quantile formula may be used.

    Raises:
        PriorError: no bijection onto the support is known.
    """
    family = type(d).__name__
    if isinstance(d, WRAPPERS):
        inner = choose(d.base_dist, verdict)
        shape = inner.shape
        if isinstance(d, dist.ExpandedDistribution):
            shape = tuple(d.batch_shape) + shape[len(shape) - inner.event :]
        return Route("unwrap", family, shape, len(shape) - len(d.batch_shape), inner.exact, inner)
    if type(d) is dist.Pareto and not verdict(d):
        return by_support(d)
    if type(d) in PUSHED and not any(isinstance(t, NOT_BIJECTIVE) for t in d.transforms):
        inner = choose(d.base_dist, verdict)
        event = len(inner.shape) - len(d.batch_shape)
        return Route("push", family, inner.shape, event, inner.exact, inner)
    if type(d) in (dist.GaussianCopula, dist.GaussianCopulaBeta):
        inner = choose(d.marginal_dist, verdict)
        if inner.exact and inner.kind in ELEMENTWISE:
            return Route("copula", family, tuple(d.shape()), 1, True, inner)
        return by_support(d)
    return _leaf(d, verdict(d))


def leaves(d: Any) -> list[Any]:
    """The distributions on which `choose` asks for a verdict, in its order."""
    found: list[Any] = []

    def note(leaf: Any) -> bool:
        found.append(leaf)
        return True

    choose(d, note)
    return found
