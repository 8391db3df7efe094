"""Axes and sizes as nodes give them: numbers from the end, lists that are attributes or tensors, shapes that fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from simulator.network.limits import check_fits

from .registry import Declined, Node


def positive(axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        Declined: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise Declined(f"axis {axis} of a tensor with {rank} axes")
    return axis % rank


def all_positive(axes: Sequence[int], rank: int) -> list[int]:
    """Return axes counted from the front, in their order.

    Raises:
        Declined: there is no such axis, or one is given twice.
    """
    result = [positive(axis, rank) for axis in axes]
    if len(set(result)) < len(result):
        raise Declined(f"an axis given twice: {list(axes)}")
    return result


def integers(node: Node, name: str, given: Tensor | None) -> list[int] | None:
    """Return a list that is an input in later versions and the attribute `name` in earlier ones; None for neither."""
    return node.get(name) if given is None else given.reshape(-1).tolist()


def fitting(shape: Iterable[int], dtype: torch.dtype) -> list[int]:
    """Return a shape that values give, and not operands of that size, as a list.

    Raises:
        Declined: a size is negative.
        InputError: a tensor of that shape does not fit in memory.
    """
    sizes = list(shape)
    if min(sizes, default=0) < 0:
        raise Declined(f"a result of shape {sizes}")
    check_fits(f"a tensor of shape {tuple(sizes)}", math.prod(sizes), dtype.itemsize)
    return sizes
