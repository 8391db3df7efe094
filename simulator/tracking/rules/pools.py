"""Rules of pooling by the largest."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..algebra import Algebra, Noise
from ..elements import Windows
from ..labels import SAFE
from ..safe import growth
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
        if a.label == SAFE:
            return _windows(x.x, settings, out.shape).largest(n.expand(x.shape))
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

    pooled = _windows(x.x, settings, g.shape)
    found = g.linear(back, pooled.elements, z) if pooled.overlap else g.moved(back)
    if z is not None:
        found = Value(t, z, found.noise)
    bound = x.bound()
    if bound is None:
        return found
    # The noisiest of a window stands for both: what may be the largest is within twice its bound. Where nothing is off,
    # equal values are equal in real numbers.
    jump, any_undecided = pooled.undecided(x.x, bound.expand(x.shape), size(g))
    if not any_undecided:
        return found

    def noise(a: Algebra, i: int) -> Noise:
        own = found.noise[i]
        if a.label != SAFE:
            return own  # as `either` has it
        own = torch.zeros_like(x.x) if own is None else own.contiguous()
        t.undecided += pooled.spread(jump, own, growth(own))
        return own

    return t.map(found.x, noise)


for _dims in (2, 3):
    rule(f"max_pool{_dims}d_with_indices", direct=True)(functools.partial(max_pool, _dims))
    rule(f"max_pool{_dims}d_with_indices_backward", direct=True)(functools.partial(max_pool_backward, _dims))


def _windows(x: Tensor, settings: Any, shape: torch.Size) -> Windows:
    """Return the windows of a pooling of x, with results of this shape."""
    kernel, stride, padding, dilation, _ = settings
    listed = [s if isinstance(s, tuple | list) else [s] for s in (kernel, stride or kernel, padding, dilation)]
    dims = max(2, *(len(s) for s in listed))
    return Windows(x, shape, [tuple(s[i] if len(s) > 1 else s[0] for s in listed) for i in range(dims)])


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
