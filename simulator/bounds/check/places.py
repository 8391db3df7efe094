"""Places: which element of which array an operation reads, as matrices of indices in C order; -1 is nowhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .balls import Places
from .document import Fault, Node, NoRule

Shape = tuple[int, ...]


def fits(node: Node, shape: Shape) -> None:
    """Fault unless the result of an operation has the shape that the certificate says."""
    if tuple(shape) != node.shapes[0]:
        raise Fault(f"{node}: its result has the shape {list(node.shapes[0])}; the rule gives {list(shape)}")


def all_of(shape: Sequence[int]) -> Places:
    """Return the places of an array in its own shape."""
    return np.arange(math.prod(shape)).reshape(tuple(shape))


def spread(shape: Shape, to: Shape) -> Places:
    """Return the places of an array that is broadcast."""
    return np.broadcast_to(all_of(shape), to)


def positions(
    node: Node, n: int, size: int, stride: int, padding: int, dilation: int, count: int, beyond: bool = False
) -> Places:
    """Return what each window along an axis of n reads, (windows, places of a window), -1 in the padding.

    Args:
        count: of windows, as the certificate says. beyond: whether the last one may reach over the end.
    """
    reach = n + 2 * padding - dilation * (size - 1) - 1
    most = (-(-reach // stride) if beyond else reach // stride) + 1
    if beyond and (most - 1) * stride >= n + padding:
        most -= 1  # it would begin behind the padding
    if count != most or count < 1:
        raise Fault(f"{node}: {count} windows of {size} do not fit an axis of {n}; expected {max(0, most)}")
    at = np.arange(count)[:, None] * stride + np.arange(size)[None, :] * dilation - padding
    return np.where((at >= 0) & (at < n), at, -1)


def crossed(shape: Shape, axes: Sequence[Places]) -> Places:
    """Return the windows over the last axes of an array, from what they read along each of these.

    Returns:
        Places, (first axes, windows along each of the last ones, places of a window), -1 where a window reads nothing.
    """
    d = len(axes)
    inside, there = np.zeros((1,) * (2 * d), np.int64), np.ones((1,) * (2 * d), np.bool_)
    for i, (n, at) in enumerate(zip(shape[-d:], axes, strict=True)):
        spread_at = np.expand_dims(at, [axis for axis in range(2 * d) if axis not in (i, d + i)])
        inside, there = inside * n + spread_at, there & (spread_at >= 0)
    flat = np.where(there, inside, -1).reshape(*(len(at) for at in axes), -1)
    planes = all_of(shape[:-d]).reshape(*shape[:-d], *(1,) * (d + 1)) * math.prod(shape[-d:])
    return np.where(flat >= 0, planes + flat, -1)


def setting(form: Any, node: Node, dims: int, least: int = 1) -> Shape:
    """Return a setting of the axes of a window, given once or for each."""
    given = form if isinstance(form, list) else []
    if len(given) not in (1, dims) or not all(isinstance(n, int) and n >= least for n in given):
        raise Fault(f"{node}: got the setting {form!r} of a window; expected {dims} whole numbers from {least}")
    return tuple(given) if len(given) == dims else tuple(given) * dims


def along(shape: Shape, axes: Sequence[int]) -> Places:
    """Return the groups of an array that lie along some axes, one in each row."""
    inside = sorted(axis % len(shape) for axis in axes)
    rest = [axis for axis in range(len(shape)) if axis not in inside]
    return all_of(shape).transpose(rest + inside).reshape(-1, math.prod(shape[axis] for axis in inside))


def one_owner(owners: Places, node: Node) -> Places:
    """Return to which sample each row belongs, -1 to none; Fault where a row mixes samples."""
    found = owners.max(-1)
    if bool(((owners != found[..., None]) & (owners >= 0)).any()):
        raise NoRule(f"{node}: it mixes samples; expected operations on each sample alone")
    return found


def shared(owner: Places, axes: Sequence[int]) -> Places:
    """Return owners in which what depends on no sample has the one along whose side it lies."""
    beside = owner.max(tuple(axes), keepdims=True) if axes and owner.size else owner
    return np.where(owner < 0, beside, owner)
