"""Networks that read one vector: plain and residual multilayer perceptrons."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

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


class DeepSet(nn.Module):
    """Permutation-invariant summary of a set (Zaheer et al. 2017, arXiv:1703.06114).

    Attributes:
        out: Width of the summary.
        hidden: Width of the two-layer networks before and after pooling.
        activation: A registered name.
    """

    out: int = 16
    hidden: int = 64
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map one set of shape `(members, features)` to `(out,)`.

        Raises:
            ValueError: If `x` is not one array of two axes.
        """
        if getattr(x, "ndim", None) != 2:
            got = getattr(x, "shape", type(x).__name__)
            raise ValueError(f"DeepSet: expected x of shape (members, features), got {got}.")
        activation = activations.get(self.activation)
        h = activation(nn.Dense(self.hidden)(x))
        h = activation(nn.Dense(self.hidden)(h))
        # Mean and maximum: the mean alone cannot count extremes, the maximum alone cannot average.
        h = jnp.concatenate([jnp.mean(h, 0), jnp.max(h, 0)])
        h = activation(nn.Dense(self.hidden)(h))
        return nn.Dense(self.out)(h)
