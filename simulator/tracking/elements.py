"""Noise element by element, each step of several torch operations in one pass of the engine over the memory.

Tensors are float32 or float64, all of one type. What is NaN stands for an infinite bound: no gate closes for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from native import ffi, lib
from native.twins import check

from .algebra import Noise


def weighted(x: Tensor, noise: Noise, factor: float) -> Tensor:
    """Return noise + |x| factor, the latter at least the smallest normal unless x is 0."""
    x, y = _like(x)
    (noise,) = _beside(y, noise)
    lib.ulp_noise_weighted(_wide(y), _at(x), _at(noise), _at(y), y.numel(), factor)
    return y


def grow(x: Tensor, factor: float, more: float) -> Tensor:
    """Return x factor + more, in place."""
    if not _dense(x):
        return x.mul_(factor).add_(more)
    lib.ulp_noise_grown(_wide(x), _at(x), x.numel(), factor, more)
    return x


def kept(x: Tensor, noise: Tensor) -> Tensor:
    """Return noise, but 0 where x + noise is not above 0."""
    x, y = _like(x)
    (noise,) = _beside(y, noise)
    lib.ulp_noise_kept(_wide(y), _at(x), _at(noise), _at(y), y.numel())
    return y


def gated(g: Tensor, noise_g: Noise, x: Tensor, noise_x: Tensor, within: float, growth: float) -> tuple[Tensor, int]:
    """Return noise of g where x + noise_x > 0; where noise_x > x within besides, it has |g| more, and grows.

    Returns:
        The noise, and how many elements of g, not being 0, the latter are.
    """
    g, y = _like(g)
    noise_g, x, noise_x = _beside(y, noise_g, x, noise_x)
    args = _at(g), _at(noise_g), _at(x), _at(noise_x), _at(y)
    return y, lib.ulp_noise_gated(_wide(y), *args, y.numel(), within, growth)


def multiple_added(
    z: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, of_y: float, of_z: float, of_noise: float, growth: float
) -> Tensor:
    """Return (|y| of_y + |z| of_z + noise_x + noise_y of_noise) growth, where products of what is not 0 count as the
    smallest normal more.
    """
    z, found = _like(z)
    y, noise_x, noise_y = _beside(found, y, noise_x, noise_y)
    by = ffi.new("double[5]", [of_y, of_z, of_noise, float(torch.finfo(z.dtype).tiny), growth])
    lib.ulp_noise_multiple_added(
        _wide(z), _at(z), _at(y), _at(noise_x), _at(noise_y), _at(found), found.numel(), by
    )  # fmt: skip
    return found


def max_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest of a[..., m, k] b[..., k, n] over k, none of which is negative; 0 of none."""
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    a, b = (x.expand(*shape, *x.shape[-2:]).contiguous().view(shape.numel(), *x.shape[-2:]) for x in (a, b))
    y = a.new_empty(shape.numel(), rows, columns)
    for one, other, to in zip(a, b, y, strict=True):
        lib.ulp_noise_max_product(_wide(to), _at(one), _at(other), _at(to), rows, inner, columns)
    return y.view(*shape, rows, columns)


def copy_runs(x: Tensor, y: Tensor, runs: int, step: int) -> None:
    """Copy so many runs of equal length, which begin so many elements of x apart, into all of y, of the same type."""
    lib.ulp_copied_runs(_at(x), _at(y), runs, y.numel() * y.itemsize // runs, step * x.itemsize)


class Windows:
    """Windows of pooling over the last axes.

    Args:
        x: what is pooled. shape: of the results. windows: kernel, stride, padding and dilation of each axis, two or
            three of them.
    """

    def __init__(self, x: Tensor, shape: torch.Size, windows: Sequence[tuple[int, int, int, int]]) -> None:
        dims = len(windows)
        self.shape = shape
        self.elements = math.prod(kernel for kernel, *_ in windows)
        self.overlap = any(stride < (kernel - 1) * dilation + 1 for kernel, stride, _, dilation in windows)
        self._record = ffi.new("ulp_windows *")
        self._record.planes = x.shape[:-dims].numel()
        for i in range(3 - dims):
            getattr(self._record, "in")[i] = self._record.out[i] = 1
            self._record.kernel[i] = self._record.stride[i] = self._record.dilation[i] = 1
        for i, window in enumerate(windows, 3 - dims):
            getattr(self._record, "in")[i], self._record.out[i] = x.shape[i - 3], shape[i - 3]
            (
                self._record.kernel[i], self._record.stride[i], self._record.padding[i], self._record.dilation[i],
            ) = window  # fmt: skip

    def largest(self, x: Tensor) -> Tensor:
        """Return the largest of each window."""
        x, y = x.contiguous(), x.new_empty(self.shape)
        check(lib.ulp_noise_largest(_wide(x), _at(x), _at(y), self._record))
        return y

    def undecided(self, x: Tensor, noise: Tensor, jump: Tensor) -> tuple[Tensor, int]:
        """Return jump for windows whose largest x the second may be, both being off by the largest noise of the window,
        if that is not 0; else 0. And how many are not 0.
        """
        x, noise, jump = x.contiguous(), noise.contiguous(), jump.expand(self.shape).contiguous()
        y, tiny = x.new_empty(self.shape), float(torch.finfo(x.dtype).tiny)
        args = _at(x), _at(noise), _at(jump), _at(y), self._record
        return y, _counted(lib.ulp_noise_undecided(_wide(x), *args, 2.0 + 2.0**-18, tiny))

    def spread(self, jump: Tensor, noise: Tensor, growth: float) -> int:
        """Add the number of each window to the noise of all its elements, in place, which grows; return of how many."""
        return _counted(lib.ulp_noise_spread(_wide(noise), _at(jump), _at(noise), self._record, growth))


def _counted(found: int) -> int:
    if found < 0:
        raise MemoryError("track: pooling")
    return found


def _like(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tensor whose elements fill its memory, and a new one of the same strides."""
    y = torch.empty_like(x)
    return (x if y.stride() == x.stride() else torch.empty_like(y).copy_(x)), y


def _beside(y: Tensor, *tensors: Noise) -> tuple[Any, ...]:
    """Return tensors in the strides of y."""
    return tuple(
        x if x is None or (x.stride() == y.stride() and x.shape == y.shape) else torch.empty_like(y).copy_(x)
        for x in tensors
    )


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.empty_like(x, device="meta").stride() == x.stride()


def _wide(x: Tensor) -> int:
    return int(x.dtype == torch.float64)


def _at(x: Noise) -> Any:
    return ffi.NULL if x is None else ffi.cast("void *", x.data_ptr())
