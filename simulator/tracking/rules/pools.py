"""Rules of pooling by the largest."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..values import Trace, Value, within
from .branches import size
from .registry import rule

aten = torch.ops.aten


def max_pool(
    dims: int, t: Trace, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil: bool = False, z: Any = None,
) -> tuple[Value, None]:  # fmt: skip
    """The largest of each window: off by no more than the noisiest of the window."""
    settings = (kernel, stride, padding, dilation, ceil)
    out, indices = getattr(aten, f"max_pool{dims}d_with_indices")(x.x, *settings) if z is None else z

    def noise(a: Any, i: int) -> Tensor | None:
        n = x.given(a, i)
        if n is None:
            return None
        if a.label == "safe":
            return _largest(n.expand(x.shape), settings, out.shape)
        return n.expand(x.shape).flatten(-dims).gather(-1, indices.flatten(-dims)).view(out.shape)

    return t.map(out, noise), None


def max_pool_backward(
    dims: int, t: Trace, g: Value, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool,
    indices: Tensor, z: Tensor | None = None,
) -> Value:  # fmt: skip
    """The gradient at the largest of each window; where another may be it, at any of them (S10)."""
    settings = (kernel, stride, padding, dilation, ceil)

    def back(part: Tensor) -> Tensor:
        found: Tensor = getattr(aten, f"max_pool{dims}d_with_indices_backward")(
            part, x.x.to(part.dtype), *settings, indices
        )
        return found

    windows = _windows(x.x, settings, g.shape)
    overlap = any(w.stride < (w.kernel - 1) * w.dilation + 1 for w in windows)
    found = g.linear(back, math.prod(w.kernel for w in windows), z) if overlap else g.moved(back)
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


for _dims in (2, 3):
    rule(f"max_pool{_dims}d_with_indices", direct=True)(functools.partial(max_pool, _dims))
    rule(f"max_pool{_dims}d_with_indices_backward", direct=True)(functools.partial(max_pool_backward, _dims))


def _open(jump: Tensor, x: Tensor, threshold: float = 0.0) -> Tensor:
    """Return it where x is above the threshold, or NaN."""
    found: Tensor = aten.threshold_backward(jump, x, threshold)
    return found


def _largest(x: Tensor, settings: Any, shape: torch.Size) -> Tensor:
    """Return the largest of each window, axis by axis, the first one first: its elements lie in rows."""
    windows = _windows(x, settings, shape)
    for axis, window in zip(range(-len(windows), 0), windows, strict=True):
        x = functools.reduce(torch.maximum, _along(x, window, axis, shape[axis]))
    return x


def _two_largest(x: Tensor, settings: Any, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the largest and the second largest of each window, minus infinity where there is none."""
    first, second = x, None
    windows = _windows(x, settings, shape)
    for axis, window in zip(range(-len(windows), 0), windows, strict=True):
        firsts = _along(first, window, axis, shape[axis])
        first, second = _two_of(firsts, None if second is None else _along(second, window, axis, shape[axis]))
    assert second is not None
    return first, second


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


def _along(x: Tensor, window: _Window, axis: int, count: int) -> list[Tensor]:
    """Return for each place along an axis of a window what so many windows have there, minus infinity outside of x."""
    reach = (count - 1) * window.stride + (window.kernel - 1) * window.dilation + 1
    behind = max(0, reach - x.shape[axis] - window.padding)
    if window.padding or behind:
        x = torch.constant_pad_nd(x, [*[0, 0] * (-axis - 1), window.padding, behind], -math.inf)
    x = x.movedim(axis, -1)
    starts = (i * window.dilation for i in range(window.kernel))
    return [x[..., s : s + (count - 1) * window.stride + 1 : window.stride].movedim(-1, axis) for s in starts]


class _Window(NamedTuple):
    """A window along an axis, in elements."""

    kernel: int
    stride: int
    padding: int
    dilation: int


