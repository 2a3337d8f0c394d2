"""Networks that read one vector: plain and residual multilayer perceptrons."""

from __future__ import annotations

import flax.linen as nn

from jaxsbi.base import Array, Data
from jaxsbi.networks import activations
from jaxsbi.networks.flatten import flatten


class MultilayerPerceptron(nn.Module):
    """Dense layers with an activation after each; see `MLP`.

    Attributes:
        hidden: Width of each layer.
        out: Width of a last, linear layer; `None` for none.
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    hidden: tuple[int, ...] = (64, 64)
    out: int | None = None
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one data set (flattened to a vector) to `(hidden[-1],)` or `(out,)`."""
        h = flatten(x)
        for width in self.hidden:
            h = activations.get(self.activation)(nn.Dense(width)(h))
        return h if self.out is None else nn.Dense(self.out)(h)


def MLP(  # noqa: N802 - it stands where a module class would
    *hidden: int, out: int | None = None, activation: str = "silu"
) -> MultilayerPerceptron:
    """Return a multilayer perceptron, e.g. `MLP(256, 256)`.

    Args:
        *hidden: Width of each hidden layer.
        out: Width of a last, linear layer; methods add their own head where it is `None`.
        activation: A registered name (`jaxsbi.networks.activations`).
    """
    return MultilayerPerceptron(hidden=hidden or (64, 64), out=out, activation=activation)


class CosmoPower(nn.Module):
    """Dense layers whose activation is learned, for emulators of smooth functions.

    Each unit has its own f(h) = [γ + (1 - γ) / (1 + exp(-β h))] h, between a line (γ = 1) and a
    gate whose sharpness is learned (Spurio Mancini et al. 2022, arXiv:2106.03846; Alsing et al.
    2020, arXiv:1911.11778).

    Attributes:
        hidden: Width of each layer; four of 512 in the paper.
        out: Width of a last, linear layer; `None` for none.
    """

    hidden: tuple[int, ...] = (256, 256)
    out: int | None = None

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one data set (flattened to a vector) to `(hidden[-1],)` or `(out,)`."""
        h = flatten(x)
        for layer, width in enumerate(self.hidden):
            h = nn.Dense(width)(h)
            gamma, beta = (
                self.param(f"{name}_{layer}", nn.initializers.normal(1.0), (width,), h.dtype)
                for name in ("gamma", "beta")
            )
            h = (gamma + (1.0 - gamma) * nn.sigmoid(beta * h)) * h
        return h if self.out is None else nn.Dense(self.out)(h)


class ResNet(nn.Module):
    """Residual perceptron with pre-activation blocks (He et al. 2016, arXiv:1603.05027).

    Attributes:
        hidden: Width of the residual stream.
        blocks: Number of residual blocks, two dense layers each.
        out: Width of a last, linear layer; `None` for none.
        activation: A registered name.
        normalize: Layer normalisation before each block.
    """

    hidden: int = 64
    blocks: int = 2
    out: int | None = None
    activation: str = "silu"
    normalize: bool = False

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one data set (flattened to a vector) to `(hidden,)` or `(out,)`."""
        activation = activations.get(self.activation)
        h = nn.Dense(self.hidden)(flatten(x))
        for _ in range(self.blocks):
            r = nn.LayerNorm()(h) if self.normalize else h
            r = nn.Dense(self.hidden)(activation(r))
            # A zero last layer makes each block start as the identity, which trains faster.
            h = h + nn.Dense(self.hidden, kernel_init=nn.initializers.zeros)(activation(r))
        h = activation(h)
        return h if self.out is None else nn.Dense(self.out)(h)
