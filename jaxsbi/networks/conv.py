"""Networks that read series, images and volumes by convolutions."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data
from jaxsbi.missing import widen
from jaxsbi.networks import activations
from jaxsbi.networks.masks import members

SPACE = {1: "length, channels", 2: "height, width, channels", 3: "depth, height, width, channels"}


class Conv(nn.Module):
    """A convolutional network on a regular grid of one, two or three dimensions.

    Each stage is a convolution that halves the grid, normalised over the channels of each place
    (as in ConvNeXt, Liu et al. 2022, arXiv:2201.03545) and activated. At the end each channel says
    how much of it there is, by its global average, and where, by its expected position under a
    softmax over the grid (Finn et al. 2016, arXiv:1509.06113): an average alone forgets places.

    Missing pixels are passed by `{"values": (*grid, channels), "mask": (*grid,)}`: they are read as
    zero, and the mask is one more channel.

    Attributes:
        features: Channels of each stage.
        kernel: Length of a convolution's kernel along each axis.
        out: Width of the summary.
        dims: Dimensions of the grid: 1, 2 or 3.
        residual: A residual block of two convolutions after each stage (He et al. 2016,
            arXiv:1603.05027).
        hidden: Width of the layer after pooling.
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    features: tuple[int, ...] = (16, 32, 64)
    kernel: int = 3
    out: int = 16
    dims: int = 2
    residual: bool = False
    hidden: int = 128
    activation: str = "silu"

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: If the grid has no or too many dimensions, or there are no stages.
        """
        super().__post_init__()
        if self.dims not in SPACE or not self.features or self.kernel < 1:
            raise ValueError(
                "Conv: expected dims of 1, 2 or 3, at least one number of features, and a kernel "
                f"of 1 or more, got dims={self.dims}, features={self.features}, "
                f"kernel={self.kernel}."
            )

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one data set, `(*grid, channels)` or a masked one, to `(out,)`.

        Raises:
            ValueError: If the grid has other dimensions, or the channels are missing.
        """
        pixels = members(f"Conv(dims={self.dims})", x, SPACE[self.dims])
        activation, h = activations.get(self.activation), pixels.values
        if pixels.mask is not None:
            h = jnp.concatenate([h, widen(pixels.mask, h.ndim).astype(h.dtype)], -1)
        for width in self.features:
            h = nn.LayerNorm()(self._convolve(width, strides=2)(h))
            if self.residual:
                r = self._convolve(width)(activation(h))
                h = h + self._convolve(width, zero=True)(activation(nn.LayerNorm()(r)))
            h = activation(h)
        h = activation(nn.Dense(self.hidden)(_pool(h)))
        return nn.Dense(self.out)(h)

    def _convolve(self, width: int, *, strides: int = 1, zero: bool = False) -> _Convolution:
        return _Convolution(width, (self.kernel,) * self.dims, strides, zero)


class _Convolution(nn.Module):
    """A convolution, zero beyond the edges, as a matrix product of patches.

    XLA on CPUs runs convolutions in a loop, and `fit` is one, up to 20 times slower than outside
    of it (https://github.com/jax-ml/jax/issues/12868); products it runs as fast.
    """

    width: int
    kernel: tuple[int, ...]
    strides: int
    zero: bool

    @nn.compact
    def __call__(self, h: Array) -> Array:
        # A zero last layer makes a residual block start as the identity, which trains faster.
        start = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        return nn.Dense(self.width, kernel_init=start)(patches(h, self.kernel, self.strides))


def patches(h: Array, kernel: tuple[int, ...], strides: int) -> Array:
    """Return what a kernel sees at each place, `(*grid, c)` to `(*grid / strides, kernel * c)`."""
    *grid, channels = h.shape
    places = [-(-size // strides) for size in grid]
    # The span of the kernel's first number; the rest of the padding lies evenly on both sides.
    spans = [(count - 1) * strides + 1 for count in places]
    room = [max(span - 1 + k - size, 0) for span, k, size in zip(spans, kernel, grid, strict=True)]
    h = jnp.pad(h, [*((r // 2, r - r // 2) for r in room), (0, 0)])
    seen = []
    for offset in itertools.product(*map(range, kernel)):
        stop = [i + span for i, span in zip(offset, spans, strict=True)]
        step = [strides] * len(grid) + [1]
        seen.append(jax.lax.slice(h, [*offset, 0], [*stop, channels], step))
    return jnp.concatenate(seen, -1)


def _pool(h: Array) -> Array:
    """Return each channel's average and expected position, `(*grid, c)` to `(c (1 + dims),)`."""
    *grid, channels = h.shape
    axes = [
        jnp.linspace(-1.0, 1.0, size, dtype=h.dtype) if size > 1 else jnp.zeros(1) for size in grid
    ]
    places = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(grid))
    h = h.reshape(-1, channels)
    expected = jax.nn.softmax(h, 0).T @ places
    return jnp.concatenate([jnp.mean(h, 0), jnp.ravel(expected)])
