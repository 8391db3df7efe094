"""Axes and sizes as nodes give them: numbers from the end, and lists that are attributes or tensors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

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
