"""Rules of pooling and interpolation."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .registry import rule

aten = torch.ops.aten


@rule("max_pool2d_with_indices", direct=True)
def max_pool(
    t: Trace, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False,
    z: Any = None,
) -> tuple[Value, None]:  # fmt: skip
    """The largest of each window: off by no more than the noisiest of the window."""
    settings = (kernel, stride, padding, dilation, ceil)
    out, indices = aten.max_pool2d_with_indices(x.x, *settings) if z is None else z

    def noise(a: Any, i: int) -> Tensor | None:
        n = x.given(a, i)
        if n is None:
            return None
        if a.label == "safe":
            return _largest(n.expand(x.shape), settings, out.shape)
        return n.expand(x.shape).flatten(-2).gather(-1, indices.flatten(-2)).view(out.shape)

    return t.map(out, noise), None


@rule("max_pool2d_with_indices_backward", direct=True)
def max_pool_backward(
    t: Trace, g: Value, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, indices: Tensor,
    z: Tensor | None = None,
) -> Value:  # fmt: skip
    """The gradient at the largest of each window; where another may be it, at any of them."""
    settings = (kernel, stride, padding, dilation, ceil)

    def back(part: Tensor) -> Tensor:
        found: Tensor = aten.max_pool2d_with_indices_backward(part, x.x, *settings, indices)
        return found

    windows = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** 2
    steps = list(stride) or list(kernel)
    overlap = any(s < k for s, k in zip(_pair(steps), _pair(kernel), strict=True))
    found = g.linear(back, windows, z) if overlap else g.moved(back)
    if z is not None:
        found = Value(t, z, found.noise)
    bound = x.bound()
    if bound is None:
        return found
    # The noisiest of a window stands for both: what may be the largest is within twice its bound.
    largest = _largest(bound.expand(x.shape), settings, g.shape)
    first, second = _two_largest(x.x, settings, g.shape)
    reach = largest * (2.0 + 2.0**-18) - (first - second)
    own = g.bound()
    jump = g.x.abs() if own is None else g.x.abs() + own
    # Where nothing is off, equal values are equal in real numbers.
    jump = _open(_open(jump, reach, -torch.finfo(reach.dtype).tiny), largest)
    return found.either(_spread(jump, x.shape, settings)) if float(jump.sum()) else found


def _open(jump: Tensor, x: Tensor, threshold: float = 0.0) -> Tensor:
    """Return it where x is above the threshold, or NaN."""
    found: Tensor = aten.threshold_backward(jump, x, threshold)
    return found


def _pair(sizes: Any) -> tuple[int, int]:
    return (sizes[0], sizes[-1])


def _largest(x: Tensor, settings: Any, shape: torch.Size) -> Tensor:
    """Return the largest of each window."""
    for axis in (-2, -1):  # rows first, whose elements lie side by side
        x = functools.reduce(torch.maximum, _places(x, settings, axis, shape))
    return x


def _two_largest(x: Tensor, settings: Any, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the largest and the second largest of each window, minus infinity where there is none."""
    first, second = _two_of(_places(x, settings, -2, shape), None)
    assert second is not None
    return _two_of(_places(first, settings, -1, shape), _places(second, settings, -1, shape))


