"""Quantisation, and products of quantised tensors.

The products run in float64, where sums of fewer than 2^37 products of 8 bits are exact, as products and convolutions of
torch like all others; so they are seen as such.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .axes import positive
from .convolutions import convolved
from .registry import Declined, Node, operator
from .types import torch_type

QUANTISED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul",
    "QLinearConv",
)  # fmt: skip


def _per_axis(node: Node, values: Tensor, x: Tensor) -> Tensor:
    """Return scales or zero points, one in all, one a place along an axis, or one a block, as they broadcast to x.

    Raises:
        Declined: other numbers of them, which might make a large tensor of two small ones.
    """
    block = node.get("block_size", 0)
    if values.dim() == 0 or (values.numel() == 1 and not block):
        return values.reshape(())
    axis = positive(node.get("axis", 1), x.dim())
    shape = (x.shape[axis],)
    if block:
        shape = *x.shape[:axis], -(-x.shape[axis] // block), *x.shape[axis + 1 :]
    if values.shape != shape:
        of = f" by blocks of {block}" if block else ""
        raise Declined(f"scales or zero points {tuple(values.shape)} for {tuple(x.shape)} along axis {axis}{of}")
    if block:
        return values.repeat_interleave(min(block, x.shape[axis]), axis).narrow(axis, 0, x.shape[axis])
    return values.reshape([-1 if at == axis else 1 for at in range(x.dim())])


def _saturated(x: Tensor, zero: Tensor | int, dtype: torch.dtype) -> Tensor:
    """Return x rounded to the nearest, ties to even, plus a zero point, within the range of a type."""
    if dtype.is_floating_point:
        top = torch.finfo(dtype).max
        return x.clamp(-top, top).to(dtype)
    limits = torch.iinfo(dtype)
    whole = x.to(torch.promote_types(x.dtype, torch.float32)).round() + zero
    return whole.clamp(limits.min, limits.max).to(dtype)


@operator("QuantizeLinear")
def quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """Return x / scale rounded to the nearest, ties to even, plus a zero point, saturated; divided in scale's type."""
    if node.get("output_dtype", 0):
        dtype = torch_type(node.get("output_dtype"))
    else:
        dtype = torch.uint8 if zero is None else zero.dtype
    precision = torch_type(node.get("precision")) if node.get("precision", 0) else scale.dtype
    if not precision.is_floating_point or precision.itemsize == 1:
        precision = torch.float32
    quotient = x.to(precision) / _per_axis(node, scale.to(precision), x)
    whole = 0 if zero is None or dtype.is_floating_point else _per_axis(node, zero.to(torch.int32), x)
    if dtype.is_floating_point and not node.get("saturate", 1):
        raise Declined("a quantisation to floats of 8 bits that does not saturate")
    return _saturated(quotient, whole, dtype)


@operator("DequantizeLinear")
def dequantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """Return (x - zero) scale, in the type of the scale unless another is given."""
    dtype = torch_type(node.get("output_dtype")) if node.get("output_dtype", 0) else scale.dtype
    if dtype.itemsize == 1:
        dtype = torch.float32
    whole = x.to(torch.float32) if x.dtype.is_floating_point else x.to(torch.int32)
    if zero is not None and not zero.dtype.is_floating_point:
        whole = whole - _per_axis(node, zero.to(torch.int32), x)
    return whole.to(dtype) * _per_axis(node, scale.to(dtype), x)


@operator("DynamicQuantizeLinear")
def dynamic_quantize(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x as uint8, with the scale and the zero point by which its range, 0 included, fills them."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 255
    zero = _saturated(-low / scale, 0, torch.uint8)
    return _saturated(x / scale, zero, torch.uint8), scale, zero


def _shifted(x: Tensor, zero: Tensor | None, shape: tuple[int, ...] = (-1,)) -> Tensor:
    """Return x minus its zero point in float64; where several are a vector, in a shape that broadcasts to x."""
    if zero is None:
        return x.double()
    return x.double() - (zero.reshape(shape) if zero.dim() == 1 and zero.numel() > 1 else zero).double()


@operator("MatMulInteger")
def integer_matmul(
    node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """Return (A - its zero points, a row) (B - its zero points, a column) in int32."""
    return _integers(torch.matmul(_shifted(a, a_zero, (-1, 1)), _shifted(b, b_zero)))


@operator("ConvInteger")
def integer_conv(
    node: Node, x: Tensor, weight: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """Return the convolution of x - its zero point with weights - their zero points, an output channel, in int32."""
    channels = (-1, *(1,) * (weight.dim() - 1))
    return _integers(convolved(node, _shifted(x, x_zero), _shifted(weight, w_zero, channels)))


def _integers(sums: Tensor) -> Tensor:
    """Return sums as int32, which wraps; what an emulated unit leaves between integers is rounded."""
    return sums.round().to(torch.int64).to(torch.int32)


@operator("QLinearMatMul")
def quantised_matmul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
) -> Tensor:
    """Return the product of the dequantised matrices, quantised: sums in int32, scaled once."""
    if a.dtype.is_floating_point:
        raise Declined("operands of floats of 8 bits")
    sums = _integers(torch.matmul(_shifted(a, a_zero, (-1, 1)), _shifted(b, b_zero)))
    a_scale = a_scale.reshape(-1, 1) if a_scale.dim() == 1 and a_scale.numel() > 1 else a_scale
    factor = a_scale.float() * b_scale.float() / scale.float()
    return _saturated(sums.float() * factor, zero.to(torch.int32), zero.dtype)


@operator("QLinearConv")
def quantised_conv(
    node: Node,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Return the convolution of the dequantised tensors, quantised: sums in int32 with the bias, scaled once."""
    channels = (-1, *(1,) * (weight.dim() - 1))
    exact = None if bias is None else bias.double()
    sums = _integers(convolved(node, _shifted(x, x_zero), _shifted(weight, w_zero, channels), exact))
    factor = x_scale * w_scale / scale
    return _saturated(sums.float() * factor.reshape(-1, *(1,) * (x.dim() - 2)), zero.to(torch.int32), zero.dtype)
