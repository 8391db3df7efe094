"""Resizing: each axis by itself, an output being a weighted sum of the elements around its place in the input."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .axes import all_positive, fitting
from .registry import Declined, Node, operator


class _Axis(NamedTuple):
    """One axis that is resized.

    Args:
        size: of the input. target: of the output. scale: from the one to the other, which rounding to whole elements
            may leave a little off. start, end: of the region that is taken, in parts of the input.
    """

    size: int
    target: int
    scale: float
    start: float
    end: float


@operator("Resize", since=11)
def resize(
    node: Node, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    """Return x with other sizes along some axes, which scales or sizes give."""
    axes = all_positive(node.get("axes", list(range(x.dim()))), x.dim())
    given = scales if scales is not None and scales.numel() else sizes
    if given is None or given.numel() != len(axes):
        raise Declined("no scales and sizes, one for each axis")
    return _resized(node, x, [_axis(node, x, axes, at, roi, given) for at in range(len(axes))], axes)


def _axis(node: Node, x: Tensor, axes: list[int], at: int, roi: Tensor | None, given: Tensor) -> _Axis:
    size = x.shape[axes[at]]
    start, end = 0.0, 1.0
    if node.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        if roi is None or roi.numel() != 2 * len(axes):
            raise Declined("no region of interest, which tf_crop_and_resize takes")
        start, end = roi[at].item(), roi[len(axes) + at].item()
    if given.is_floating_point():  # the size follows from the scale, in its type
        count = int(torch.floor(given[at] * (size * (end - start))).item())
        return _Axis(size, count, given[at].item(), start, end)
    policy, wanted = node.get("keep_aspect_ratio_policy", "stretch"), given.tolist()
    if policy == "stretch":
        return _Axis(size, wanted[at], wanted[at] / size, start, end)
    ratios = [n / x.shape[axis] for n, axis in zip(wanted, axes, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return _Axis(size, math.floor(scale * size + 0.5), scale, start, end)


def _resized(node: Node, x: Tensor, along: list[_Axis], axes: list[int]) -> Tensor:
    """Return x resized axis by axis, in float32 at least if it is not the nearest element that counts."""
    nearest = node.get("mode", "nearest") == "nearest"
    crops = node.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    result = x if nearest else x.to(torch.promote_types(x.dtype, torch.float32))
    for axis, one in zip(axes, along, strict=True):
        if one.target == one.size and one.scale == 1 and not crops:
            continue
        fitting([one.target if at == axis else size for at, size in enumerate(result.shape)], result.dtype)
        places = _places(node, one)
        base, weights = _taps(node, places, one)
        indices = base[:, None] + torch.arange(weights.shape[1])
        if node.get("exclude_outside", 0) and not nearest:
            weights = torch.where((indices >= 0) & (indices < one.size), weights, 0)
            weights = weights / weights.sum(1, keepdim=True)
        indices = indices.clamp(0, one.size - 1)
        shape = [-1 if at == axis else 1 for at in range(x.dim())]
        if nearest:
            result = result.index_select(axis, indices[:, 0])
        else:
            parts = [
                result.index_select(axis, index) * weight.to(result.dtype).reshape(shape)
                for index, weight in zip(indices.unbind(1), weights.unbind(1), strict=True)
            ]
            result = torch.stack(parts).sum(0)
        if crops:
            outside = ((places < 0) | (places > one.size - 1)).reshape(shape)
            result = torch.where(outside, node.get("extrapolation_value", 0.0), result)
    if x.is_floating_point() or nearest:
        return result.to(x.dtype)
    limits = torch.iinfo(x.dtype)
    return result.round().clamp(limits.min, limits.max).to(x.dtype)


def _places(node: Node, axis: _Axis) -> Tensor:
    """Return where in the input each output lies, in float32 as others do, for ties.

    Raises:
        Declined: a way to find it that ONNX does not know, or corners to align of an output whose size is not whole
            before it is rounded: the text of ONNX aligns those of the rounded size, its recorded cases the others.
    """
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    size, count, scale = axis.size, axis.target, axis.scale
    at = torch.arange(count, dtype=torch.float32)
    if mode == "asymmetric":
        return at / scale
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and count > 1):
        return (at + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return torch.zeros_like(at)
    if mode == "half_pixel_symmetric":
        return size / 2 * (1 - count / (scale * size)) + (at + 0.5) / scale - 0.5
    if mode == "align_corners":
        if abs(scale * size - count) > 1e-3:
            raise Declined("align_corners with scales that do not give whole sizes (give sizes in place of them)")
        return at * (size - 1) / max(count - 1, 1)
    if mode == "tf_crop_and_resize":
        if count == 1:
            return torch.full_like(at, (axis.start + axis.end) * (size - 1) / 2)
        return axis.start * (size - 1) + at * ((axis.end - axis.start) * (size - 1) / (count - 1))
    raise Declined(f"the coordinate transformation {mode}")


def _taps(node: Node, places: Tensor, axis: _Axis) -> tuple[Tensor, Tensor]:
    """Return the first element that counts for each place, and the weights (places, taps) of it and those behind it."""
    mode = node.get("mode", "nearest")
    if mode == "nearest":
        rule = node.get("nearest_mode", "round_prefer_floor")
        rules = {
            "round_prefer_floor": (places - 0.5).ceil(), "round_prefer_ceil": (places + 0.5).floor(),
            "floor": places.floor(), "ceil": places.ceil(),
        }  # fmt: skip
        if rule not in rules:
            raise Declined(f"the nearest mode {rule}")
        return rules[rule].long(), torch.ones(len(places), 1)
    reach = {"linear": 1, "cubic": 2}.get(mode)
    if reach is None:
        raise Declined(f"the mode {mode}")
    stretch = min(axis.scale, 1.0) if node.get("antialias", 0) else 1.0
    wide = math.ceil(reach / stretch)
    fitting([len(places), 2 * wide], torch.float64)
    base = places.floor().long() - wide + 1
    distance = ((base[:, None] + torch.arange(2 * wide)) - places[:, None]).abs() * stretch
    weights = (1 - distance).clamp(min=0) if mode == "linear" else _cubic(distance, node.get("cubic_coeff_a", -0.75))
    return base, weights / weights.sum(1, keepdim=True) if stretch < 1 else weights


def _cubic(d: Tensor, a: float) -> Tensor:
    """Return the weights of cubic convolution at some distances, Keys 1981, equation 4."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0))


@operator("CenterCropPad")
def center_crop_pad(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """Return the middle of x, or x in the middle of zeros, along some axes; one more is cut before, padded behind."""
    axes = all_positive(node.get("axes", list(range(x.dim()))), x.dim())
    for axis, wanted in zip(axes, shape.tolist(), strict=True):
        fitting((wanted if at == axis else size for at, size in enumerate(x.shape)), x.dtype)
        missing = wanted - x.shape[axis]
        around = [0] * (2 * x.dim())
        before = missing // 2 if missing >= 0 else -(-missing // 2)
        around[2 * (x.dim() - 1 - axis) : 2 * (x.dim() - axis)] = before, missing - before
        x = nn.functional.pad(x, around)
    return x
