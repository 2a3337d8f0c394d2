"""A network that reads many numbers in the directions in which the training data vary most."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data
from jaxsbi.networks.flatten import flatten
from jaxsbi.networks.mlp import ResNet

SMALLEST = 1e-6
"""Variances below this share of the largest are rounding, in single precision."""


class SVD(nn.Module):
    """Principal components of the training data, read by a residual network.

    As DINGO reads strain data (Dax et al. 2021, arXiv:2106.12594), but the basis stays what the
    data say: it is no parameter. Each component is scaled to unit variance. Before `seed` was
    called, which `fit` does by itself, the basis is zero and the network reads nothing.

    Attributes:
        components: Numbers kept.
        out: Width of the summary.
        hidden: Width of the residual network.
        blocks: Its residual blocks.
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    components: int = 32
    out: int = 16
    hidden: int = 128
    blocks: int = 2
    activation: str = "silu"

    def seed(self, x: Data) -> None:
        """Keep the mean and the basis of a batch, every leaf of shape `(n, *shape)`.

        Raises:
            ValueError: If there are more components than numbers or than data sets.
        """
        rows = jax.vmap(flatten)(x)
        if not 1 <= self.components <= min(rows.shape):
            raise ValueError(
                "SVD: expected from 1 component to as many as the data have numbers, and no more "
                f"than simulations, got components={self.components} for {rows.shape[1]} numbers "
                f"and {rows.shape[0]} simulations."
            )
        mean = jnp.mean(rows, 0)
        self.put_variable("statistics", "mean", mean)
        self.put_variable("statistics", "basis", principal(rows - mean[None], self.components))

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one data set (flattened to a vector) to `(out,)`."""
        row = flatten(x)
        mean = self.variable("statistics", "mean", jnp.zeros, row.shape, row.dtype).value
        shape = (len(row), self.components)
        basis = self.variable("statistics", "basis", jnp.zeros, shape, row.dtype).value
        network = ResNet(self.hidden, self.blocks, self.out, self.activation, normalize=True)
        return network((row - mean) @ basis)


def principal(rows: Array, count: int) -> Array:
    """Return the leading directions of centred rows, divided by the standard deviations there.

    Args:
        rows: Shape `(n, d)`.
        count: The number of directions k.

    Returns:
        Shape `(d, k)`, the largest variance first; 0 for directions in which nothing varies.
    """
    n, d = rows.shape
    # The smaller of the two Gram matrices: they share their eigenvalues.
    wide = d > n
    variance, vectors = jnp.linalg.eigh((rows @ rows.T if wide else rows.T @ rows) / n)
    variance, vectors = variance[::-1][:count], vectors[:, ::-1][:, :count]
    there = variance > SMALLEST * jnp.maximum(variance[0], jnp.finfo(rows.dtype).tiny)
    deviation = jnp.sqrt(jnp.where(there, variance, 1.0))[None]
    if wide:
        vectors = rows.T @ vectors / (jnp.sqrt(n) * deviation)
    return jnp.where(there[None], vectors / deviation, 0.0)
