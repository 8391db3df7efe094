"""Places: which element of which array an operation reads, as matrices of indices in C order; -1 is nowhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .balls import Places
from .document import Fault, Node

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


def moved(node: Node, shape: Shape) -> Places:
    """Return where the results of an operation that only moves values come from."""
    here, rest = all_of(shape), [*node.args[1:]]
    try:
        match node.kind, rest:
            case (("view" | "_unsafe_view" | "reshape" | "_reshape_alias"), [size]):
                return here.reshape(size)
            case (("clone" | "detach" | "alias" | "lift_fresh"), _):
                return here
            case "t", []:
                return here.transpose()
            case "transpose", [first, second]:
                return here.swapaxes(first, second)
            case "permute", [order]:
                return here.transpose(order)
            case "unsqueeze", [axis]:
                return np.expand_dims(here, axis)
            case "squeeze", []:
                return here.squeeze()
            case "squeeze", [axes]:
                each = [axis % len(shape) for axis in (axes if isinstance(axes, list) else [axes])]
                return here.squeeze(tuple(axis for axis in each if shape[axis] == 1))
            case "expand", [size]:
                padded = (*(1,) * (len(size) - len(shape)), *shape)
                to = [n if wanted == -1 else wanted for n, wanted in zip(padded, size, strict=True)]
                return np.broadcast_to(here.reshape(padded), to)
    except (ValueError, TypeError, IndexError) as error:
        raise Fault(f"{node}: its arguments do not fit the shape {list(shape)}: {error}") from None
    raise Fault(f"{node}: no rule for these arguments")


def windows(node: Node, shape: Shape, size: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Places:
    """Return the windows of images, (samples, channels, rows, columns, places of a window), -1 in the padding."""
    samples, channels, *image = shape
    if len(node.shapes[0]) != 4:
        raise Fault(f"{node}: its result has the shape {list(node.shapes[0])}; expected images")
    axes = []
    for n, k, step, pad, gap, stated in zip(image, size, stride, padding, dilation, node.shapes[0][2:], strict=True):
        count = (n + 2 * pad - gap * (k - 1) - 1) // step + 1
        if count != stated or count < 1:
            raise Fault(f"{node}: windows of {list(size)} do not fit the shapes {list(shape)}, {list(node.shapes[0])}")
        at = np.arange(count)[:, None] * step + np.arange(k)[None, :] * gap - pad
        axes.append(np.where((at >= 0) & (at < n), at, -1))
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    inside = np.where((rows >= 0) & (columns >= 0), rows * image[1] + columns, -1)
    flat = inside.reshape(inside.shape[0], inside.shape[1], -1)
    planes = np.arange(samples * channels).reshape(samples, channels, 1, 1, 1) * math.prod(image)
    return np.where(flat >= 0, planes + flat, -1)


def pair(form: Any, node: Node, least: int = 1) -> tuple[int, int]:
    """Return a setting of both axes of images, given once or for each."""
    given = form if isinstance(form, list) else []
    if not 1 <= len(given) <= 2 or not all(isinstance(n, int) and n >= least for n in given):
        raise Fault(f"{node}: got the setting {form!r} of a window; expected two whole numbers from {least}")
    return given[0], given[-1]


def along(shape: Shape, axes: Sequence[int]) -> Places:
    """Return the groups of an array that lie along some axes, one in each row."""
    inside = sorted(axis % len(shape) for axis in axes)
    rest = [axis for axis in range(len(shape)) if axis not in inside]
    return all_of(shape).transpose(rest + inside).reshape(-1, math.prod(shape[axis] for axis in inside))


def one_owner(owners: Places, node: Node) -> Places:
    """Return to which sample each row belongs, -1 to none; Fault where a row mixes samples."""
    found = owners.max(-1)
    if bool(((owners != found[..., None]) & (owners >= 0)).any()):
        raise Fault(f"{node}: it mixes samples; expected operations on each sample alone")
    return found
