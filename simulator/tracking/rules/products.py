"""Rules of what multiplies and adds: products of matrices, convolutions, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .registry import rule

aten = torch.ops.aten

_Pair = tuple[Tensor, Tensor]

# Channels of images, fewer than a register has places, with which oneDNN computes gradients of weights up to twice as
# fast where the channels of a pixel lie together.
_TOGETHER = range(4, 16)


@rule("mm", "bmm", "mv", "dot", "vdot", "matmul", direct=True)
def matmul(t: Trace, a: Value, b: Value, z: Tensor | None = None) -> Value:
    """a b."""
    if a.x.dim() == 1 or b.x.dim() == 1:
        return a.bilinear(b, torch.matmul, a.shape[-1], z)
    return a.matmul(b, z)


@rule("addmm", "baddbmm", "addmv", direct=True)
def addmm(t: Trace, c: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1, z: Tensor | None = None) -> Value:
    """beta c + alpha a b."""
    if beta != 1 or alpha != 1:
        product = matmul(t, a, b) * alpha
        return product if beta == 0 else c * beta + product
    product = matmul(t, a, b, z)
    if z is None:
        return c + product
    # The addend is one more term: rounded with the others, as often as they are.
    return biased(product, c, a.shape[-1], z)


def biased(product: Value, bias: Value, terms: int, z: Tensor) -> Value:
    """Return z, a product of matrices in which a bias is one more term."""
    return product.trace.map(z, lambda a, i: a.biased(product.noise[i], bias.x, bias.given(a, i), terms, z))


@rule("linear")
def linear(t: Trace, x: Value, weight: Value, bias: Value | None = None, **kwargs: Any) -> Value:
    """x W^T + b."""
    product = x.matmul(weight.moved(lambda w: w.t()))
    return product if bias is None else product + bias


@rule("addbmm")
def addbmm(t: Trace, c: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    """beta c + alpha times the sum of products of matrices."""
    product = matmul(t, a, b).sum([0])
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else (c if beta == 1 else c * beta) + product


@rule("_trilinear")
def trilinear(
    t: Trace, a: Value, b: Value, c: Value, expand_a: Any, expand_b: Any, expand_c: Any, axes: Any, unroll: int = 1
) -> Value:
    """Sums of products of three, each with axes put in."""

    def wide(x: Value, at: Any) -> Value:
        for axis in at:
            x = x.moved(lambda n, axis=axis: n.unsqueeze(axis))  # type: ignore[misc]
        return x

    product = wide(a, expand_a) * wide(b, expand_b) * wide(c, expand_c)
    return product.sum(list(axes)) if len(axes) else product


@rule("addr")
def addr(t: Trace, c: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    """beta c + alpha a b^T."""
    product = a.moved(lambda x: x[:, None]) * b.moved(lambda x: x[None, :]) * alpha
    return product if beta == 0 else c * beta + product


@rule("convolution", "_convolution", "mkldnn_convolution", direct=True)
def convolution(
    t: Trace, x: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, *flags: Any, z: Tensor | None = None,
) -> Value:  # fmt: skip
    """Convolution as sums of products, in any order."""
    axes = list(range(2, weight.x.dim()))
    kernel = weight.x[0, 0].numel()
    terms = kernel * (weight.shape[0] // groups if transposed else weight.shape[1])

    def f(a: Tensor, b: Tensor) -> Tensor:
        return torch.convolution(a, b, None, stride, padding, dilation, transposed, output_padding, groups)

    def both(first: _Pair, second: _Pair) -> Tensor:
        return f(*(torch.cat(parts, 1) for parts in zip(first, second, strict=True)))

    product = x.bilinear(weight, f, terms, z, both=None if transposed or groups > 1 else both)
    if bias is None:
        return product
    bias = bias.moved(lambda b: b.reshape(-1, *(1 for _ in axes)))
    return product + bias if z is None else biased(product, bias, terms, z)


@rule("convolution_backward", direct=True)
def convolution_backward(
    t: Trace, g: Value, x: Value, weight: Value, bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, mask: Any, z: Any = None,
) -> tuple[Value | None, ...]:  # fmt: skip
    """Gradients of input, weight and bias: sums of products of the gradient with weight and input."""
    settings = (stride, padding, dilation, transposed, output_padding, groups)
    outputs = g.shape[0] * g.x[0, 0].numel()

    def to_input(a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = aten.convolution_backward(a, x.x.to(a.dtype), b, None, *settings, [True, False, False])[0]
        return found

    def to_weight(a: Tensor, b: Tensor) -> Tensor:
        if b.dim() == 4 and b.shape[1] in _TOGETHER and groups == 1:
            a, b = (part.contiguous(memory_format=torch.channels_last) for part in (a, b))
        found: Tensor = aten.convolution_backward(a, b, weight.x.to(a.dtype), None, *settings, [False, True, False])[1]
        return found

    def to_input_of_both(first: _Pair, second: _Pair) -> Tensor:
        return to_input(torch.cat([first[0], second[0]], 1), torch.cat([first[1], second[1]], 0))

    given = z or (None, None, None)
    kernel = weight.x[0, 0].numel()
    terms = kernel * (weight.shape[1] if transposed else weight.shape[0] // groups)
    axes = [0, *range(2, g.x.dim())]
    summed = None if transposed or groups > 1 else to_input_of_both
    return (
        g.bilinear(weight, to_input, terms, given[0], both=summed) if mask[0] else None,
        g.bilinear(x, to_weight, outputs, given[1]) if mask[1] else None,
        g.sum(axes, z=given[2]) if mask[2] else None,
    )
