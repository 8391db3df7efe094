"""Op: one MAC-bearing operation as the tap saw it, whatever the aten call, as matrix products over numpy arrays."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

# A convolution is unfolded in strips of about so many elements, never as a whole.
STRIP_ELEMENTS = 1 << 21


class Block(NamedTuple):
    """Part of an Op: rows of one of its matrix products.

    Args:
        gemm: which product. rows: slice of its M rows.
        a, b: (rows, K) and (K, N), any strides. c: addend of shape (N,) or (rows, N), or None.
    """

    gemm: int
    rows: slice
    a: NDArray[Any]
    b: NDArray[Any]
    c: NDArray[Any] | None


@dataclass
class Op(ABC):
    """`gemms` products (M, K) x (K, N), with the way back to the tensor that the network expects.

    Args:
        kind: aten operation without overload, e.g. "linear", "conv2d", "mm", "bmm".
        m, n, k, gemms: as in LayerResult. batched: whether gemms, not m, counts samples.
        dtype: of the tensor that the network expects.
    """

    kind: str
    m: int
    n: int
    k: int
    gemms: int
    dtype: torch.dtype
    batched: bool = False
    name: str = field(default="", init=False)
    phase: str = field(default="forward", init=False)

    @property
    def channels(self) -> int:
        """Output channels: the columns of all products side by side."""
        return self.n

    def columns(self, channel: NDArray[Any], gemm: int) -> NDArray[Any]:
        """Return what a vector over the output channels is for the N columns of one product."""
        return channel

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Yield all parts; each output belongs to exactly one."""

    @abstractmethod
    def tensor(self, out: NDArray[Any]) -> Tensor:
        """Return outputs of shape (gemms, M, N) as the tensor that the network expects."""


@dataclass
class MatrixProduct(Op):
    """mm, addmm, linear and bmm."""

    a: NDArray[Any] = field(kw_only=True)
    b: NDArray[Any] = field(kw_only=True)
    c: NDArray[Any] | None = field(kw_only=True)
    shape: tuple[int, ...] = field(kw_only=True)

    def blocks(self) -> Iterator[Block]:
        for gemm in range(self.gemms):
            yield Block(gemm, slice(0, self.m), self.a[gemm], self.b[gemm], self.c)

    def tensor(self, out: NDArray[Any]) -> Tensor:
        return torch.from_numpy(out).reshape(self.shape).to(self.dtype)


@dataclass
class Convolution(Op):
    """A convolution over any number of spatial dimensions; M runs over samples and output positions.

    K runs over input channels of the group and kernel positions, in the order of the weight's own layout. Padding
    contributes products with zero, as an array sees them that is fed with zeros.
    """

    x: NDArray[Any] = field(kw_only=True)
    weight: NDArray[Any] = field(kw_only=True)
    bias: NDArray[Any] | None = field(kw_only=True)
    stride: tuple[int, ...] = field(kw_only=True)
    padding: tuple[int, ...] = field(kw_only=True)
    dilation: tuple[int, ...] = field(kw_only=True)
    spatial: tuple[int, ...] = field(kw_only=True)

    @property
    def channels(self) -> int:
        return self.gemms * self.n

    def columns(self, channel: NDArray[Any], gemm: int) -> NDArray[Any]:
        return channel[gemm * self.n : (gemm + 1) * self.n]

    def blocks(self) -> Iterator[Block]:
        positions = math.prod(self.spatial)
        channels = self.weight.shape[1]
        images = max(1, STRIP_ELEMENTS // max(1, positions * self.k))
        for first in range(0, self.x.shape[0], images):
            strip = self.x[first : first + images]
            for gemm in range(self.gemms):
                unfolded = self._unfold(strip[:, gemm * channels : (gemm + 1) * channels])
                weight = self.weight[gemm * self.n : (gemm + 1) * self.n].reshape(self.n, self.k)
                c = None if self.bias is None else self.bias[gemm * self.n : (gemm + 1) * self.n]
                rows = slice(first * positions, (first + strip.shape[0]) * positions)
                yield Block(gemm, rows, unfolded, weight.T, c)

    def _unfold(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return (samples * positions, K): the window under each output position."""
        dims = len(self.spatial)
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in self.padding)])
        kernel = self.weight.shape[2:]
        reach = [(size - 1) * d + 1 for size, d in zip(kernel, self.dilation, strict=True)]
        windows = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + dims)))  # type: ignore[call-overload]
        steps = (slice(None), slice(None), *(slice(None, None, s) for s in self.stride))
        windows = windows[(*steps, *(slice(None, None, d) for d in self.dilation))]
        order = (0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))
        return windows.transpose(order).reshape(-1, self.k)

    def tensor(self, out: NDArray[Any]) -> Tensor:
        # (groups, samples, positions, channels of the group) to (samples, groups, channels, positions)
        shaped = out.reshape(self.gemms, self.x.shape[0], -1, self.n).transpose(1, 0, 3, 2)
        image = np.ascontiguousarray(shaped).reshape(self.x.shape[0], self.gemms * self.n, *self.spatial)
        return torch.from_numpy(image).to(self.dtype)


def array(tensor: Tensor) -> NDArray[Any]:
    """Return a CPU tensor as float32 or float64, without a copy where it is one already."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        raise ValueError(f"emulation runs on the CPU, got a tensor on {tensor.device}; move the model with .cpu()")
    return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).numpy()


def matrix_product(kind: str, a: Tensor, b: Tensor, c: Tensor | None) -> MatrixProduct:
    """Build the Op of a (M, K) x (K, N) or (batch, M, K) x (batch, K, N) product."""
    left, right = array(a), array(b)
    shape = (*left.shape[:-1], right.shape[-1])
    batched = left.ndim == 3
    if not batched:
        left, right = left[None], right[None]
    gemms, m, k = left.shape
    return MatrixProduct(
        kind, m, right.shape[2], k, gemms, a.dtype, batched,
        a=left, b=right, c=None if c is None else array(c), shape=shape,
    )  # fmt: skip


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> MatrixProduct:
    """Build the Op of aten.linear: (..., K) x (N, K) transposed."""
    flat = array(x).reshape(-1, x.shape[-1])
    n, k = weight.shape
    return MatrixProduct(
        "linear", flat.shape[0], n, k, 1, x.dtype,
        a=flat[None], b=array(weight).T[None], c=None if bias is None else array(bias), shape=(*x.shape[:-1], n),
    )  # fmt: skip


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    groups: int,
) -> Convolution:  # fmt: skip
    """Build the Op of aten.convolution, not transposed."""
    dims = weight.dim() - 2
    stride, padding, dilation = ((v * dims if len(v) == 1 else v) for v in (list(stride), list(padding), list(dilation)))
    spatial = tuple(
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(dims)
    )
    return Convolution(
        f"conv{dims}d", x.shape[0] * math.prod(spatial), weight.shape[0] // groups, math.prod(weight.shape[1:]), groups,
        x.dtype, x=array(x), weight=array(weight), bias=None if bias is None else array(bias),
        stride=tuple(stride), padding=tuple(padding), dilation=tuple(dilation), spatial=spatial,
    )  # fmt: skip
