"""Operators on the types of elements in which torch computes little: wide unsigned integers, and floats of 8 bits."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .registry import Declined, Node, Operator

_UNSIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_FLOATS = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu)
_SAME_WIDTH = _UNSIGNED | dict.fromkeys(_FLOATS, torch.int8)


def widened(x: Any) -> Any:
    """Return a tensor of wide unsigned integers as int64, anything else as it is.

    Raises:
        Declined: a value of 2^63 or more, which int64 does not hold.
    """
    if not isinstance(x, Tensor) or x.dtype not in _UNSIGNED:
        return x
    wide = x.to(torch.int64)
    if x.dtype == torch.uint64 and bool((wide < 0).any()):
        raise Declined("values of uint64 from 2^63 on")
    return wide


def computing(function: Operator) -> Operator:
    """Let a function compute on wide unsigned integers: as int64, and its integers back to the first operand's type."""

    @functools.wraps(function)
    def run(node: Node, *inputs: Any) -> Any:
        result = function(node, *map(widened, inputs))
        narrow = inputs[0].dtype in _UNSIGNED and result.dtype == torch.int64
        return result.to(inputs[0].dtype) if narrow else result

    return run


def moving(function: Operator) -> Operator:
    """Let a function that only moves elements move those of any type: as signed integers of the same width."""

    @functools.wraps(function)
    def run(node: Node, *inputs: Any) -> Any:
        types = [x.dtype for x in inputs if isinstance(x, Tensor) and x.dtype in _SAME_WIDTH]
        if not types:
            return function(node, *inputs)
        carried = (
            x.view(_SAME_WIDTH[x.dtype]) if isinstance(x, Tensor) and x.dtype in _SAME_WIDTH else x for x in inputs
        )
        return function(node, *carried).view(types[0])

    return run
