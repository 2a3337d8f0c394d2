"""Flax modules that read data: a pytree in, a vector out."""

from jaxsbi.networks.flatten import flatten
from jaxsbi.networks.mlp import MLP, MultilayerPerceptron, ResNet
from jaxsbi.networks.sets import DeepSet, SortedSet

__all__ = ["MLP", "DeepSet", "MultilayerPerceptron", "ResNet", "SortedSet", "flatten"]
