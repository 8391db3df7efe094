"""Scales of a quantised ONNX file: from each DequantizeLinear to the products that read what it gives.

A file in QDQ form says by pairs of QuantizeLinear and DequantizeLinear what its quantised tensors are; a compiler for a
machine of integers takes these and leaves the pairs out. They are followed through what only moves values or chooses
among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .model_scales import ModelScales, Operands
from .onnx_operators.registry import Node
from .onnx_operators.types import torch_type

# Operators whose output has values of their first input, in whatever places, or zeros.
_MOVES = frozenset({"Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# Products of integers as they are: which inputs are the two operands, and their zero points.
_OF_INTEGERS = {
    "ConvInteger": ((0, 2), (1, 3)), "MatMulInteger": ((0, 2), (1, 3)),
    "QLinearConv": ((0, 2), (3, 5)), "QLinearMatMul": ((0, 2), (3, 5)),
}  # fmt: skip
_STACKED = frozenset({"bmm", "baddbmm"})
_LEAST, _LARGEST = 2.0**-126, 2.0**127


def output_scales(
    node: Node, scales: Sequence[ModelScales | None], constants: Sequence[Tensor | None]
) -> ModelScales | None:
    """Return the scales of the output of a node; None of one that has none.

    Args:
        scales: of its inputs. constants: those of its inputs that the file holds.
    """
    if node.domain:
        return None
    if node.op == "DequantizeLinear":
        return _dequantised(node, [*constants, None][:3])
    if node.op not in _MOVES or not scales or scales[0] is None:
        return None
    found = scales[0]
    if node.op == "Transpose" and found.axis is not None and found.rank is not None:
        order = node.get("perm", list(range(found.rank))[::-1])
        return replace(found, axis=order.index(found.axis) if found.axis in order else None)
    if found.axis is not None and node.op not in ("Identity", "Relu"):
        return replace(found, refusal=f"scales along an axis that {node.op} moves")
    return found if node.op in ("Identity", "Relu", "Transpose") else replace(found, rank=None)


def operand_scales(node: Node, scales: Sequence[ModelScales | None], constants: Sequence[Tensor | None]) -> Operands:
    """Return the scales of the operands of a node that is one product; Nones of any other.

    Args:
        scales: of its inputs. constants: those of its inputs that the file holds.
    """
    if node.domain or len(scales) < 2:
        return None, None
    first, second = scales[:2]
    if node.op in _OF_INTEGERS:
        given = [*constants, *[None] * 8]
        first, second = (_integers(given[at], given[zero], torch.ones(())) for at, zero in _OF_INTEGERS[node.op])
    elif node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None, None
    outputs: int | None = None  # the axis of the second operand that its output channels are along
    if node.op == "Conv":
        outputs = 0
    elif node.op == "Gemm":
        outputs = 0 if node.get("transB", 0) else 1
    elif "MatMul" in node.op:
        rank = None if second is None else second.rank
        outputs = None if rank is None else rank - 1
        if rank is None or rank > 2:
            # torch may compute a product of a matrix with a stack the other way round.
            first, second = (None if one is None else replace(one, kinds=_STACKED) for one in (first, second))
    return _along(first, None), _along(second, outputs)


def _along(found: ModelScales | None, axis: int | None) -> ModelScales | None:
    """Return scales with a refusal, if they are several along another axis than one."""
    if found is None or found.refusal or found.axis is None or found.axis == axis:
        return found
    return replace(found, refusal="several scales that are not those of the output channels")


def _dequantised(node: Node, constants: Sequence[Tensor | None]) -> ModelScales:
    """Return the scales of a DequantizeLinear, refused where they are no scales of an operand's integers."""
    x, scale, zero = constants
    if scale is None:
        return _refused("a scale that is computed")
    if node.get("block_size", 0):
        return _refused("scales by blocks")
    form = torch_type(node.get("output_dtype")) if node.get("output_dtype", 0) else scale.dtype
    found = _integers(x, zero, scale)
    if not found.refusal and max(-found.low, found.high) * torch.finfo(form).eps >= 0.25:
        return _refused(f"values in {str(form).removeprefix('torch.')}, which does not tell their integers apart")
    if found.refusal or len(found.scales) == 1:
        return found
    axis = node.get("axis", 1)
    if axis < 0 and found.rank is None:
        return _refused("an axis counted from the end")
    return replace(found, axis=axis + (found.rank or 0) if axis < 0 else axis)


def _integers(x: Tensor | None, zero: Tensor | None, scale: Tensor) -> ModelScales:
    """Return the scales of integers less their zero point; x and zero are None where they are computed or left out."""
    dtype = x.dtype if x is not None else zero.dtype if zero is not None else None
    if dtype is None:
        return _refused("no zero point, which would say the type, in the file")
    if dtype.is_floating_point or dtype.itemsize > 2:
        return _refused(f"numbers of {str(dtype).removeprefix('torch.')}, expected integers of up to 16 bits")
    values = scale.to(torch.float32).flatten()
    if not bool(((values >= _LEAST) & (values <= _LARGEST)).all()):
        return _refused("scales that are not between 2^-126 and 2^127")
    low, high = _range(dtype, x)
    if zero is not None and zero.numel():
        low, high = low - int(zero.to(torch.int64).max()), high - int(zero.to(torch.int64).min())
    return ModelScales(tuple(values.tolist()), low, high, rank=None if x is None else x.dim())


def _range(dtype: torch.dtype, x: Tensor | None) -> tuple[int, int]:
    """Return the least and the largest integer of a type, or of a tensor of the file."""
    if x is None or not x.numel():
        limits = torch.iinfo(dtype)
        return limits.min, limits.max
    least, largest = x.to(torch.int32).aminmax()
    return int(least), int(largest)


def _refused(why: str) -> ModelScales:
    return ModelScales((), 0, 0, refusal=why)
