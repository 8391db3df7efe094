"""Arithmetic, element by element."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .carriers import computing
from .registry import Declined, Node, Operator, operator
from .types import torch_type


def _plain(function: Callable[..., Tensor]) -> Operator:
    """Return an operator that is a function of torch."""

    def run(node: Node, *inputs: Tensor) -> Tensor:
        return function(*inputs)

    return run


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Abs": torch.abs, "Neg": torch.neg, "Sqrt": torch.sqrt,
    "Exp": torch.exp, "Log": torch.log, "Erf": torch.erf, "Reciprocal": torch.reciprocal, "Sign": torch.sign,
    "Ceil": torch.ceil, "Floor": torch.floor, "Round": torch.round, "Sin": torch.sin, "Cos": torch.cos,
    "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh,
    "Cosh": torch.cosh, "Tanh": torch.tanh, "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
}  # fmt: skip

for _name, _function in _FUNCTIONS.items():
    operator(_name)(computing(_plain(_function)))


@operator("Div")
@computing
def div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, of integers the quotient towards zero."""
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Mod")
@computing
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return a - q b, q the quotient rounded down, with the sign of b; or towards zero, with that of a (`fmod`)."""
    if node.get("fmod", 0):
        return torch.fmod(a, b)
    remainder = torch.remainder(a, b)
    return torch.where(remainder == 0, torch.copysign(remainder, b), remainder) if a.is_floating_point() else remainder


@operator("Pow")
@computing
def power(node: Node, base: Tensor, exponent: Tensor) -> Tensor:
    """Return base ** exponent in the type of the base."""
    if exponent.is_floating_point() and not base.is_floating_point():
        return torch.pow(base.double(), exponent.double()).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


@operator("Max")
@computing
def maximum(node: Node, *inputs: Tensor) -> Tensor:
    """Return the largest, NaN if one is NaN."""
    return functools.reduce(torch.maximum, inputs)


@operator("Min")
@computing
def minimum(node: Node, *inputs: Tensor) -> Tensor:
    """Return the smallest, NaN if one is NaN."""
    return functools.reduce(torch.minimum, inputs)


@operator("Sum")
def total(node: Node, *inputs: Tensor) -> Tensor:
    """Return the sum, from left to right."""
    return functools.reduce(torch.add, inputs)


@operator("Mean")
def mean(node: Node, *inputs: Tensor) -> Tensor:
    """Return the sum, from left to right, divided by the number of inputs."""
    return functools.reduce(torch.add, inputs) / len(inputs)


@operator("Clip", since=11)
@computing
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Return min(max(x, low), high): high where low exceeds it."""
    bounds = tuple(None if bound is None else bound.item() for bound in (low, high))
    return x if bounds == (None, None) else torch.clamp(x, *bounds)


@operator("BitShift")
def bit_shift(node: Node, x: Tensor, by: Tensor) -> Tensor:
    """Return the bits moved LEFT, or RIGHT with copies of the sign of a signed type.

    By a negative number, or by the width or more, nothing but the sign is left.
    """
    width = 8 * x.dtype.itemsize
    signed = x.dtype in (torch.int8, torch.int16, torch.int32, torch.int64)
    bits, by = x.to(torch.int64), by.to(torch.int64)
    outside = (by < 0) | (by >= width)
    if node.get("direction") == "LEFT":
        shifted = bits << by.clamp(0, width - 1)
        return torch.where(outside, 0, shifted).to(x.dtype)
    shifted = bits >> by.clamp(0, width - 1)
    if x.dtype == torch.uint64:  # int64 has filled with its sign what uint64 fills with zeros
        keep = torch.where(by == 0, -1, (1 << (64 - by).clamp(1, 63)) - 1)
        shifted = shifted & keep
    return torch.where(outside, torch.where(bits < 0, -1, 0) if signed else 0, shifted).to(x.dtype)


@operator("BitwiseAnd")
def bitwise_and(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return the bits that both have."""
    return a & b


@operator("BitwiseOr")
def bitwise_or(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return the bits that one of both has."""
    return a | b


@operator("BitwiseXor")
def bitwise_xor(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return the bits that exactly one has."""
    return a ^ b


@operator("BitwiseNot")
@computing
def bitwise_not(node: Node, x: Tensor) -> Tensor:
    """Return the bits that it has not."""
    return ~x


@operator("IsNaN")
def is_nan(node: Node, x: Tensor) -> Tensor:
    """Return where it is NaN."""
    return torch.isnan(x)


@operator("IsInf")
def is_inf(node: Node, x: Tensor) -> Tensor:
    """Return where it is an infinity, of the signs asked for."""
    wanted = [sign * math.inf for sign, name in ((1, "positive"), (-1, "negative")) if node.get(f"detect_{name}", 1)]
    return functools.reduce(torch.logical_or, (x == value for value in wanted), torch.zeros_like(x, dtype=torch.bool))


@operator("BitCast")
def bit_cast(node: Node, x: Tensor) -> Tensor:
    """Return the same bits as another type of the same width."""
    dtype = torch_type(node.get("to"))
    if dtype.itemsize != x.dtype.itemsize:
        raise Declined("a type of another width")
    return x.view(dtype)
