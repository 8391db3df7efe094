"""From an accumulator to what the engine takes: a tree of nodes, and, where it is one, a leaf with runs of runs.

The engine takes products as they come; where a Reverse changes their order, the operands are put in that order first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats import Use, dyadic
from native import lib
from native.matmul import MAX_JOINS, MAX_NODES, NONE, Join, Node

from .accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fixed,
    Fma,
    Interleave,
    Kahan,
    Late,
    Neumaier,
    Reverse,
    Seq,
    Tree,
    numbered,
    walk,
)

MAX_LANES = 1 << 16  # of interleaves within each other


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


def lower(accumulator: Accumulator, operands: tuple[Use, Use] | None = None) -> Lowered:
    """Lower an accumulator; its Late and its Reverses are the caller's, who adds c at the end and orders k by `taken`.

    Args:
        operands: formats of the operands, which aligned steps ask for the exponents of their subnormals.
    Raises:
        ValueError: more nodes or levels than the engine takes.
    """
    if isinstance(accumulator, Late):
        accumulator = accumulator.inner
    nodes: list[Node] = []
    for part in numbered(accumulator):
        nodes.append(_node(part, len(nodes), operands))
    if len(nodes) > MAX_NODES:
        raise ValueError(f"{accumulator}: {len(nodes)} parts; the engine takes at most {MAX_NODES}")
    lanes = math.prod(part.ways for part in walk(accumulator) if isinstance(part, Interleave))
    if lanes > MAX_LANES:
        raise ValueError(f"{accumulator}: {lanes} lanes; the engine takes at most {MAX_LANES}")
    joins: list[Join] = []
    leaf, linear = 0, True
    while nodes[leaf].kind in ("chunk", "interleave"):
        outer = nodes[nodes[leaf].outer]
        linear &= nodes[leaf].kind == "chunk" and outer.kind in ("fma", "seq") and outer.length <= 1
        if linear and outer.sum:
            joins.insert(0, Join(nodes[leaf].length, outer.sum))
        leaf = nodes[leaf].inner
    return Lowered(tuple(nodes), leaf, tuple(joins) if linear and len(joins) <= MAX_JOINS else None)


def taken(accumulator: Accumulator, k: int) -> NDArray[np.intp] | None:
    """Return the order in which the engine has to see k products, or None if that is as they come."""
    if not any(isinstance(part, Reverse) for part in walk(accumulator)):
        return None
    return _taken(accumulator, np.arange(k))


def _taken(accumulator: Accumulator, ks: NDArray[np.intp]) -> NDArray[np.intp]:
    match accumulator:
        case Late(inner):
            return _taken(inner, ks)
        case Reverse(length, inner):
            return _taken(inner, _by_runs(ks, length, lambda run: run[::-1]))
        case Chunk(length, inner, _):
            return _by_runs(ks, length, lambda run: _taken(inner, run))
        case Interleave(ways, inner, _):
            ordered = ks.copy()
            for lane in range(ways):
                ordered[lane::ways] = _taken(inner, ks[lane::ways])
            return ordered
    return ks


def _by_runs(
    ks: NDArray[np.intp], length: int, ordered: Callable[[NDArray[np.intp]], NDArray[np.intp]]
) -> NDArray[np.intp]:
    return np.concatenate([ks[:0], *(ordered(ks[i : i + length]) for i in range(0, len(ks), length))])


def _node(part: Accumulator, index: int, operands: tuple[Use, Use] | None) -> Node:
    match part:
        case Fma(total, products):
            return Node("fma", total, length=products)
        case Seq(product, total):
            return Node("seq", total, product)
        case Tree(total, radix, leaves):
            return Node("tree", total, length=radix, fields=(("exact_leaves", int(leaves == "exact")),))
        case Interleave(ways, inner, _):
            return Node("interleave", length=ways, inner=index + 1, outer=_behind(inner, index))
        case Chunk(length, inner, _):
            return Node("chunk", length=length, inner=index + 1, outer=_behind(inner, index))
        case Kahan(total):
            return Node("kahan", total)
        case Neumaier(total):
            return Node("neumaier", total)
        case Exact(total):
            return Node("exact", total)
        case Fixed():
            return Node("fixed_point", part.sum, Use(part.range), fields=(("tracks", int(part.mode == "track")),))
        case Aligned():
            return Node("aligned", part.out, length=part.n, fields=_aligned_fields(part, operands))
    raise TypeError(f"{part} cannot be lowered")


def _behind(inner: Accumulator, index: int) -> int:
    """Return the number of the node behind an inner accumulator that follows node `index`."""
    return index + 1 + len(numbered(inner))


def _aligned_fields(part: Aligned, operands: tuple[Use, Use] | None) -> tuple[tuple[str, int], ...]:
    a, b = (NONE if use is None else min_exponent(use) for use in operands or (None, None))
    fields = {
        "fraction": part.frac,
        "late": int(part.c == "late"),
        "align": getattr(lib, f"ULP_{part.align.upper()}"),
        "keeps_zeros": int(part.zero == "keep"),
        "two_of_four": int(part.order == "two_of_four"),
        "group": part.group,
        "parts": part.parts,
        "min_exponent": _or_none(part.e_min),
        "part_fraction": _or_none(part.part_frac),
        "sum_fraction": _or_none(part.sum_frac),
        "c_fraction": _or_none(part.c_frac),
        "c_reach": _or_none(part.c_reach),
        "a_min_exponent": a,
        "b_min_exponent": b,
    }
    return tuple(fields.items())


def _or_none(number: int | None) -> int:
    return NONE if number is None else number


def min_exponent(use: Use) -> int:
    """Return the exponent of the smallest normal value of an operand's format."""
    integer, exponent = dyadic.from_float(use.format.smallest_normal)
    return exponent + integer.bit_length() - 1
