"""Convolutions of torch over one to three axes, of which files say more than torch takes: padding that is not the same
on both sides. The bias is in the accumulators wherever torch can have it there.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def same_padding(size: int, extent: int, stride: int) -> int:
    """Return how many elements around an axis windows of some extent need for an output at every step."""
    return max(0, (-(-size // stride) - 1) * stride + extent - size)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, strides: Sequence[int], dilations: Sequence[int],
    begin: Sequence[int], end: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    """Return the convolution of x (N, C, axes...) with weights (M, C / groups, axes...).

    Args:
        begin, end: zeros before and behind each axis.
    """
    padding = begin
    if tuple(begin) != tuple(end):
        x, padding = _padded(x, begin, end), [0] * len(begin)
    return CONVOLUTIONS[len(begin)](x, weight, bias, strides, padding, dilations, groups)


def transposed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, strides: Sequence[int], dilations: Sequence[int],
    begin: Sequence[int], end: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    """Return the transposed convolution of x (N, C, axes...) with weights (C, M / groups, axes...), without its border.

    torch removes as much on both sides, but for less than a step behind.

    Args:
        begin, end: what is removed of the whole before and behind each axis; added, if negative.
    """
    function = _TRANSPOSED[len(begin)]
    more = [first - last for first, last in zip(begin, end, strict=True)]
    if min(begin) < 0 or any(n >= max(step) for n, *step in zip(more, strides, dilations, strict=True)):
        whole = function(x, weight, None, strides, 0, 0, groups, dilations)
        result = _padded(whole, [-n for n in begin], [-n for n in end])
        return result if bias is None else result + bias.reshape(-1, *(1,) * len(begin))
    result = function(x, weight, bias, strides, begin, [max(0, n) for n in more], groups, dilations)
    for axis, n in enumerate(more, 2):
        result = result.narrow(axis, 0, result.shape[axis] + min(0, n))
    return result


def _padded(x: Tensor, begin: Sequence[int], end: Sequence[int]) -> Tensor:
    """Return x with zeros before and behind its last axes; negative numbers remove elements."""
    # As torch wants them: from the last axis to the first.
    return functional.pad(x, [n for both in zip(reversed(begin), reversed(end), strict=True) for n in both])