def _windows(x: Tensor, settings: Any, shape: torch.Size) -> list[_Window]:
    kernel, stride, padding, dilation, _ = settings
    listed = [s if isinstance(s, tuple | list) else [s] for s in (kernel, stride or kernel, padding, dilation)]
    dims = max(2, *(len(s) for s in listed))
    return [_Window(*(s[i] if len(s) > 1 else s[0] for s in listed)) for i in range(dims)]


def _places(shape: torch.Size, windows: list[_Window]) -> Iterator[tuple[Any, ...]]:
    """Yield slices for each place in a window, of what is padded."""
    counts = shape[-len(windows) :]
    for at in itertools.product(*(range(w.kernel) for w in windows)):
        starts = [i * w.dilation for i, w in zip(at, windows, strict=True)]
        yield (..., *(slice(s, s + (n - 1) * w.stride + 1, w.stride)
                      for s, n, w in zip(starts, counts, windows, strict=True)))  # fmt: skip


def _spread(jumps: Tensor, shape: torch.Size, settings: Any) -> Tensor:
    """Return for each element the sum of the numbers of all windows that it is in."""
    windows = _windows(jumps, settings, jumps.shape)
    dims = len(windows)
    sizes = [
        max(m + 2 * w.padding, (n - 1) * w.stride + (w.kernel - 1) * w.dilation + 1)
        for m, n, w in zip(shape[-dims:], jumps.shape[-dims:], windows, strict=True)
    ]
    full = jumps.new_zeros(*jumps.shape[:-dims], *sizes)
    for place in _places(jumps.shape, windows):
        full[place] += jumps
    inside: Any = (..., *(slice(w.padding, w.padding + m) for m, w in zip(shape[-dims:], windows, strict=True)))
    return full[inside]


def _parts(n: int, parts: int) -> list[slice]:
    """Return the parts of about equal size that adaptive pooling makes of an axis."""
    return [slice(i * n // parts, -(-(i + 1) * n // parts)) for i in range(parts)]


def _adaptive(dims: int) -> None:
    """Register the rules of adaptive pooling over so many axes."""

    def each(x: Tensor, sizes: Any) -> Iterator[tuple[Any, Any]]:
        axes = [list(enumerate(_parts(n, m))) for n, m in zip(x.shape[-dims:], sizes, strict=True)]
        for place in itertools.product(*axes):
            yield (..., *(i for i, _ in place)), (..., *(part for _, part in place))

    def forward(t: Trace, x: Value, sizes: Any) -> tuple[Value, None]:
        out, indices = getattr(aten, f"adaptive_max_pool{dims}d")(x.x, sizes)

        def noise(a: Any, i: int) -> Tensor | None:
            n = x.given(a, i)
            if n is None:
                return None
            n = n.expand(x.shape)
            if a.label != "safe":
                return n.flatten(-dims).gather(-1, indices.flatten(-dims)).view(out.shape)
            found = torch.empty_like(out)
            for to, part in each(x.x, sizes):
                found[to] = n[part].flatten(-dims).amax(-1)
            return found

        return t.map(out, noise), None

    def backward(t: Trace, g: Value, x: Value, indices: Tensor) -> Value:
        def back(n: Tensor) -> Tensor:
            found: Tensor = getattr(aten, f"adaptive_max_pool{dims}d_backward")(n, x.x.to(n.dtype), indices)
            return found

        found, bound = g.linear(back, 2**dims), x.bound()
        if bound is None:
            return found
        bound, own = bound.expand(x.shape), size(g).expand(g.shape)
        jump = torch.zeros_like(x.x)
        for to, part in each(x.x, g.shape[-dims:]):
            largest = bound[part].flatten(-dims).amax(-1)
            two = x.x[part].flatten(-dims).topk(min(2, x.x[part].flatten(-dims).shape[-1]), -1).values
            if two.shape[-1] == 2:
                lost = torch.where(within(two[..., 0] - two[..., 1], 2.0 * largest), own[to], 0.0)
                jump[part] += lost.reshape(*lost.shape, *(1 for _ in range(dims)))
        return found.either(jump)

    rule(f"adaptive_max_pool{dims}d")(forward)
    rule(f"adaptive_max_pool{dims}d_backward")(backward)


_adaptive(2)
_adaptive(3)
