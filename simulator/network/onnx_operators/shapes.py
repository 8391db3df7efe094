"""Operators that give a tensor another shape, or put its elements elsewhere by rules of the shape alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .axes import all_positive, fitting, integers, positive
from .carriers import moving
from .registry import Declined, Node, operator


@operator("Reshape", since=5)
def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """Return the elements in another shape: -1 for what is left, 0 for the size of x unless `allowzero`."""
    sizes = shape.tolist()
    if not node.get("allowzero", 0):
        if any(size == 0 and axis >= x.dim() for axis, size in enumerate(sizes)):
            raise Declined(f"the shape {sizes} of a tensor with {x.dim()} axes")
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    """Return x with its axes in another order, reversed unless `perm` is given."""
    return x.permute(node.get("perm", list(range(x.dim()))[::-1]))


@operator("Squeeze")
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Return x without some axes of size 1, or all of them."""
    given = integers(node, "axes", axes)
    drop = [a for a, size in enumerate(x.shape) if size == 1] if given is None else all_positive(given, x.dim())
    if any(x.shape[axis] != 1 for axis in drop):
        raise Declined(f"axes {drop} of the shape {list(x.shape)}, which are not all of size 1")
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in drop])


@operator("Unsqueeze")
def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Return x with new axes of size 1, counted in the result."""
    given = integers(node, "axes", axes) or []
    new = all_positive(given, x.dim() + len(given))
    sizes = iter(x.shape)
    return x.reshape([1 if axis in new else next(sizes) for axis in range(x.dim() + len(new))])


@operator("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    """Return x as a matrix, the axes before `axis` along its rows."""
    axis = node.get("axis", 1)
    axis = axis if axis == x.dim() else positive(axis, x.dim()) if x.dim() else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Expand")
def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """Return x broadcast with a shape, to the larger of both along each axis."""
    return x.expand(fitting(torch.broadcast_shapes(x.shape, shape.tolist()), x.dtype))


@operator("Tile")
def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    """Return copies of x side by side."""
    counts = repeats.tolist()
    fitting((size * count for size, count in zip(x.shape, counts, strict=True)), x.dtype)
    return x.repeat(counts)


@operator("Concat")
@moving
def concat(node: Node, *inputs: Tensor) -> Tensor:
    """Return tensors one behind another along an axis."""
    return torch.cat(inputs, positive(node.get("axis"), inputs[0].dim()))


@operator("Split")
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return parts of given sizes along an axis, or of one size, of which the last may be smaller."""
    axis = positive(node.get("axis", 0), x.dim())
    parts = integers(node, "split", sizes)
    if parts is None:
        count = node.get("num_outputs", len(node.outputs))
        if count != len(node.outputs):
            raise Declined(f"{count} parts for {len(node.outputs)} outputs")
        size = -(-x.shape[axis] // count)
        parts = [max(0, min(size, x.shape[axis] - size * part)) for part in range(count)]
    return torch.split(x, parts, axis)


@operator("Slice", since=10)
@moving
def slices(
    node: Node, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    """Return every step-th element from a start to before an end along some axes; a negative step goes backwards."""
    begin, end = starts.tolist(), ends.tolist()
    along = all_positive(list(range(len(begin))) if axes is None else axes.tolist(), x.dim())
    for axis, first, last, step in zip(
        along, begin, end, [1] * len(begin) if steps is None else steps.tolist(), strict=True
    ):
        size = x.shape[axis]
        first, last = (place + size if place < 0 else place for place in (first, last))
        if step > 0:
            places = range(min(max(first, 0), size), min(max(last, 0), size), step)
        else:
            places = range(min(max(first, 0), size - 1), min(max(last, -1), size - 1), step)
        x = _places(x, axis, places)
    return x


def _places(x: Tensor, axis: int, places: range) -> Tensor:
    """Return the elements at some places along an axis."""
    if not places:
        return x.narrow(axis, 0, 0)
    low, high = min(places[0], places[-1]), max(places[0], places[-1])
    picked = x[(slice(None),) * axis + (slice(low, high + 1, abs(places.step)),)]
    return picked if places.step > 0 else picked.flip(axis)


@operator("Pad", since=11)
@moving
def pad(node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    """Return x with elements before and behind along some axes: a constant, its edge, its reflection, or x again.

    Negative pads remove elements.
    """
    along = all_positive(list(range(x.dim())) if axes is None else axes.tolist(), x.dim())
    around = pads.tolist()
    width = {axis: (around[i], around[i + len(along)]) for i, axis in enumerate(along)}
    fitting((size + sum(width.get(axis, (0, 0))) for axis, size in enumerate(x.shape)), x.dtype)
    mode = node.get("mode", "constant")
    if mode == "constant":
        flat = [side for axis in reversed(range(x.dim())) for side in width.get(axis, (0, 0))]
        return nn.functional.pad(x, flat, value=0 if value is None else value.item())
    for axis, (before, behind) in width.items():
        x = x.index_select(axis, _mirrored(mode, before, behind, x.shape[axis]))
    return x


def _mirrored(mode: str, before: int, behind: int, size: int) -> Tensor:
    """Return which element stands at each place from -before to size + behind."""
    places = torch.arange(-before, size + behind)
    if size == 0 and len(places):
        raise Declined(f"padding of an axis without elements in the mode {mode}")
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    if mode == "reflect":
        turn = places % max(2 * (size - 1), 1)
        return torch.minimum(turn, 2 * (size - 1) - turn)
    raise Declined(f"the mode {mode}")


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Return blocks of channels as blocks of pixels; a block's channels outermost (DCR) or innermost (CRD)."""
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        moved = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        moved = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return moved.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Return blocks of pixels as blocks of channels, the inverse of DepthToSpace."""
    n, c, h, w = x.shape
    b = node.get("blocksize")
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, c * b**2, h // b, w // b)
