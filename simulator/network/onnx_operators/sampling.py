"""Images taken at given places, and the regions and boxes of detectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .axes import fitting
from .registry import Declined, Node, operator

# Names of ONNX, those before version 20 among them -> of torch.
_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


@operator("GridSample", since=16)
def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """Return x at the places of a grid, -1 to 1 along each axis, between its elements by interpolation.

    Raises:
        Declined: not two or three spatial axes, or cubic interpolation along three.
    """
    mode = _MODES.get(node.get("mode", "linear"))
    if mode is None or x.dim() not in (4, 5) or (mode == "bicubic" and x.dim() == 5):
        raise Declined(f"the mode {node.get('mode', 'linear')} along {x.dim() - 2} spatial axes")
    padding, corners = node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0))
    return nn.functional.grid_sample(x, grid.to(x.dtype), mode, padding, corners)


@operator("AffineGrid")
def affine_grid(node: Node, theta: Tensor, size: Tensor) -> Tensor:
    """Return the places to which affine maps (N, 2, 3) or (N, 3, 4) take those of a grid from -1 to 1."""
    return nn.functional.affine_grid(theta, fitting(size.tolist(), theta.dtype), bool(node.get("align_corners", 0)))


@operator("RoiAlign", since=10)
def roi_align(node: Node, x: Tensor, regions: Tensor, batch: Tensor) -> Tensor:
    """Return regions (x1, y1, x2, y2) of images, divided into bins: the mean, or largest, of places spread over each.

    A place between pixels has four, weighted; the largest is that of the weighted pixels.
    """
    rows, columns = node.get("output_height", 1), node.get("output_width", 1)
    shifted = node.get("coordinate_transformation_mode", "half_pixel" if node.version >= 16 else "") == "half_pixel"
    samples, largest = node.get("sampling_ratio", 0), node.get("mode", "avg") == "max"
    results = []
    for region, image in zip((regions * node.get("spatial_scale", 1.0)).tolist(), batch.tolist(), strict=True):
        spans = []
        for low, high, bins, size in (
            (region[1], region[3], rows, x.shape[2]),
            (region[0], region[2], columns, x.shape[3]),
        ):
            offset = 0.5 if shifted else 0.0
            length = high - low if shifted else max(high - low, 1.0)
            each = samples or math.ceil(length / bins)
            fitting([x.shape[1], bins, each], x.dtype)
            steps = (torch.arange(bins * each, dtype=x.dtype) + 0.5) / each
            spans.append(_pixels(low - offset + steps * (length / bins), size))
        (r, r_weight), (c, c_weight) = spans
        # (C, 2 of rows, rows, 2 of columns, columns), each weighted
        values = x[image][:, r][..., c] * r_weight[:, :, None, None] * c_weight
        bins = values.reshape(x.shape[1], 2, rows, -1, 2, columns, c.shape[1] // columns)
        results.append(bins.amax((1, 3, 4, 6)) if largest else bins.sum((1, 4)).mean((2, 4)))
    return torch.stack(results) if results else x.new_zeros(0, x.shape[1], rows, columns)


def _pixels(places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the two pixels around each place (2, places) and their weights; 0 more than one pixel outside."""
    inside = (places >= -1) & (places <= size)
    at = places.clamp(0, size - 1)
    low = at.floor()
    share = at - low
    weights = torch.stack([1 - share, share]) * inside
    return torch.stack([low, (low + 1).clamp(max=size - 1)]).long(), weights


@operator("NonMaxSuppression", since=10)
def non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    count: Tensor | None = None,
    overlap: Tensor | None = None,
    threshold: Tensor | None = None,
) -> Tensor:
    """Return (image, class, box) of the boxes with the best scores, without those that overlap a better one too much.

    The overlap of two boxes is their intersection over their union.
    """
    most = 0 if count is None else int(count.item())
    limit = 0.0 if overlap is None else overlap.item()
    if node.get("center_point_box", 0):
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        low, high = centre - half, centre + half
    else:
        low, high = torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])
    areas = (high - low).prod(-1)
    chosen: list[tuple[int, int, int]] = []
    for image, classes in enumerate(scores):
        for kind, each in enumerate(classes):
            order = torch.sort(each, descending=True, stable=True).indices
            if threshold is not None:
                order = order[each[order] > threshold.item()]
            for _ in range(most):
                if not len(order):
                    break
                best, order = order[0], order[1:]
                chosen.append((image, kind, int(best)))
                sides = torch.minimum(high[image, best], high[image, order]) - torch.maximum(
                    low[image, best], low[image, order]
                )
                common = sides.clamp(min=0).prod(-1)
                union = areas[image, best] + areas[image, order] - common
                order = order[~(common > limit * union)]
    return torch.tensor(chosen, dtype=torch.int64).reshape(-1, 3)
