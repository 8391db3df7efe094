"""Operators that pick or place elements by indices that are values of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .axes import fitting, positive
from .carriers import moving, widened
from .registry import Declined, Node, operator

# Names of ONNX -> of torch. "none" replaces.
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _from_front(indices: Tensor, size: int | Tensor) -> Tensor:
    """Return indices of which negative ones count from the end, counted from the front."""
    places = indices.to(torch.int64)
    return torch.where(places < 0, places + size, places)


@operator("Gather")
@moving
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Return the slices at indices along an axis; the axes of the indices stand in place of it."""
    axis = positive(node.get("axis", 0), x.dim())
    places = _from_front(indices, x.shape[axis])
    return x.index_select(axis, places.reshape(-1)).reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@operator("GatherElements")
@moving
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Return for each index the element there along an axis, at its own place along the others."""
    axis = positive(node.get("axis", 0), x.dim())
    return torch.gather(x, axis, _from_front(indices, x.shape[axis]))


@operator("GatherND")
@moving
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Return the slices at tuples of indices, the last axis of `indices`, for each element of a batch."""
    batch = node.get("batch_dims", 0)
    outer, length = x.shape[:batch], indices.shape[-1]
    rows = x.reshape(-1, *x.shape[batch:])
    tuples = indices.reshape(rows.shape[0], -1, length)
    sizes = torch.tensor(x.shape[batch : batch + length], dtype=torch.int64)
    places = _from_front(tuples, sizes).unbind(-1)
    picked = rows[(torch.arange(rows.shape[0])[:, None], *places)]
    return picked.reshape(outer + indices.shape[batch:-1] + x.shape[batch + length :])


@operator("ScatterElements")
@moving
def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Return x with an update for each index there along an axis, at its own place along the others."""
    axis = positive(node.get("axis", 0), x.dim())
    places = _from_front(indices, x.shape[axis])
    reduction = node.get("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


@operator("ScatterND")
@moving
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Return x with slices replaced at tuples of indices, the last axis of `indices`, or joined with what is there."""
    length = indices.shape[-1]
    sizes, rest = x.shape[:length], math.prod(x.shape[length:])
    strides = torch.tensor([math.prod(sizes[axis + 1 :]) for axis in range(length)], dtype=torch.int64)
    row = (_from_front(indices, torch.tensor(sizes, dtype=torch.int64)) * strides).sum(-1).reshape(-1, 1)
    rows, new = x.reshape(-1, rest), updates.reshape(-1, rest)
    if node.get("reduction", "none") == "none":
        return rows.index_copy(0, row[:, 0], new).reshape(x.shape)
    reduction = _REDUCTIONS[node.get("reduction")]
    return rows.scatter_reduce(0, row.expand(-1, rest), new, reduction).reshape(x.shape)


@operator("TensorScatter")
@moving
def tensor_scatter(node: Node, cache: Tensor, update: Tensor, first: Tensor | None = None) -> Tensor:
    """Return a cache with an update along an axis, from each sample's first place on; `circular` begins anew."""
    axis = positive(node.get("axis", -2), cache.dim())
    size, length = cache.shape[axis], update.shape[axis]
    begin = torch.zeros(cache.shape[0], dtype=torch.int64) if first is None else first
    places = begin[:, None] + torch.arange(length)
    if node.get("mode", "linear") == "circular":
        places = places % size
    elif bool((places >= size).any()):
        raise Declined(f"places {places.max().item()} in a cache of {size}")
    shape = [length if at == axis else cache.shape[0] if at == 0 else 1 for at in range(cache.dim())]
    return cache.scatter(axis, places.reshape(shape).expand_as(update), update)


@operator("OneHot")
def one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """Return the on value at each index along a new axis, and the off value elsewhere."""
    axis = positive(node.get("axis", -1), indices.dim() + 1)
    *_, count = fitting([*indices.shape, int(depth.item())], values.dtype)
    places = _from_front(widened(indices), count).unsqueeze(axis)
    shape = [count if at == axis else 1 for at in range(indices.dim() + 1)]
    return torch.where(places == torch.arange(count).reshape(shape), values[1], values[0])


@operator("NonZero")
def non_zero(node: Node, x: Tensor) -> Tensor:
    """Return the places of the elements that are not 0, one a column, in the order of the elements."""
    return torch.nonzero(widened(x)).t()


@operator("Where")
@moving
def where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a where a condition holds, else b."""
    return torch.where(condition, a, b)


@operator("Compress")
@moving
def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    """Return the slices along an axis, or the elements, where a condition holds, which may be shorter."""
    axis = node.get("axis")
    x, along = (x.reshape(-1), 0) if axis is None else (x, positive(axis, x.dim()))
    return x.index_select(along, torch.nonzero(condition)[:, 0])


@operator("TopK")
def top_k(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return the k largest or smallest along an axis, in order, and where they lie; of equal ones the first."""
    axis = positive(node.get("axis", -1), x.dim())
    count = int(k.item())
    if not 0 <= count <= x.shape[axis]:
        raise Declined(f"the {count} largest of {x.shape[axis]}")
    ordered, places = torch.sort(widened(x), dim=axis, descending=bool(node.get("largest", 1)), stable=True)
    return ordered.narrow(axis, 0, count).to(x.dtype), places.narrow(axis, 0, count)


@operator("Unique")
def unique(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the different elements, or slices along an axis, where each stands first, which each is, and how often.

    They are sorted, or in the order in which they stand first.
    """
    axis = node.get("axis")
    values, along = (x.reshape(-1), 0) if axis is None else (x, positive(axis, x.dim()))
    different, inverse, counts = torch.unique(widened(values), return_inverse=True, return_counts=True, dim=along)
    places = torch.arange(len(inverse))
    first = torch.full((len(counts),), len(inverse)).scatter_reduce(0, inverse, places, "amin")
    if not node.get("sorted", 1):
        order = torch.argsort(first)
        different, first, counts = different.index_select(along, order), first[order], counts[order]
        inverse = torch.argsort(order)[inverse]
    return different.to(x.dtype), first, inverse, counts


@operator("ReverseSequence")
@moving
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """Return each sequence of a batch with its first elements, as many as its length says, backwards."""
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    places = torch.arange(x.shape[time])
    turned = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)  # (batch, time)
    turned = turned if batch < time else turned.t()
    return x.gather(time, turned.reshape(*turned.shape, *(1,) * (x.dim() - 2)).expand_as(x))


@operator("Trilu")
@moving
def triangle(node: Node, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """Return the upper or lower triangle of each matrix, zeros elsewhere."""
    k = 0 if diagonal is None else int(diagonal.item())
    return torch.triu(x, k) if node.get("upper", 1) else torch.tril(x, k)
