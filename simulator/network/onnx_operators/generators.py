"""Operators that make tensors from a few numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .axes import fitting
from .registry import Declined, Node, operator
from .types import torch_type

# How far a range goes: the places of a sentence, a signal or an image's pixels are fewer.
MAX_STEPS = 1 << 26


@operator("Range")
def arithmetic_range(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Return start, start + delta, ... before a limit.

    Raises:
        Declined: of more than MAX_STEPS numbers.
    """
    if not start.is_floating_point():
        numbers = range(int(start.item()), int(limit.item()), int(delta.item()))
        _check_steps(len(numbers))
        return torch.arange(numbers.start, numbers.start + len(numbers) * numbers.step, numbers.step).to(start.dtype)
    wide = torch.promote_types(start.dtype, torch.float32)
    first, last, step = start.to(wide), limit.to(wide), delta.to(wide)
    count = max(0, math.ceil((last - first).item() / step.item()))
    _check_steps(count)
    return (first + torch.arange(count).to(wide) * step).to(start.dtype)


def _check_steps(count: int) -> None:
    fitting([count], torch.int64)
    if count > MAX_STEPS:
        raise Declined(f"a range of {count:,} numbers, where {MAX_STEPS:,} are the most")


@operator("EyeLike")
def eye_like(node: Node, x: Tensor) -> Tensor:
    """Return ones on the k-th diagonal of a matrix of zeros in the shape of x."""
    dtype = torch_type(node.get("dtype")) if "dtype" in node.attributes else x.dtype
    rows, columns = (torch.arange(size) for size in x.shape)
    return (columns == rows[:, None] + node.get("k", 0)).to(dtype)


@operator("HannWindow", "HammingWindow", "BlackmanWindow")
def window(node: Node, size: Tensor) -> Tensor:
    """Return a sum of cosines over one period of a window: of `size` steps, or of one fewer if not `periodic`."""
    (count,) = fitting([int(size.item())], torch.float64)
    steps = count if node.get("periodic", 1) else count - 1
    coefficients = {
        "HannWindow": (0.5, -0.5), "HammingWindow": (25 / 46, -21 / 46), "BlackmanWindow": (0.42, -0.5, 0.08),
    }[node.op]  # fmt: skip
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / max(steps, 1)
    total = sum((factor * torch.cos(k * angle) for k, factor in enumerate(coefficients)), torch.zeros_like(angle))
    return total.to(torch_type(node.get("output_datatype", 1)))
