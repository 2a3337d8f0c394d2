"""A network of networks: one for each kind of data in a dict."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from jaxsbi.base import Array, Data
from jaxsbi.networks.mlp import MultilayerPerceptron

Parts = tuple[tuple[str, nn.Module], ...]
"""Names in the data's dict, each with the network that reads what it names."""


def seed_parts(parts: Parts, x: Data) -> None:
    """Let the networks that keep statistics of the data see their part of a batch."""
    for name, network in parts:
        if getattr(type(network), "seed", None) is not None:
            network.seed(x[name])


def check_parts(who: str, parts: Parts, x: Data, advice: str) -> None:
    """Raise a ValueError unless `x` is a dict of the names that are read."""
    names = {name for name, _ in parts}
    if not isinstance(x, dict) or set(x) != names:
        got = sorted(x) if isinstance(x, dict) else type(x).__name__
        raise ValueError(f"{who} {sorted(names)}, got {got}.{advice}")


class Fusion(nn.Module):
    """Summaries of several kinds of data, joined by a perceptron; see `Fuse`.

    Attributes:
        parts: Names in the data's dict, each with the network that reads what it names.
        out: Width of the joint summary.
        hidden: Width of the perceptron's two layers.
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    parts: Parts = ()
    out: int = 16
    hidden: int = 64
    activation: str = "silu"

    def seed(self, x: Data) -> None:
        """Let the networks that keep statistics of the data see their part of a batch."""
        self._check(x)
        seed_parts(self.parts, x)

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one data set, a dict with the names of the parts, to `(out,)`.

        Raises:
            ValueError: If `x` has other names, or a network does not return one vector.
        """
        self._check(x)
        summaries = {name: network(x[name]) for name, network in self.parts}
        for name, summary in summaries.items():
            if summary.ndim != 1:
                raise ValueError(
                    f"Fuse: expected one vector of x[{name!r}], got shape {summary.shape}."
                )
        h = jnp.concatenate(list(summaries.values()))
        return MultilayerPerceptron((self.hidden,) * 2, self.out, self.activation)(h)

    def _check(self, x: Data) -> None:
        if not self.parts:
            raise ValueError('Fuse: expected at least one network, as in {"image": Conv()}.')
        advice = (
            " Give each of its entries a network; one that is missing at times is passed with a "
            "mask."
        )
        check_parts("Fuse: expected x to be a dict of", self.parts, x, advice)


def Fuse(  # noqa: N802 - it stands where a module class would
    parts: Mapping[str, nn.Module], *, out: int = 16, hidden: int = 64, activation: str = "silu"
) -> Fusion:
    """Return a network for a dict of data, e.g. `Fuse({"image": Conv(), "spectrum": MLP(64)})`.

    Args:
        parts: Name in the data's dict → the network that reads what it names.
        out: Width of the joint summary.
        hidden: Width of the two layers that join the summaries.
        activation: A registered name (`jaxsbi.networks.activations`).
    """
    pairs = tuple(sorted(parts.items()))
    return Fusion(parts=pairs, out=out, hidden=hidden, activation=activation)
