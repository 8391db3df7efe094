"""What layers compute in training, by definition: products term by term by the exact reference, their gradients too.

torch's autograd runs through them, so that everything else, from activations to normalisations, is torch's own. The
three products of a layer y = a b have a unit each: y itself, dy bᵀ and aᵀ dy. Values and gradients have the format of
a unit's first operand, weights that of the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import simulator
from formats.philox import philox
from simulator.arithmetic import reference
from simulator.arithmetic.places import Place
from tests.oracles.layers import unfolded


@dataclass
class Units:
    """The MAC units of the three products, by definition.

    Args:
        forward, input_gradient, weight_gradient: MAC strings; None for torch's own arithmetic. seed: of random words,
            which a step gives one after the other to the products that it meets, by rows.
    """

    forward: str | None
    input_gradient: str | None
    weight_gradient: str | None
    seed: int = 0

    def __post_init__(self) -> None:
        self.sites: dict[Any, int] = {}
        self.rows: dict[Any, int] = {}

    def begin(self, seed: int, step: int) -> None:
        """Begin a step of a training, counted from 1, whose random words are its own."""
        self.seed = int(philox((seed, step), ((1 << 32) - 1, 0, 0, 0))[0])
        self.rows.clear()
        self.sites.clear()

    @property
    def recipe(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ("forward", "input_gradient", "weight_gradient")}

    def product(
        self, phase: str, layer: Any, a: Any, b: Any, c: Any = None, gemm: int = 0, last: bool = True, gradient: int = 0
    ) -> Tensor:
        """One product (M, K) x (K, N) of a layer; of several side by side `gemm` says which, and the last one ends.

        Of a weight's gradient `gradient` says which operand is the gradient of the outputs: it has the first format.
        """
        unit = getattr(self, phase)
        if unit is None:
            return a @ b if c is None else torch.addmm(c, a, b)
        spec = simulator.mac(unit)
        if phase == "weight_gradient" and gradient == 1 and spec.operands is not None:
            spec = replace(spec, operands=spec.operands[::-1])
        a, b = np.asarray(a.detach(), np.float64), np.asarray(b.detach(), np.float64)
        columns = [column.tolist() for column in b.T]
        addends = [None] * len(columns) if c is None else np.asarray(c.detach(), np.float64).tolist()
        site = self.sites.setdefault((phase, layer), len(self.sites))
        first = self.rows.get((phase, layer), 0)
        out = [
            [
                reference.dot(
                    spec, row, column, addend,
                    Place((gemm << 32) + first + i, j, len(columns), self.seed, 0, 2 * site, gemm),
                )[0]
                for j, (column, addend) in enumerate(zip(columns, addends, strict=True))
            ]
            for i, row in enumerate(a.tolist())
        ]  # fmt: skip
        if last:
            self.rows[phase, layer] = first + len(a)
        return torch.tensor(out, dtype=torch.float32)


class _Product(torch.autograd.Function):
    """y = a b + c."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, c: Tensor | None, units: Units, layer: Any) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.units, ctx.layer = units, layer
        return units.product("forward", layer, a, b, c)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        a, b = ctx.saved_tensors
        of_a = ctx.units.product("input_gradient", ctx.layer, dy, b.T) if ctx.needs_input_grad[0] else None
        of_b = ctx.units.product("weight_gradient", ctx.layer, dy.T, a).T if ctx.needs_input_grad[1] else None
        return of_a, of_b, dy.sum(0) if ctx.needs_input_grad[2] else None, None, None


