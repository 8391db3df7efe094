"""Op: one MAC-bearing operation as the tap saw it, whatever the aten call, as matrix products over numpy arrays."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.arithmetic.convolution import Geometry, Rows, as_plain, strips, unfolded
from simulator.arithmetic.engine import Ready
from simulator.arithmetic.spec import MacSpec
from simulator.arithmetic.strips import row_strips
from simulator.cost import Gemm
from simulator.errors import InputError

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input gradient", "weight gradient"


class Block(NamedTuple):
    """Part of an Op: rows of one of its matrix products.

    Args:
        gemm: which product. rows: slice of its M rows.
        a, b: (rows, K) and (K, N), any strides; a may be gathered, b made ready.
        c: addend that broadcasts to (rows, N), or None.
    """

    gemm: int
    rows: slice
    a: Rows
    b: NDArray[Any] | Ready
    c: NDArray[Any] | None


class Axes(NamedTuple):
    """What the axes of an operand are, of an Op's whole operand array.

    Args:
        outer: axes that lie along rows (of operand a) or columns (of b) of the product, or count products.
        inner: the axis along the sum, of input channels. groups: those of `outer` that count groups of channels.
    """

    outer: tuple[int, ...]
    inner: int
    groups: tuple[int, ...] = ()


@dataclass
class Op(ABC):
    """`gemms` products (M, K) x (K, N), with the way back to the tensor that the network expects.

    Args:
        kind: aten operation without overload, e.g. "linear", "conv2d", "mm", "bmm".
        m, n, k, gemms: as in LayerResult. batched: whether gemms, not m, counts samples.
        dtype: of the tensor that the network expects.
        name: path of the module, with `#2` for its second call. phase: FORWARD or of which gradient.
        roles: whether the operands a and b are values of the network (0) or weights (1), and so which of a unit's two
            operand formats is theirs; gradients and what flows through a product with them are values.
        gradient: of a weight's gradient, which operand is the gradient of the outputs.
        factors: of the products and of the addend, alpha and beta of BLAS.
        step: of the products of a recurrent layer, which call of it and where the weight begins, which are the same for
            those of all steps; None of others.
    """

    kind: str
    m: int
    n: int
    k: int
    gemms: int
    dtype: torch.dtype
    batched: bool = False
    name: str = field(default="", init=False)
    phase: str = field(default=FORWARD, init=False)
    roles: tuple[int, int] = field(default=(0, 1), init=False)
    gradient: int = field(default=0, init=False)
    factors: tuple[float, float] = field(default=(1.0, 1.0), init=False)
    step: tuple[int, int] | None = field(default=None, init=False)

    def on(self, spec: MacSpec) -> MacSpec:
        """Return a unit with its operand formats as this Op's operands have them."""
        if spec.operands is None or self.roles == (0, 1):
            return spec
        a, b = self.roles
        return replace(spec, operands=(spec.operands[a], spec.operands[b]))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass."""
        return self.gemms * self.m * self.n * self.k

    @property
    def gemm(self) -> Gemm:
        """What is priced."""
        return Gemm(self.m, self.n, self.k, self.gemms, min(self.operands[0].size, self.gemms * self.m * self.k))

    @property
    def summed(self) -> bool:
        """Whether k counts samples, over which the gradient of a weight is summed."""
        return self.phase == WEIGHT_GRADIENT and not self.batched

    @property
    def channels(self) -> int:
        """Output channels: the columns of all products side by side."""
        return self.n

    def columns(self, channel: NDArray[Any], gemm: int) -> NDArray[Any]:
        """Return what a vector over the output channels is for the N columns of one product."""
        return channel

    @property
    @abstractmethod
    def operands(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The arrays that a and b are made of, with the axes that `axes` names."""

    @property
    @abstractmethod
    def axes(self) -> tuple[Axes, Axes]:
        """What the axes of both operands are."""

    @property
    def addend(self) -> NDArray[Any] | None:
        """What is added to the products, as it broadcasts to (gemms, M, N)."""
        return None

    def addend_of(self, block: Block) -> NDArray[Any] | None:
        """Return the addend of a block as it broadcasts to its outputs, also where the block has none of its own."""
        if self.addend is None:
            return None
        return np.broadcast_to(self.addend, (self.gemms, self.m, self.n))[block.gemm, block.rows]

    @abstractmethod
    def with_operands(self, a: NDArray[Any], b: NDArray[Any], addend: NDArray[Any] | None) -> Op:
        """Return the same Op with other values: operands of the shapes that `operands` has, and an addend or None."""

    @property
    def inner_positions(self) -> int:
        """Products of the sum that belong to one input channel."""
        return 1

    @abstractmethod
    def inner_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        """Return factors of the input channels of a (with its axes) as they broadcast to b."""

    @abstractmethod
    def columns_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        """Return factors (channels,) of the output channels as they broadcast to b."""

    def row_factors(self, scales: NDArray[Any]) -> NDArray[Any]:
        """Return scales of a, one for each place along some axes, as (gemms or 1, M or 1, places along the sum)."""
        return scales.reshape(scales.shape[0], -1, scales.shape[-1])

    def column_factors(self, scales: NDArray[Any]) -> NDArray[Any]:
        """Return scales of b likewise, as (gemms or 1, places along the sum, N or 1)."""
        return scales

    @abstractmethod
    def blocks(self, spec: MacSpec) -> Iterator[Block]:
        """Yield all parts, as a unit needs them; each output belongs to exactly one."""

    @abstractmethod
    def tensor(self, out: NDArray[Any]) -> Tensor:
        """Return outputs of shape (gemms, M, N) as the tensor that the network expects; it may share their memory."""


