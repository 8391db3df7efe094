"""Sums, extremes and norms along axes, and running sums and products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .axes import all_positive, integers, positive
from .carriers import computing, widened
from .registry import Node, operator

Reduction = Callable[[Tensor, list[int]], Tensor]


def _sum(x: Tensor, axes: list[int]) -> Tensor:
    return x.sum(axes, keepdim=True, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int]) -> Tensor:
    return x.mean(axes, keepdim=True) if x.is_floating_point() else x.double().mean(axes, keepdim=True)


def _product(x: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True, dtype=x.dtype)
    return x


def _largest(x: Tensor, axes: list[int]) -> Tensor:
    return _extreme(x, axes, torch.amax, "min")


def _smallest(x: Tensor, axes: list[int]) -> Tensor:
    return _extreme(x, axes, torch.amin, "max")


def _extreme(x: Tensor, axes: list[int], function: Callable[..., Tensor], neutral: str) -> Tensor:
    """Return an extreme; of nothing, an infinity, or the last value of an integer type, which torch does not give."""
    if all(x.shape[axis] for axis in axes):
        return function(x, axes, keepdim=True)
    value: float
    if x.dtype == torch.bool:
        value = neutral == "max"
    elif x.is_floating_point():
        value = float("inf") if neutral == "max" else float("-inf")
    else:
        value = getattr(torch.iinfo(x.dtype), neutral)
    return x.new_full([1 if axis in axes else size for axis, size in enumerate(x.shape)], value)


def _square_root_of_squares(x: Tensor, axes: list[int]) -> Tensor:
    return _sum(_floating(x).square(), axes).sqrt()


def _log_sum_exp(x: Tensor, axes: list[int]) -> Tensor:
    return torch.logsumexp(_floating(x), axes, keepdim=True)


def _floating(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.double()


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": _product,
    "ReduceMax": _largest,
    "ReduceMin": _smallest,
    "ReduceL1": lambda x, axes: _sum(x.abs(), axes),
    "ReduceL2": _square_root_of_squares,
    "ReduceSumSquare": lambda x, axes: _sum(x.square(), axes),
    "ReduceLogSum": lambda x, axes: _sum(_floating(x), axes).log(),
    "ReduceLogSumExp": _log_sum_exp,
}


@operator(*_REDUCTIONS)
@computing
def reduce(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Return a reduction over some axes; over all if none are given, or over none with `noop_with_empty_axes`."""
    given = all_positive(integers(node, "axes", axes) or [], x.dim())
    if not given and not node.get("noop_with_empty_axes", 0):
        given = list(range(x.dim()))
    reduced = _REDUCTIONS[node.op](x[None], [axis + 1 for axis in given] or [0]).to(x.dtype)
    kept = node.get("keepdims", 1)
    return reduced.reshape([1 if axis in given else n for axis, n in enumerate(x.shape) if kept or axis not in given])


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node, x: Tensor) -> Tensor:
    """Return where the extreme lies along an axis: at the first place, or the last with `select_last_index`."""
    axis = positive(node.get("axis", 0), x.dim())
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    values, keep = widened(x), bool(node.get("keepdims", 1))
    if node.get("select_last_index", 0):
        return x.shape[axis] - 1 - function(values.flip(axis), axis, keepdim=keep)
    return function(values, axis, keepdim=keep)


@operator("CumSum")
@computing
def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    """Return the sums of all elements up to each one."""
    return _running(node, x, int(axis.item()), torch.cumsum, 0)


@operator("CumProd")
@computing
def cumulative_product(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    """Return the products of all elements up to each one."""
    return _running(node, x, int(axis.item()), torch.cumprod, 1)


def _running(node: Node, x: Tensor, axis: int, function: Callable[..., Tensor], neutral: int) -> Tensor:
    """Return a running reduction, of the elements before each one with `exclusive`, from the end with `reverse`."""
    along = positive(axis, x.dim())
    values = x.flip(along) if node.get("reverse", 0) else x
    if node.get("exclusive", 0):
        first = torch.full_like(values.narrow(along, 0, min(1, x.shape[along])), neutral)
        values = torch.cat([first, values.narrow(along, 0, max(x.shape[along] - 1, 0))], along)
    result = function(values, along, dtype=x.dtype)
    return result.flip(along) if node.get("reverse", 0) else result
