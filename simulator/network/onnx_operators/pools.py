"""Pools: what windows over the spatial axes of an input are reduced to."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .axes import fitting
from .registry import Declined, Node, operator
from .windows import Windows, padded, unfolded, windows

_MAX: dict[int, Any] = {1: nn.functional.max_pool1d, 2: nn.functional.max_pool2d, 3: nn.functional.max_pool3d}
_AVERAGE = {1: nn.functional.avg_pool1d, 2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}


def _over(node: Node, x: Tensor) -> Windows:
    over = windows(node, x.shape[2:], node.get("kernel_shape"))
    fitting([*x.shape[:2], *over.counts(x.shape[2:])], x.dtype)
    return over


def _complete(x: Tensor, over: Windows, value: float) -> Tensor:
    """Return x with all padding that its windows reach."""
    end = [n + more for n, more in zip(over.end, over.beyond(x.shape[2:]), strict=True)]
    return padded(x, over.begin, end, value)


@operator("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Return the largest of each window, and where in the whole x it lies."""
    rank = x.dim() - 2
    if rank not in _MAX:
        raise Declined(f"{rank} spatial axes; torch pools over 1 to 3")
    over = _over(node, x)
    values = x if x.is_floating_point() else x.to(torch.float32)
    half = all(2 * n <= k for n, k in zip(over.begin, over.kernel, strict=True))
    asks = len(node.outputs) > 1
    if over.symmetric and half and not asks:
        padding, whole, ceil = over.begin, values, over.ceil
    else:
        padding, whole, ceil = (0,) * rank, _complete(values, over, -math.inf), False
    geometry = (over.kernel, over.strides, padding, over.dilations, ceil)
    if not asks:
        return _MAX[rank](whole, *geometry).to(x.dtype)
    result, indices = _MAX[rank](whole, *geometry, return_indices=True)
    return result.to(x.dtype), _places(node, indices, whole.shape[2:], x.shape, over)


def _places(node: Node, indices: Tensor, within: torch.Size, shape: torch.Size, over: Windows) -> Tensor:
    """Return indices into the padded plane as ONNX counts them: into the whole input, rows or columns first."""
    coordinates: list[Tensor] = []
    for size in reversed(within):
        coordinates.insert(0, indices % size)
        indices = indices // size
    spatial = list(zip(coordinates, over.begin, shape[2:], strict=True))
    place = torch.zeros_like(indices)
    for coordinate, begin, size in reversed(spatial) if node.get("storage_order", 0) else spatial:
        place = place * size + (coordinate - begin)
    plane = torch.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *(1,) * len(spatial))
    return place + plane * math.prod(shape[2:])


@operator("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """Return the average of each window, over the elements of x in it, or over those of its padding too."""
    over, included = _over(node, x), bool(node.get("count_include_pad", 0))
    rank = x.dim() - 2
    half = all(2 * n <= k for n, k in zip(over.begin, over.kernel, strict=True))
    if rank in _AVERAGE and over.symmetric and half and set(over.dilations) == {1}:
        return _AVERAGE[rank](x, over.kernel, over.strides, over.begin, over.ceil, included)
    inner = tuple(range(-rank, 0))
    counted = x.new_ones(1, 1, *x.shape[2:])
    if included:
        counted = padded(counted, over.begin, over.end, 1.0)
        counted = padded(counted, (0,) * rank, over.beyond(x.shape[2:]))
    else:
        counted = _complete(counted, over, 0.0)
    return unfolded(_complete(x, over, 0.0), over).sum(inner) / unfolded(counted, over).sum(inner)


@operator("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    """Return the p-norm of each window."""
    over, p = _over(node, x), node.get("p", 2)
    powers = unfolded(_complete(x.abs().pow(p), over, 0.0), over)
    return powers.sum(tuple(range(2 - x.dim(), 0))).pow(1 / p)


@operator("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    """Return the average of each channel."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    """Return the largest of each channel."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    """Return the p-norm of each channel."""
    p = node.get("p", 2)
    return x.abs().pow(p).sum(tuple(range(2, x.dim())), keepdim=True).pow(1 / p)


@operator("MaxUnpool")
def max_unpool(node: Node, x: Tensor, indices: Tensor, shape: Tensor | None = None) -> Tensor:
    """Return zeros with each element of x at the place that MaxPool gave; in a larger shape, further zeros behind."""
    over = windows(node, x.shape[2:], node.get("kernel_shape"))
    sizes = [
        (size - 1) * stride + extent - begin - end
        for size, stride, extent, begin, end in zip(
            x.shape[2:], over.strides, over.extent, over.begin, over.end, strict=True
        )
    ]
    whole = x.new_zeros(math.prod(fitting([*x.shape[:2], *sizes], x.dtype)))
    whole = whole.scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(*x.shape[:2], *sizes)
    if shape is None:
        return whole
    return padded(
        whole, (0,) * len(sizes), [wanted - size for wanted, size in zip(shape.tolist()[2:], sizes, strict=True)]
    )
