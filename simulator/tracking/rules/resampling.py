"""Rules of interpolation, and of the way back of what repeats values: linear maps without negative coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..algebra import EXACTLY, ONCE
from ..values import Trace, Value
from .registry import rule

aten = torch.ops.aten


def _backward(name: str) -> Any:
    """Return a rule of sums: the gradient, added up in the places that its values came from."""

    def make(t: Trace, g: Value, *settings: Any) -> Value:
        plain = tuple(s.x if isinstance(s, Value) else s for s in settings)

        def f(n: Tensor) -> Tensor:
            found: Tensor = getattr(aten, name)(n, *plain)
            return found

        return g.linear(f, _most_added(f, g))

    return make


def _most_added(f: Callable[[Tensor], Tensor], g: Value) -> int:
    """Return how many values are added up in one place at most."""
    found = f(torch.ones_like(g.x))
    return int(found.max()) if found.numel() else 0


for _name in ("upsample_nearest1d_backward", "upsample_nearest2d_backward", "upsample_nearest3d_backward",
              "_upsample_nearest_exact1d_backward", "_upsample_nearest_exact2d_backward",
              "_upsample_nearest_exact3d_backward", "reflection_pad1d_backward", "reflection_pad2d_backward",
              "reflection_pad3d_backward", "replication_pad1d_backward", "replication_pad2d_backward",
              "replication_pad3d_backward", "unfold_backward", "col2im"):  # fmt: skip
    rule(_name)(_backward(_name))


def _interpolated(name: str) -> Any:
    """Return a rule of averages of neighbours, whose weights are computed: again, in float64 (S13).

    A weight comes from a coordinate, off by a few units of roundoff times the number of elements along an axis, which
    counts for the largest magnitude of all.
    """

    def make(t: Trace, x: Value, *settings: Any) -> Value:
        def f(n: Tensor) -> Tensor:
            found: Tensor = getattr(aten, name)(n.double(), *settings).to(n.dtype)
            return found

        z = f(x.x)
        taps = float(f(torch.ones_like(x.x)).max()) * 2.0 ** (x.x.dim() - 2) if x.x.numel() else 0.0
        unit = 2.0**-53 * 16.0 * (max(*x.shape, *z.shape) + 16) * taps
        off = x.x.abs().amax() * unit if x.x.numel() else x.x.new_zeros(())

        def noise(a: Any, i: int) -> Tensor | None:
            n = x.given(a, i)
            through = None if n is None else f(n.expand(x.shape)) if a.label == "safe" else _of_variances(f, n, x)
            rounded = EXACTLY if t.dtype == torch.float64 else ONCE
            own = off.expand(z.shape) if a.label == "safe" else None
            return a.combined(z, [(1.0 + 2.0**-18, through), (1.0, own)], rounded)

        return t.map(z, noise)

    return make


def _of_variances(f: Callable[[Tensor], Tensor], n: Tensor, x: Value) -> Tensor:
    """Return the root of averages of squares, which is no less than that of squares with squared weights."""
    return f(n.expand(x.shape).double().square()).sqrt().to(x.x.dtype)


for _name in ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_linear1d_backward",
              "upsample_bilinear2d_backward", "upsample_trilinear3d_backward"):  # fmt: skip
    rule(_name)(_interpolated(_name))


def _average(t: Trace, x: Value, f: Callable[[Tensor], Tensor], terms: int) -> Value:
    """Return averages: sums of so many terms at most, and a division; the coefficients are those of f."""
    return x.linear(f, terms + 2)


def _window(kernel: Any, dims: int) -> int:
    return math.prod(kernel) if len(kernel) == dims else kernel[0] ** dims


def _positive(settings: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """Return settings of mean pooling with the magnitude of the divisor, their last, and whether it is negative."""
    if len(settings) < _DIVISOR + 1 or settings[_DIVISOR] is None or settings[_DIVISOR] > 0:
        return settings, False
    return (*settings[:_DIVISOR], -settings[_DIVISOR]), True


_DIVISOR = 4  # behind the stride, the padding, and two that say how ends count


def _averages(dims: int) -> None:
    """Register the rules of mean pooling over so many axes."""

    def forward(t: Trace, x: Value, kernel: Any, *settings: Any) -> Value:
        f, (settings, negative) = getattr(aten, f"avg_pool{dims}d"), _positive(settings)
        found = _average(t, x, lambda n: f(n, kernel, *settings), _window(kernel, dims))
        return -found if negative else found

    def backward(t: Trace, g: Value, x: Value, kernel: Any, *settings: Any) -> Value:
        f, (settings, negative) = getattr(aten, f"avg_pool{dims}d_backward"), _positive(settings)
        found = _average(t, g, lambda n: f(n, x.x.to(n.dtype), kernel, *settings), _window(kernel, dims))
        return -found if negative else found

    def adaptive(t: Trace, x: Value, sizes: Any) -> Value:
        f = getattr(aten, f"_adaptive_avg_pool{dims}d")
        most = math.prod(-(-n // m) + 1 for n, m in zip(x.shape[-dims:], sizes, strict=True))
        return _average(t, x, lambda n: f(n, sizes), most)

    def adaptive_backward(t: Trace, g: Value, x: Value) -> Value:
        f = getattr(aten, f"_adaptive_avg_pool{dims}d_backward")
        most = math.prod(-(-m // n) + 1 for n, m in zip(x.shape[-dims:], g.shape[-dims:], strict=True))
        return _average(t, g, lambda n: f(n, x.x.to(n.dtype)), most)

    rule(f"avg_pool{dims}d")(forward)
    rule(f"avg_pool{dims}d_backward")(backward)
    rule(f"_adaptive_avg_pool{dims}d", f"adaptive_avg_pool{dims}d")(adaptive)
    rule(f"_adaptive_avg_pool{dims}d_backward")(adaptive_backward)


_averages(2)
_averages(3)
