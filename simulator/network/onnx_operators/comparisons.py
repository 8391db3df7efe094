"""Comparisons and logic, element by element."""

from __future__ import annotations

import torch
from torch import Tensor

from .carriers import computing
from .registry import Node, operator


@operator("Equal")
@computing
def equal(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a = b."""
    return torch.eq(a, b)


@operator("Greater")
@computing
def greater(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a > b."""
    return torch.gt(a, b)


@operator("GreaterOrEqual")
@computing
def greater_or_equal(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a >= b."""
    return torch.ge(a, b)


@operator("Less")
@computing
def less(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a < b."""
    return torch.lt(a, b)


@operator("LessOrEqual")
@computing
def less_or_equal(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a <= b."""
    return torch.le(a, b)


@operator("And")
def logical_and(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a and b."""
    return torch.logical_and(a, b)


@operator("Or")
def logical_or(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a or b."""
    return torch.logical_or(a, b)


@operator("Xor")
def logical_xor(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a or b, not both."""
    return torch.logical_xor(a, b)


@operator("Not")
def logical_not(node: Node, x: Tensor) -> Tensor:
    """Return not x."""
    return torch.logical_not(x)
