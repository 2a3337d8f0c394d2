"""Reading a NumPyro model site by site."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.primitives import Messenger

from jaxsbi.latent.routes import PriorError, Route, leaves, refuse, strip_masks
from jaxsbi.latent.usable import usable

Model = Callable[[], Any]
Visit = Callable[[str, Any], Array]
PROBES = 64
"""Draws of a model on which the usability of each conditional's quantiles is judged."""


class _Sites(Messenger):
    """Gives every sample site of a model the value that ``visit`` returns for it."""

    def __init__(self, model: Model, visit: Visit) -> None:
        super().__init__(model)
        self.visit = visit
        self.values: dict[str, Array] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        msg["stop"] = True  # handlers of a model that is being run outside see none of this
        kind, name = msg["type"], msg.get("name")
        if kind == "plate" and msg["args"][1] not in (None, msg["args"][0]):
            raise PriorError(f"plate {name!r} subsamples; a prior needs every element of a plate")
        if kind == "control_flow":
            raise PriorError("a model with scan or cond sites is not supported; use a plate")
        if kind in ("param", "mutable"):
            raise PriorError(f"site {name!r} is a numpyro.{kind}; a prior takes sample sites only")
        if kind == "sample":
            site = str(name)
            msg["value"] = self.values[site] = self._value(site, msg)

    def _value(self, name: str, msg: dict[str, Any]) -> Array:
        if msg["is_observed"]:
            raise PriorError(
                f"site {name!r} is observed; a prior has no data. Leave the likelihood out of it"
            )
        if name in self.values:
            raise PriorError(f"two sample sites are named {name!r}; names must differ")
        d = msg["fn"]
        refuse(name, d)
        sample_shape = tuple(msg["kwargs"].get("sample_shape") or ())
        if sample_shape:
            d = d.expand(sample_shape + tuple(d.batch_shape))
        return self.visit(name, strip_masks(d))


def run(model: Model, visit: Visit) -> dict[str, Array]:
    """Run ``model`` with the values ``visit(name, distribution)``, in order of its sites."""
    sites = _Sites(model, visit)
    sites()
    return sites.values


def survey(
    model: Any, route: Callable[[str, Any, Any], Route]
) -> tuple[tuple[str, ...], tuple[Route, ...], tuple[tuple[int, ...], ...]]:
    """Names, routes and shapes of a model's sites, from a few draws of it.

    Args:
        model: a function without arguments.
        route: ``(name, distribution, verdict) -> Route``.

    Raises:
        TypeError: not a function.
        PriorError: no site, or one that `refuse` refuses.
    """
    if not callable(model) or isinstance(model, dist.Distribution):
        raise TypeError(
            f"expected a NumPyro model (a function of no arguments), got {type(model).__name__}; "
            "a distribution is passed by name: Prior(x=distribution)"
        )
    found: dict[str, tuple[Any, tuple[int, ...]]] = {}

    def draw(key: Array) -> dict[str, list[Array]]:
        """One run; says of every leaf distribution whether its quantiles are usable."""
        state, verdicts = [key], {}

        def visit(name: str, d: Any) -> Array:
            state[0], this = jax.random.split(state[0])
            verdicts[name] = [jnp.all(usable(leaf)) for leaf in leaves(d)]
            found[name] = (d, tuple(d.shape()))
            return d.sample(this)

        run(model, visit)
        return verdicts

    verdicts = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), PROBES))
    if not found:
        raise PriorError("the model has no sample site; a prior needs at least one parameter")
    routes = []
    for name, (d, _) in found.items():
        answers = iter([bool(np.all(v)) for v in verdicts[name]])
        routes.append(route(name, d, lambda _, answers=answers: next(answers)))
    return tuple(found), tuple(routes), tuple(shape for _, shape in found.values())
