"""Operators that convert elements: Cast, CastLike."""

from __future__ import annotations

import torch
from torch import Tensor

from .registry import Declined, Node, operator
from .types import torch_type

_NARROW = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)

_ROUNDS_BEYOND = 464.0  # halfway from the largest e4m3fn, 448, to what would follow it; a tie goes to 448


@operator("Cast", since=9)
def _cast(node: Node, x: Tensor) -> Tensor:
    return _converted(node, x, torch_type(node.get("to")))


@operator("CastLike", since=15)
def _cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    return _converted(node, x, like.dtype)


def _converted(node: Node, x: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == x.dtype:
        return x
    if dtype == torch.float8_e8m0fnu:
        return _powers_of_two(node, x)
    if dtype in _NARROW and node.get("saturate", 1):
        largest = torch.finfo(dtype).max
        return x.float().clamp(-largest, largest).to(dtype)  # NaN stays
    if dtype == torch.float8_e4m3fn:  # which has no infinity; torch's conversion saturates
        return torch.where(x.float().abs() > _ROUNDS_BEYOND, torch.nan, x.float()).to(dtype)
    return x.to(dtype)


def _powers_of_two(node: Node, x: Tensor) -> Tensor:
    """Round up to a power of two, 2^-127 to 2^127: codes are exponents, and the last code is NaN."""
    if node.get("round_mode", "up") != "up" or not node.get("saturate", 1):
        raise Declined("a conversion to float8e8m0 that does not round up and saturate")
    significand, exponent = torch.frexp(x.double())
    codes = (exponent + 127 - (significand == 0.5).int()).clamp(0, 254)
    codes = torch.where(x.double() == 0, 0, torch.where(x.double().isinf(), 254, codes))
    return torch.where(x.double().isnan(), 255, codes).to(torch.uint8).view(torch.float8_e8m0fnu)