def _two_of(largest: list[Tensor], seconds: list[Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return the two largest of several numbers, or of several pairs of the two largest."""
    first, *others = largest
    second = torch.full_like(first, -math.inf) if seconds is None else seconds[0]
    for i, other in enumerate(others, 1):
        lower = torch.minimum(first, other)
        first = torch.maximum(first, other)
        second = lower if i == 1 and seconds is None else torch.maximum(second, lower)
        if seconds is not None:
            second = torch.maximum(second, seconds[i])
    return first, second


def _places(x: Tensor, settings: Any, axis: int, shape: torch.Size) -> list[Tensor]:
    """Return for each place along an axis of a window what all windows have there, minus infinity outside of x."""
    size, step, before, apart = (
        _pair(s if isinstance(s, tuple | list) else [s])[axis]
        for s in (settings[0], settings[1] or settings[0], settings[2], settings[3])
    )
    count = shape[axis]
    behind = max(0, (count - 1) * step + (size - 1) * apart + 1 - x.shape[axis] - before)
    if before or behind:
        x = torch.constant_pad_nd(x, [before, behind] if axis == -1 else [0, 0, before, behind], -math.inf)
    ends = [(i * apart, i * apart + (count - 1) * step + 1) for i in range(size)]
    if axis == -1:
        return [x[..., start:end:step] for start, end in ends]
    return [x[..., start:end:step, :] for start, end in ends]


def _spread(windows: Tensor, shape: torch.Size, settings: Any) -> Tensor:
    """Return for each element the sum of the numbers of all windows that it is in."""
    kernel, stride, padding, dilation, _ = settings
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = (
        _pair(s if isinstance(s, tuple | list) else [s]) for s in (kernel, stride or kernel, padding, dilation)
    )
    h, w = shape[-2:]
    rows, columns = windows.shape[-2:]
    full = windows.new_zeros(*windows.shape[:-2], max(h + 2 * ph, (rows - 1) * sh + (kh - 1) * dh + 1),
                             max(w + 2 * pw, (columns - 1) * sw + (kw - 1) * dw + 1))  # fmt: skip
    for i in range(kh):
        for j in range(kw):
            place = full[..., i * dh : i * dh + (rows - 1) * sh + 1 : sh, j * dw : j * dw + (columns - 1) * sw + 1 : sw]
            place += windows
    return full[..., ph : ph + h, pw : pw + w]


def _average(t: Trace, x: Value, f: Any, terms: int) -> Value:
    """Return averages: sums of so many terms at most, and a division; the coefficients are those of f."""
    return x.linear(f, terms + 2)


@rule("avg_pool2d")
def avg_pool(
    t: Trace, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, include: bool = True,
    divisor: Any = None,
) -> Value:  # fmt: skip
    """The mean of each window."""
    settings = (
        list(kernel),
        list(stride),
        padding if isinstance(padding, int) else list(padding),
        ceil,
        include,
        divisor,
    )
    return _average(t, x, lambda part: torch.nn.functional.avg_pool2d(part, *settings), math.prod(_pair(kernel)))


@rule("avg_pool2d_backward")
def avg_pool_backward(
    t: Trace, g: Value, x: Any, kernel: Any, stride: Any, padding: Any, ceil: bool, include: bool, divisor: Any
) -> Value:
    """The gradient spread over the window."""
    shape = x.x if isinstance(x, Value) else x

    def f(part: Tensor) -> Tensor:
        found: Tensor = aten.avg_pool2d_backward(part, shape, kernel, stride, padding, ceil, include, divisor)
        return found

    return _average(t, g, f, math.prod(_pair(kernel)))


@rule("_adaptive_avg_pool2d", "adaptive_avg_pool2d")
def adaptive_avg_pool(t: Trace, x: Value, size: Any) -> Value:
    """Means over parts of about equal size."""
    most = math.prod(-(-n // m) + 1 for n, m in zip(x.shape[-2:], size, strict=True))
    return _average(t, x, lambda part: torch.nn.functional.adaptive_avg_pool2d(part, tuple(size)), most)


@rule("_adaptive_avg_pool2d_backward")
def adaptive_avg_pool_backward(t: Trace, g: Value, x: Value) -> Value:
    """The gradient spread over the parts."""

    def f(part: Tensor) -> Tensor:
        found: Tensor = aten._adaptive_avg_pool2d_backward(part, x.x)
        return found

    return _average(t, g, f, math.prod(-(-m // n) + 1 for n, m in zip(x.shape[-2:], g.shape[-2:], strict=True)))
