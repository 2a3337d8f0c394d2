"""Flax modules that read data: a pytree in, a vector out."""

from jaxsbi.networks.flatten import flatten
from jaxsbi.networks.mlp import MLP, DeepSet, MultilayerPerceptron, ResNet

__all__ = ["MLP", "DeepSet", "MultilayerPerceptron", "ResNet", "flatten"]
