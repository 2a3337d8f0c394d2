"""Flax modules that read data: a pytree in, a vector out."""

from jaxsbi.networks.attention import SetTransformer, Transformer
from jaxsbi.networks.conv import Conv
from jaxsbi.networks.flatten import flatten
from jaxsbi.networks.fuse import Fuse, Fusion
from jaxsbi.networks.graph import GraphNet
from jaxsbi.networks.mlp import MLP, CosmoPower, MultilayerPerceptron, ResNet
from jaxsbi.networks.padding import bucket, pad
from jaxsbi.networks.projection import SVD
from jaxsbi.networks.seeding import initialize
from jaxsbi.networks.series import StateSpace
from jaxsbi.networks.sets import DeepSet, SortedSet

__all__ = [
    "MLP",
    "MultilayerPerceptron",
    "ResNet",
    "CosmoPower",
    "Conv",
    "DeepSet",
    "SetTransformer",
    "SortedSet",
    "Transformer",
    "StateSpace",
    "GraphNet",
    "SVD",
    "Fuse",
    "Fusion",
    "flatten",
    "bucket",
    "pad",
    "initialize",
]