class _Convolution(torch.autograd.Function):
    """Windows of a stuffed image (zeros between its values and around them) times the weights of each group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, g: Any, units: Units, layer: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = g, units, layer
        stuffed, kernel = (x, weight) if not g.transposed else (g.stuffed(x), g.turned(weight))
        return g.convolved("forward", units, layer, stuffed, kernel, bias, plain=not g.transposed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        (x, weight), (g, units, layer) = ctx.saved_tensors, ctx.settings
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            if g.transposed:
                of_x = g.convolved("input_gradient", units, layer, dy, weight, None, plain=True)
            else:
                of_x = g.convolved(
                    "input_gradient", units, layer, g.stuffed(dy, x), g.turned(weight), None, plain=False
                )
        if ctx.needs_input_grad[1]:
            image, outputs = (dy, x) if g.transposed else (x, dy)
            of_weight = g.kernel_gradient(units, layer, image, outputs, weight)
        of_bias = dy.sum([0, *range(2, dy.dim())]) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None, None, None


@dataclass
class Geometry:
    """The settings of a convolution, one number for each spatial axis, by the words of torch."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    behind: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()

    def stuffed(self, y: Tensor, like: Tensor | None = None) -> Tensor:
        """Zeros between outputs of a plain convolution, and around them, so that each input has all its windows."""
        axes = len(self.kernel)
        spread = torch.zeros(*y.shape[:2], *((n - 1) * s + 1 for n, s in zip(y.shape[2:], self.stride, strict=True)))
        spread[(..., *(slice(None, None, s) for s in self.stride))] = y
        padding = []
        for axis in range(axes):
            around = self.dilation[axis] * (self.kernel[axis] - 1) - self.padding[axis]
            size = spread.shape[2 + axis] + 2 * around - self.dilation[axis] * (self.kernel[axis] - 1)
            more = self.behind[axis] if like is None else like.shape[2 + axis] - size
            padding = [around, around + more, *padding]
        return torch.nn.functional.pad(spread, padding)

    def turned(self, weight: Tensor) -> Tensor:
        """Weights (outputs, channels of a group, ...) as those of the way back: channels first, positions flipped."""
        flipped = weight.flip(*range(2, weight.dim()))
        parts = [part.transpose(0, 1) for part in flipped.chunk(self.groups)]
        return torch.cat(parts)

    def windows(self, x: Tensor, plain: bool) -> list[Any]:
        """Rows of all positions of all samples, (samples * positions, channels * kernel) of each group."""
        axes = len(self.kernel)
        stride, padding = (self.stride, self.padding) if plain else ((1,) * axes, (0,) * axes)
        return [
            torch.from_numpy(unfolded(part.numpy(), self.kernel, stride, padding, self.dilation)).flatten(0, 1)
            for part in x.detach().chunk(self.groups, 1)
        ]

    def convolved(
        self, phase: str, units: Units, layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plain: bool
    ) -> Tensor:
        axes = len(self.kernel)
        stride, padding = (self.stride, self.padding) if plain else ((1,) * axes, (0,) * axes)
        spatial = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(x.shape[2:], padding, self.dilation, self.kernel, stride, strict=True)
        ]
        biases = [None] * self.groups if bias is None else bias.chunk(self.groups)
        parts = [
            units.product(phase, layer, rows, w.flatten(1).T, c, group, group == self.groups - 1)
            .reshape(len(x), math.prod(spatial), -1).transpose(1, 2)
            for group, (rows, w, c) in enumerate(
                zip(self.windows(x, plain), weight.chunk(self.groups), biases, strict=True)
            )
        ]  # fmt: skip
        return torch.cat(parts, 1).reshape(len(x), -1, *spatial)

    def kernel_gradient(self, units: Units, layer: Any, x: Tensor, dy: Tensor, weight: Tensor) -> Tensor:
        parts = [
            units.product("weight_gradient", layer, rows.T, y.transpose(0, 1).flatten(1).T, None, group,
                          group == self.groups - 1, 0 if self.transposed else 1).T
            for group, (rows, y) in enumerate(
                zip(self.windows(x, True), dy.chunk(self.groups, 1), strict=True)
            )
        ]  # fmt: skip
        return torch.cat(parts).reshape(weight.shape)


def linear(units: Units) -> Any:
    """torch.nn.functional.linear by definition; a layer goes by its weight."""

    def function(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        flat = _Product.apply(x.reshape(-1, x.shape[-1]), weight.T, bias, units, ("linear", weight.data_ptr()))
        return flat.reshape(*x.shape[:-1], -1)

    return function


def matmul(units: Units) -> Any:
    """Products of stacks (S, M, K) x (S, K, N) by definition, and of what has more axes in front."""

    def function(a: Tensor, b: Tensor) -> Tensor:
        left, right = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
        parts = [_Product.apply(x, y, None, units, None) for x, y in zip(left, right, strict=True)]
        return torch.stack(parts).reshape(*a.shape[:-1], b.shape[-1])

    return function


def attention(units: Units) -> Any:
    """torch.nn.functional.scaled_dot_product_attention by definition: both operands scaled, softmax, dropout."""

    def function(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
    ) -> Tensor:
        factor = math.sqrt(1 / math.sqrt(q.shape[-1]))
        scores = matmul(units)(q * factor, (k * factor).transpose(-2, -1))
        if attn_mask is not None:
            scores = scores + attn_mask
        return matmul(units)(torch.dropout(scores.softmax(-1), dropout_p, True), v)

    return function


def convolution(units: Units, transposed: bool = False) -> Any:
    """torch.nn.functional.conv1d and the like by definition."""

    def plain(
        x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:  # fmt: skip
        g = Geometry(stride, padding, dilation, groups, kernel=tuple(weight.shape[2:]))
        return _Convolution.apply(x, weight, bias, g, units, ("conv", weight.data_ptr()))

    def back(
        x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        g = Geometry(stride, padding, dilation, groups, True, output_padding, tuple(weight.shape[2:]))
        return _Convolution.apply(x, weight, bias, g, units, ("conv", weight.data_ptr()))

    return back if transposed else plain
