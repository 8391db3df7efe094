"""Rules of what puts values in order: the i-th largest moves no more than the one that moves most (rule S12)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value, within
from .branches import size
from .registry import Choice, rule


def _ordered(x: Value, axis: int, pick: Callable[[Tensor], tuple[Tensor, Tensor]], keep: bool = True) -> Value:
    """Return values that are picked along an axis by their order."""
    z, places = pick(x.x)

    def noise(a: Any, i: int) -> Tensor | None:
        n = x.given(a, i)
        if n is None:
            return None
        n = n.expand(x.shape)
        if a.label == "safe":
            found = n.amax(axis, keepdim=keep)
            return found.expand(z.shape) if keep else found
        if x.x.dim() == 0:
            return n
        return n.gather(axis, places) if keep else n.gather(axis, places.unsqueeze(axis)).squeeze(axis)

    return x.trace.map(z, noise)


def _places(x: Value, axis: int, pick: Callable[[Tensor], Tensor]) -> Choice | None:
    """Return places along an axis, undecided where a neighbour in the order is within the bounds.

    Args:
        pick: from what is sorted in rising order to what is asked for.
    """
    bound = x.bound()
    if bound is None or x.x.dim() == 0:
        return None
    rising = x.x.sort(axis).values
    most = bound.expand(x.shape).amax(axis, keepdim=True)
    gap = torch.full_like(rising.narrow(axis, 0, 1), math.inf)
    gaps = torch.cat([gap, rising.diff(dim=axis), gap], axis)
    count = rising.shape[axis]
    near = within(torch.minimum(gaps.narrow(axis, 0, count), gaps.narrow(axis, 1, count)), 2.0 * most)
    undecided = pick(near.to(x.trace.dtype))
    return Choice(undecided, undecided)


@rule("sort")
def sort(t: Trace, x: Value, axis: int = -1, descending: bool = False, *, stable: Any = None, dim: Any = None) -> Any:
    """In order along an axis, with places."""
    axis = axis if dim is None else dim
    turned = (lambda n: n.flip(axis)) if descending else (lambda n: n)
    return _ordered(x, axis, lambda n: n.sort(axis, descending)), _places(x, axis, turned)


@rule("topk")
def topk(t: Trace, x: Value, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest or smallest, with places."""

    def pick(near: Tensor) -> Tensor:
        near = near.flip(axis) if largest else near
        found = near.narrow(axis, 0, k)
        return found if sorted else found.amax(axis, keepdim=True).expand(found.shape)

    return _ordered(x, axis, lambda n: n.topk(k, axis, largest, sorted)), _places(x, axis, pick)


@rule("kthvalue")
def kthvalue(t: Trace, x: Value, k: int, axis: int = -1, keep: bool = False) -> Any:
    """The k-th smallest, with its place."""
    pick = lambda near: near.narrow(axis, k - 1, 1) if keep else near.select(axis, k - 1)  # noqa: E731
    return _ordered(x, axis, lambda n: n.kthvalue(k, axis, keep), keep), _places(x, axis, pick)


@rule("median")
def median(t: Trace, x: Value, axis: int | None = None, keep: bool = False) -> Any:
    """The lower median, of all or along an axis with its place."""
    if axis is None:
        flat = x.moved(lambda n: n.reshape(-1))
        return _ordered(flat, 0, lambda n: n.median(0), False)
    count = x.shape[axis] if x.x.dim() else 1
    return kthvalue(t, x, (count + 1) // 2, axis, keep)


@rule("cummax")
def cummax(t: Trace, x: Value, axis: int) -> Any:
    """Largest so far, with its place."""
    return _so_far(x, axis, torch.cummax)


@rule("cummin")
def cummin(t: Trace, x: Value, axis: int) -> Any:
    """Smallest so far, with its place."""
    return _so_far(x, axis, torch.cummin)


def _so_far(x: Value, axis: int, f: Any) -> tuple[Value, Choice | None]:
    z, places = f(x.x, axis)

    def noise(a: Any, i: int) -> Tensor | None:
        n = x.given(a, i)
        if n is None:
            return None
        n = n.expand(x.shape)
        return n.cummax(axis).values if a.label == "safe" else n.gather(axis, places) if n.dim() else n

    found, bound = x.trace.map(z, noise), x.bound()
    undecided = None if bound is None else (bound.expand(x.shape).cummax(axis).values != 0).to(x.trace.dtype)
    return found, None if undecided is None else Choice(undecided, undecided)


@rule("gather", chooses=True)
def gather(t: Trace, x: Value, axis: int, index: Any, **kwargs: Any) -> Value:
    """Values at places of which some are not decided: there it may be any along the axis."""
    if not isinstance(index, Choice) or not isinstance(x, Value) or not x.x.dim():
        raise NotImplementedError
    found = x.moved(lambda n: n.gather(axis, index.x))
    reach = x.x.amax(axis, keepdim=True) - x.x.amin(axis, keepdim=True)
    bound = x.bound()
    if bound is not None:
        reach = reach + 2.0 * bound.expand(x.shape).amax(axis, keepdim=True)
    reach = _fitted(reach, axis, index.x.shape)
    return found.either(reach * 1.01, index.undecided != 0)


def _fitted(x: Tensor, axis: int, shape: torch.Size) -> Tensor:
    """Return it, of which the axis has one element, in the shape of an index, which may be smaller elsewhere."""
    for i, n in enumerate(shape):
        if i != axis % len(shape):
            x = x.narrow(i, 0, n)
    return x.expand(shape)


@rule("scatter", chooses=True)
def scatter(t: Trace, x: Value, axis: int, index: Any, source: Any, **kwargs: Any) -> Value:
    """x with other values in some places; those that are not decided may be any along the axis."""
    if kwargs or not isinstance(x, Value) or isinstance(source, Choice):
        raise NotImplementedError
    places = index.x if isinstance(index, Choice) else index
    source = t.value(source)
    part = source.moved(lambda n: n.expand(places.shape)) if source.x.dim() == 0 else source
    # More values than places is fine with torch.
    part = part.moved(lambda n: n[tuple(slice(0, k) for k in places.shape)])
    z = x.x.scatter(axis, places, part.x)

    def noise(a: Any, i: int) -> Tensor | None:
        one, other = x.given(a, i), part.given(a, i)
        if one is None and other is None:
            return None
        one = torch.zeros_like(x.x) if one is None else one.expand(x.shape)
        return one.scatter(axis, places, torch.zeros_like(part.x) if other is None else other.expand(part.shape))

    found = t.map(z, noise)
    if not isinstance(index, Choice):
        return found
    if any(n != m for k, (n, m) in enumerate(zip(x.shape, places.shape, strict=True)) if k != axis % x.x.dim()):
        raise NotImplementedError
    # Of any two of the values that may come to a place, and what was there.
    moved = torch.where(index.undecided != 0, size(part).expand(places.shape), 0.0).sum(axis, keepdim=True)
    jump = torch.where(moved != 0, moved + size(x), 0.0)
    return found.either((jump * 1.01).expand(x.shape))