@dataclass
class MatrixProduct(Op):
    """mm, bmm, mv and dot, and the same with an addend; of stacks c broadcasts to (gemms, M, N)."""

    a: NDArray[Any] = field(kw_only=True)
    b: NDArray[Any] = field(kw_only=True)
    c: NDArray[Any] | None = field(kw_only=True)
    shape: tuple[int, ...] = field(kw_only=True)

    @property
    def operands(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.a, self.b

    @property
    def axes(self) -> tuple[Axes, Axes]:
        return Axes((0, 1), 2), Axes((0, 2), 1)

    @property
    def addend(self) -> NDArray[Any] | None:
        return None if self.c is None else np.broadcast_to(self.c, (self.gemms, self.m, self.n))

    def inner_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        return factors.reshape(1, -1, 1)

    def columns_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        return factors.reshape(1, 1, -1)

    def with_operands(self, a: NDArray[Any], b: NDArray[Any], addend: NDArray[Any] | None) -> MatrixProduct:
        other = copy.copy(self)
        other.a, other.b, other.c = a, b, addend
        return other

    def blocks(self, spec: MacSpec) -> Iterator[Block]:
        c = self.addend
        for gemm in range(self.gemms):
            for rows in row_strips(self.m, self.n, self.k, spec):
                addend = None if c is None else c[gemm, rows]
                yield Block(gemm, rows, self.a[gemm, rows], self.b[gemm], addend)

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
    geometry: Geometry = field(kw_only=True)
    spatial: tuple[int, ...] = field(kw_only=True)
    layout: torch.memory_format = field(kw_only=True)

    @property
    def channels(self) -> int:
        return self.gemms * self.n

    def columns(self, channel: NDArray[Any], gemm: int) -> NDArray[Any]:
        return channel[gemm * self.n : (gemm + 1) * self.n]

    @property
    def operands(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Image (samples, groups, channels of a group, ...), weight (groups, outputs of a group, channels, ...)."""
        x, weight = self.x, self.weight
        return (
            x.reshape(x.shape[0], self.gemms, -1, *x.shape[2:]),
            weight.reshape(self.gemms, self.n, *weight.shape[1:]),
        )

    @property
    def axes(self) -> tuple[Axes, Axes]:
        return Axes((0,), 2, (1,)), Axes((0, 1), 2)

    @property
    def addend(self) -> NDArray[Any] | None:
        return None if self.bias is None else self.bias.reshape(self.gemms, 1, self.n)

    def inner_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        return factors.reshape(self.gemms, 1, -1, *(1,) * len(self.spatial))

    def columns_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        return factors.reshape(self.gemms, self.n, *(1,) * (len(self.spatial) + 1))

    def with_operands(self, a: NDArray[Any], b: NDArray[Any], addend: NDArray[Any] | None) -> Convolution:
        other = copy.copy(self)
        other.x, other.weight = a.reshape(self.x.shape), b.reshape(self.weight.shape)
        other.bias = None if addend is None else addend.reshape(-1)
        return other

    @property
    def inner_positions(self) -> int:
        return math.prod(self.weight.shape[2:])

    def row_factors(self, scales: NDArray[Any]) -> NDArray[Any]:
        samples, groups, places = scales.shape[:3]
        by_group = np.moveaxis(scales.reshape(samples, groups, places), 1, 0)
        return by_group if samples == 1 else np.repeat(by_group, self.m // samples, axis=1)

    def column_factors(self, scales: NDArray[Any]) -> NDArray[Any]:
        return np.moveaxis(scales.reshape(scales.shape[:3]), 2, 1)

    def blocks(self, spec: MacSpec) -> Iterator[Block]:
        channels = self.weight.shape[1]
        for gemm in range(self.gemms):
            weight = self.weight[gemm * self.n : (gemm + 1) * self.n].reshape(self.n, self.k)
            c = None if self.bias is None else self.columns(self.bias, gemm)
            image = self.x[:, gemm * channels : (gemm + 1) * channels]
            for rows, a in unfolded(self.geometry, image, self.n, spec):
                yield Block(gemm, rows, a, weight.T, c)

    def tensor(self, out: NDArray[Any]) -> Tensor:
        samples = self.x.shape[0]
        image = torch.from_numpy(out).reshape(self.gemms, samples, *self.spatial, self.n).movedim(-1, 1).movedim(2, 0)
        return image.flatten(1, 2).to(self.dtype).contiguous(memory_format=self.layout)


@dataclass
class KernelGradient(Op):
    """The gradient of a convolution's weight: M runs over channels and kernel positions, K over samples and outputs."""

    x: NDArray[Any] = field(kw_only=True)
    dy: NDArray[Any] = field(kw_only=True)
    shape: tuple[int, ...] = field(kw_only=True)
    geometry: Geometry = field(kw_only=True)

    @property
    def operands(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.x, self.dy

    @property
    def axes(self) -> tuple[Axes, Axes]:
        # The sum runs over samples and positions, which share one scale.
        return Axes((), 0), Axes((), 0)

    def inner_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        return factors

    def columns_onto_b(self, factors: NDArray[Any]) -> NDArray[Any]:
        return factors

    def with_operands(self, a: NDArray[Any], b: NDArray[Any], addend: NDArray[Any] | None) -> KernelGradient:
        other = copy.copy(self)
        other.x, other.dy = a, b
        return other

    def blocks(self, spec: MacSpec) -> Iterator[Block]:
        channels = self.shape[1]
        for gemm in range(self.gemms):
            windows = self.geometry.turned_windows(self.x[:, gemm * channels : (gemm + 1) * channels])
            dy = np.moveaxis(self.dy[:, gemm * self.n : (gemm + 1) * self.n], 1, -1).reshape(self.k, self.n)
            for rows, a in strips(windows, spec):
                yield Block(gemm, rows, a, dy, None)

    def tensor(self, out: NDArray[Any]) -> Tensor:
        return torch.from_numpy(out).transpose(1, 2).reshape(self.shape).to(self.dtype)


def array(tensor: Tensor) -> NDArray[Any]:
    """Return a CPU tensor as float32 or float64, without a copy where it is one already.

    Raises:
        InputError: the tensor is on another device.
    """
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        raise InputError(f"got a tensor on {tensor.device}; expected the CPU; move model and inputs there with .cpu()")
    return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).numpy()


def matrix_product(kind: str, a: Tensor, b: Tensor, c: Tensor | None = None) -> MatrixProduct | None:
    """Build the Op of a product; None where shapes do not fit.

    Args:
        a, b: (M, K) and (K, N), both with a leading axis for a stack of products; or (M, K) and (K,), or both (K,).
        c: addend that broadcasts to the product, or None.
    """
    matrices, vector = a.dim() in (2, 3) and b.dim() == a.dim(), b.dim() == 1 and a.dim() in (1, 2)
    if not (matrices or vector) or a.shape[-1] != b.shape[0 if vector else -2] or a.shape[:-2] != b.shape[:-2]:
        return None
    shape = a.shape[:-1] if vector else (*a.shape[:-1], b.shape[-1])
    if c is not None and (c.dim() > len(shape) or not _broadcasts(c.shape, shape)):
        return None
    left, right, addend = array(a), array(b), None if c is None else array(c)
    if vector:  # the only column
        right, addend = right[:, None], None if addend is None else addend[..., None]
    batched = left.ndim == 3
    if not batched:
        left, right = left[None] if left.ndim == 2 else left[None, None], right[None]
    gemms, m, k = left.shape
    return MatrixProduct(
        kind, m, right.shape[2], k, gemms, a.dtype, batched=batched, a=left, b=right, c=addend, shape=tuple(shape)
    )


def summed_products(kind: str, a: Tensor, b: Tensor, c: Tensor) -> MatrixProduct | None:
    """Build the Op of the sum of a stack's products (S, M, K) x (S, K, N), over the stack and K; None if no fit."""
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        return None
    return matrix_product(kind, a.transpose(0, 1).flatten(1), b.flatten(0, 1), c)


def outer_product(kind: str, a: Tensor, b: Tensor, c: Tensor) -> MatrixProduct | None:
    """Build the Op of a column (M,) times a row (N,) plus c; None if they are none."""
    return matrix_product(kind, a[:, None], b[None], c) if a.dim() == 1 and b.dim() == 1 else None


def _broadcasts(shape: torch.Size, to: tuple[int, ...]) -> bool:
    return all(size in (1, wanted) for size, wanted in zip(reversed(shape), reversed(to), strict=False))


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, output_padding: list[int], groups: int,
) -> Convolution | None:  # fmt: skip
    """Build the Op of aten.convolution; None where shapes or settings do not fit.

    A transposed one is the plain one over the image with zeros between its values, as an array performs it that skips
    none of them.
    """
    dims = weight.dim() - 2
    if x.dim() != dims + 2 or dims < 1 or groups < 1 or weight.shape[0] % groups:
        return None
    inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        inputs, outputs = outputs, inputs
    if x.shape[1] != inputs or (bias is not None and bias.shape != (outputs,)):
        return None
    strides, paddings, dilations, behind = (
        tuple(v) * dims if len(v) == 1 else tuple(v) for v in (stride, padding, dilation, output_padding)
    )
    if min(strides) < 1 or min(paddings) < 0 or min(dilations) < 1 or min(behind) < 0:
        return None
    image, weights = array(x), array(weight)
    try:
        if transposed:
            weights, geometry = as_plain(image.shape, weights, groups, strides, paddings, dilations, behind)
        else:
            geometry = Geometry(tuple(weight.shape[2:]), strides, tuple((p, p) for p in paddings), dilations)
        spatial = geometry.positions(image.shape[2:])
    except ValueError:
        return None
    return Convolution(
        f"conv_transpose{dims}d" if transposed else f"conv{dims}d",
        x.shape[0] * math.prod(spatial), outputs // groups, math.prod(weights.shape[1:]), groups,
        x.dtype, x=image, weight=weights, bias=None if bias is None else array(bias),
        geometry=geometry, spatial=spatial, layout=_layout(x, weight),
    )  # fmt: skip


def kernel_gradient(
    x: Tensor, dy: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> KernelGradient | None:
    """Build the Op of the gradient of a plain convolution's weight (of shape and type of `weight`); None if no fit.

    Args:
        x: image (samples, channels, ...). dy: gradient of the outputs (samples, outputs, ...).
        stride, padding, dilation: one number for each spatial axis.
    """
    geometry = Geometry(tuple(weight.shape[2:]), tuple(stride), tuple((p, p) for p in padding), tuple(dilation))
    try:
        spatial = geometry.positions(x.shape[2:])
    except ValueError:
        return None
    if spatial != tuple(dy.shape[2:]):
        return None
    op = KernelGradient(
        f"conv{weight.dim() - 2}d", math.prod(weight.shape[1:]), weight.shape[0] // groups,
        dy.shape[0] * math.prod(dy.shape[2:]), groups, weight.dtype,
        x=array(x), dy=array(dy), shape=tuple(weight.shape), geometry=geometry,
    )  # fmt: skip
    op.phase, op.roles = WEIGHT_GRADIENT, (0, 0)
    return op


def _layout(x: Tensor, weight: Tensor) -> torch.memory_format:
    """Return the memory layout that torch gives to the result of a convolution: channels last if one operand has it."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    for operand in (x, weight):
        if last is not None and operand.is_contiguous(memory_format=last) and not operand.is_contiguous():
            return last
    return torch.contiguous_format
