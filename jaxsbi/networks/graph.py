"""Networks that read a graph by passing messages along its edges."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsbi.base import Array, Data
from jaxsbi.networks import activations
from jaxsbi.networks.masks import members, pool

FORM = (
    '{"nodes": (n, features), "edges": {"senders": (e,), "receivers": (e,)}}, the edges with '
    '"values": (e, features) and a "mask": (e,) if you like, and masked nodes as '
    '{"values": (n, features), "mask": (n,)}'
)


class GraphNet(nn.Module):
    """Message passing, pooled over the nodes (Battaglia et al. 2018, arXiv:1806.01261).

    A graph is a dict::

        {"nodes": (n, features),                     # or {"values": …, "mask": (n,)}
         "edges": {"senders": (e,), "receivers": (e,),
                   "values": (e, features), "mask": (e,)}}       # these two may be left out

    In each round every edge makes a message of the nodes that it joins and its own features, and
    every node hears the mean of what it receives, and of how many (it counts them by their
    logarithm). An edge is directed: give both directions where there is none. The summary depends
    neither on the order of nodes and edges nor on padding; an edge at a masked node is none. An
    index outside 0 … n-1 cannot be seen at run time, and is read as the nearest one.

    Attributes:
        out: Width of the summary.
        hidden: Width of a node.
        rounds: Rounds of messages, each with parameters of its own.
        activation: A registered name (`jaxsbi.networks.activations`).
    """

    out: int = 16
    hidden: int = 64
    rounds: int = 2
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Data) -> Array:
        """Map one graph to `(out,)`.

        Raises:
            TypeError: If a mask is not boolean, or an index is no integer.
            ValueError: If `x` is no such graph.
        """
        graph = _read(x)
        activation = activations.get(self.activation)
        h = nn.Dense(self.hidden)(graph.nodes)
        there = graph.there[:, None]
        size, ones = len(h), graph.there.astype(h.dtype)
        degree = jax.ops.segment_sum(ones, graph.receivers, size)[:, None]
        for _ in range(self.rounds):
            read = nn.LayerNorm()(h)
            edge = [read[graph.senders], read[graph.receivers]]
            edge += [] if graph.edges is None else [graph.edges]
            message = activation(nn.Dense(self.hidden)(jnp.concatenate(edge, -1)))
            message = nn.Dense(self.hidden)(message)
            heard = jax.ops.segment_sum(jnp.where(there, message, 0.0), graph.receivers, size)
            heard = heard / jnp.maximum(degree, 1.0)
            node = jnp.concatenate([read, heard, jnp.log1p(degree)], -1)
            h = h + nn.Dense(self.hidden)(activation(nn.Dense(self.hidden)(node)))
        h = activation(nn.Dense(self.hidden)(nn.LayerNorm()(h)))
        h = activation(nn.Dense(self.hidden)(pool(h, graph.mask)))
        return nn.Dense(self.out)(h)


class _Graph(NamedTuple):
    """Nodes `(n, f)` and their mask, edges `(e, g)`, which of them are there, and their ends."""

    nodes: Array
    mask: Array | None
    edges: Array | None
    there: Array
    senders: Array
    receivers: Array


def _read(x: Any) -> _Graph:
    edges = x.get("edges") if isinstance(x, dict) else None
    if not isinstance(edges, dict) or set(x) != {"nodes", "edges"}:
        got = sorted(x) if isinstance(x, dict) else getattr(x, "shape", type(x).__name__)
        raise ValueError(f"GraphNet: expected {FORM}, got {got}.")
    if {"senders", "receivers"} - set(edges) or set(edges) - {
        *("senders", "receivers", "values", "mask"),
    }:
        raise ValueError(f"GraphNet: expected {FORM}, got edges with {sorted(edges)}.")
    nodes = members("GraphNet: nodes", x["nodes"], "nodes, features")
    senders, receivers = (_index(edges, name) for name in ("senders", "receivers"))
    there, values = jnp.ones(senders.shape, bool), None
    if "values" in edges:
        own = {key: edges[key] for key in ("values", "mask") if key in edges}
        given = members("GraphNet: edges", own, "edges, features")
        there, values = there if given.mask is None else given.mask, given.values
    elif "mask" in edges:
        # Read as if the edges had a feature, for the checks.
        own = {"values": jnp.zeros((*senders.shape, 1)), "mask": edges["mask"]}
        there = jnp.any(edges["mask"].reshape(len(senders), -1), -1)
        members("GraphNet: edges", own, "edges, features")
    if senders.shape != receivers.shape or len(there) != len(senders):
        raise ValueError(
            f"GraphNet: expected as many senders as receivers and edges, got {senders.shape}, "
            f"{receivers.shape} and {len(there)}."
        )
    # What padding says of its ends is not looked at.
    senders, receivers = (
        jnp.clip(jnp.where(there, i, 0), 0, len(nodes.values) - 1) for i in (senders, receivers)
    )
    if nodes.mask is not None:
        there = there & nodes.mask[senders] & nodes.mask[receivers]
    return _Graph(nodes.values, nodes.mask, values, there, senders, receivers)


def _index(edges: dict[str, Any], name: str) -> Array:
    index = jnp.asarray(edges[name])
    if index.ndim != 1 or not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(
            f'GraphNet: x["edges"]["{name}"]: expected a vector of integers, the index of a node '
            f"for each edge, got {index.dtype}{list(index.shape)}."
        )
    return index
