"""Convolutions, and what belongs to them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from simulator.network.convolutions import CONVOLUTIONS, convolution, transposed_convolution

from .axes import fitting
from .registry import Declined, Node, operator
from .windows import Windows, padded, windows


def convolved(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a convolution of torch with the attributes of Conv.

    Raises:
        Declined: more than three spatial axes, or none.
    """
    rank = x.dim() - 2
    if rank not in CONVOLUTIONS:
        raise Declined(f"{rank} spatial axes; torch convolves over 1 to 3")
    over = windows(node, x.shape[2:], weight.shape[2:])
    fitting([x.shape[0], weight.shape[0], *over.counts(x.shape[2:])], x.dtype)
    if not over.symmetric:
        fitting([*x.shape[:2], *map(sum, zip(x.shape[2:], over.begin, over.end, strict=True))], x.dtype)
    return convolution(x, weight, bias, over.strides, over.dilations, over.begin, over.end, node.get("group", 1))


@operator("Conv")
def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of x (N, C, ...) with weights (M, C / group, ...)."""
    return convolved(node, x, weight, bias)


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the transposed convolution of x (N, C, ...) with weights (C, M / group, ...), without its padding.

    Raises:
        Declined: more than three spatial axes, or none.
    """
    rank = x.dim() - 2
    if rank not in CONVOLUTIONS:
        raise Declined(f"{rank} spatial axes; torch convolves over 1 to 3")
    over, extra = _transposed_windows(node, x.shape[2:], weight.shape[2:])
    groups, end = node.get("group", 1), [last - n for last, n in zip(over.end, extra, strict=True)]
    wide = [(n - 1) * s + extent for n, s, extent in zip(x.shape[2:], over.strides, over.extent, strict=True)]
    left = [n - first - last for n, first, last in zip(wide, over.begin, end, strict=True)]
    for sizes in (wide, left):
        fitting([x.shape[0], weight.shape[1] * groups, *sizes], x.dtype)
    return transposed_convolution(x, weight, bias, over.strides, over.dilations, over.begin, end, groups)


def _transposed_windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[Windows, list[int]]:
    """Return the windows of a transposed convolution, and its output padding; pads that follow from its output's shape.

    output = stride (input - 1) + output padding + extent - begin - end
    """
    over = windows(node, sizes, kernel)
    extra = node.get("output_padding", [0] * len(sizes))
    auto, shape = node.get("auto_pad", "NOTSET"), node.get("output_shape")
    if shape is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return over, extra
    wanted = (
        [n * stride for n, stride in zip(sizes, over.strides, strict=True)] if shape is None else shape[-len(sizes) :]
    )
    total = [
        stride * (size - 1) + more + extent - n
        for size, stride, more, extent, n in zip(sizes, over.strides, extra, over.extent, wanted, strict=True)
    ]
    less, rest = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    begin, end = (less, rest) if auto == "SAME_UPPER" else (rest, less)
    return over._replace(begin=begin, end=end), extra


@operator("CausalConvWithState")
def causal_conv(
    node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the convolution of each channel with its own weights over what came before, and the state left behind."""
    width = weight.shape[-1] - 1
    before = x.new_zeros(*x.shape[:2], width) if past is None else past
    whole = torch.cat([before, x], 2)
    result = nn.functional.conv1d(whole, weight, bias, groups=x.shape[1])
    if node.get("activation", "none") != "none":
        result = nn.functional.silu(result)
    return result, whole.narrow(2, whole.shape[2] - width, width)


@operator("Col2Im")
def columns_to_image(node: Node, columns: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Return the images whose blocks the columns are, (N, C block, blocks); where blocks overlap, their sum."""
    sizes, kernel = image.tolist(), block.tolist()
    over = windows(node, sizes, kernel)
    steps = over.counts(sizes)
    n, channels = columns.shape[0], columns.shape[1] // math.prod(kernel)
    blocks = columns.reshape(n, channels, math.prod(kernel), *steps)
    around = map(sum, zip(sizes, over.begin, over.end, strict=True))
    whole = columns.new_zeros(fitting([n, channels, *around], columns.dtype))
    for at, place in enumerate(itertools.product(*map(range, kernel))):
        along: Any = (
            ...,
            *(
                slice(i * dilation, i * dilation + (count - 1) * stride + 1, stride)
                for i, dilation, count, stride in zip(place, over.dilations, steps, over.strides, strict=True)
            ),
        )
        whole[along] += blocks[:, :, at]
    return padded(whole, [-n for n in over.begin], [-n for n in over.end])


@operator("DeformConv")
def deformable_conv(
    node: Node,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the convolution of x (N, C, H, W) taken at places that are offset, between pixels by linear interpolation.

    `offset` is (N, groups of offsets, kernel, 2, rows, columns), these flat together, `mask` the same without the 2.

    Raises:
        Declined: not two spatial axes.
    """
    if x.dim() != 4:
        raise Declined(f"{x.dim() - 2} spatial axes; expected 2")
    over = windows(node, x.shape[2:], weight.shape[2:])
    (n, c), groups, taps = x.shape[:2], node.get("offset_group", 1), math.prod(over.kernel)
    rows, columns = offset.shape[2:]
    shift = offset.reshape(n, groups, taps, 2, rows, columns)
    places = []
    for axis, count in ((0, rows), (1, columns)):
        steps = torch.arange(count) * over.strides[axis] - over.begin[axis]
        tap = torch.arange(over.kernel[axis]) * over.dilations[axis]
        tap = tap[:, None].expand(over.kernel) if axis == 0 else tap.expand(over.kernel)
        steps = steps[:, None] if axis == 0 else steps
        places.append(tap.reshape(taps, 1, 1) + steps + shift[:, :, :, axis])
    picked = _between_pixels(x.reshape(n, groups, c // groups, *x.shape[2:]), places[0], places[1])
    if mask is not None:
        picked = picked * mask.reshape(n, groups, 1, taps, rows, columns)
    # As a convolution whose windows lie side by side: each output has a block of its own.
    side = picked.reshape(n, c, *over.kernel, rows, columns).permute(0, 1, 4, 2, 5, 3)
    blocks = side.reshape(n, c, rows * over.kernel[0], columns * over.kernel[1])
    return nn.functional.conv2d(blocks, weight, bias, over.kernel, groups=node.get("group", 1))


def _between_pixels(x: Tensor, y_at: Tensor, x_at: Tensor) -> Tensor:
    """Return x (n, groups, channels, H, W) at places (n, groups, ...), 0 outside: (n, groups, channels, ...)."""
    n, groups, channels, height, width = x.shape
    flat = x.reshape(n, groups, channels, -1)
    y0, x0 = y_at.floor(), x_at.floor()
    result = x.new_zeros(())
    for down, right in itertools.product((0, 1), repeat=2):
        row, column = y0 + down, x0 + right
        share = (1 - (y_at - row).abs()) * (1 - (x_at - column).abs())
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        index = place.reshape(n, groups, 1, -1).expand(-1, -1, channels, -1)
        values = flat.gather(3, index).reshape(n, groups, channels, *place.shape[2:])
        result = result + values * torch.where(inside, share, 0)[:, :, None]
    return result
