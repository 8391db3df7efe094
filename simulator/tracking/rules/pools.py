"""Rules of pooling and interpolation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .registry import Choice, rule

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
            found: Tensor = aten.max_pool2d_with_indices(n.expand(x.shape), *settings)[0]
            return found
        return n.expand(x.shape).flatten(-2).gather(-1, indices.flatten(-2)).view(out.shape)

    return t.map(out, noise), None


@rule("max_pool2d_with_indices_backward")
def max_pool_backward(
    t: Trace, g: Value, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, indices: Tensor
) -> Value:
    """The gradient at the largest of each window; where another may be it, at any of them."""
    settings = (kernel, stride, padding, dilation, ceil)

    def back(part: Tensor) -> Tensor:
        found: Tensor = aten.max_pool2d_with_indices_backward(part, x.x, *settings, indices)
        return found

    windows = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** 2
    steps = list(stride) or list(kernel)
    overlap = any(s < k for s, k in zip(_pair(steps), _pair(kernel), strict=True))
    found = g.linear(back, windows) if overlap else g.moved(back)
    bound = x.bound()
    if bound is None:
        return found
    bound = bound.expand(x.shape)
    flat = indices.flatten(-2)
    low = (x.x - bound).flatten(-2).gather(-1, flat).view(g.shape)
    rest = (x.x + bound).flatten(-2).scatter(-1, flat, -math.inf).view(x.shape)
    runner_up: Tensor = aten.max_pool2d_with_indices(rest, *settings)[0]
    noisy = aten.max_pool2d_with_indices(bound, *settings)[0] != 0  # or else equal values are equal in real numbers
    # Both sides are rounded once.
    slack = (runner_up.abs() + low.abs()) * (2.0 * torch.finfo(low.dtype).eps)
    undecided = ~(runner_up + slack < low) & (runner_up > -math.inf) & noisy
    if not undecided.any():
        return found
    own = g.bound()
    jump = torch.where(undecided, g.x.abs() if own is None else g.x.abs() + own, 0.0)
    everywhere = _spread(jump, x.shape, settings)
    return found.either(everywhere, everywhere != 0)


def _pair(sizes: Any) -> tuple[int, int]:
    return (sizes[0], sizes[-1])


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
            full[..., i * dh : i * dh + rows * sh : sh, j * dw : j * dw + columns * sw : sw][
                ..., :rows, :columns
            ] += windows
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
    settings = (list(kernel), list(stride), padding if isinstance(padding, int) else list(padding), ceil, include, divisor)
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


__all__ = ["Choice"]
