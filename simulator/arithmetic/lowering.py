"""From an accumulator to what the engine takes: a tree of nodes, and, where it is one, a leaf with runs of runs."""

from __future__ import annotations

from typing import NamedTuple

from native.matmul import MAX_JOINS, MAX_NODES, Join, Node

from .accumulators import Accumulator, Chunk, Exact, Fma, Late, Seq


class Lowered(NamedTuple):
    """An accumulator for the engine.

    Args:
        nodes: the tree, root first.
        leaf: index of the node that takes the products.
        joins: how runs are joined, innermost first; None if the tree is no leaf with runs of runs.
    """

    nodes: tuple[Node, ...]
    leaf: int
    joins: tuple[Join, ...] | None


def lower(accumulator: Accumulator) -> Lowered:
    """Lower an accumulator without its Late, which the caller adds at the end.

    Raises:
        ValueError: more nodes or levels than the engine takes.
    """
    if isinstance(accumulator, Late):
        accumulator = accumulator.inner
    nodes: list[Node] = []
    _append(accumulator, nodes)
    if len(nodes) > MAX_NODES:
        raise ValueError(f"{accumulator}: {len(nodes)} parts; the engine takes at most {MAX_NODES}")
    joins: list[Join] = []
    leaf, linear = 0, True
    while nodes[leaf].kind == "chunk":
        outer = nodes[nodes[leaf].outer]
        linear &= outer.kind != "chunk"
        if outer.sum:
            joins.insert(0, Join(nodes[leaf].length, outer.sum))
        leaf = nodes[leaf].inner
    return Lowered(tuple(nodes), leaf, tuple(joins) if linear and len(joins) <= MAX_JOINS else None)


def _append(accumulator: Accumulator, nodes: list[Node]) -> int:
    index = len(nodes)
    match accumulator:
        case Fma(total):
            nodes.append(Node("fma", total))
        case Seq(product, total):
            nodes.append(Node("seq", total, product))
        case Exact(total):
            nodes.append(Node("exact", total))
        case Chunk(length, inner, outer):
            nodes.append(Node("chunk"))
            inner_index = _append(inner, nodes)
            nodes[index] = Node("chunk", length=length, inner=inner_index, outer=_append(outer, nodes))
        case _:
            raise TypeError(f"{accumulator} cannot be lowered")
    return index
