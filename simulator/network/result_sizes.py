"""Results of operations that memory does not hold, refused before they are computed: a file can ask for anything."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from .limits import check_fits, physical_memory

# Bytes of an element, at most.
_WIDEST = 16


def _indexed(x: Tensor, indices: Iterable[Tensor | None]) -> int:
    """Return the bytes of what indices take out of a tensor; a mask is an index to each place where it holds."""
    shapes: list[tuple[int, ...]] = []
    axes = 0
    kept = 1
    for index in indices:
        if index is None:
            kept, axes = kept * x.shape[axes], axes + 1
        elif index.dtype in (torch.bool, torch.uint8):
            shapes.append((int(index.count_nonzero()),))
            axes += index.dim()
        else:
            shapes.append(index.shape)
            axes += 1
    together = itertools.zip_longest((), *map(reversed, shapes), fillvalue=1)  # as they broadcast
    return math.prod(map(max, together)) * kept * math.prod(x.shape[axes:]) * x.itemsize


def _selected(x: Tensor, mask: Tensor) -> int:
    return math.prod(torch.broadcast_shapes(x.shape, mask.shape)) * x.itemsize


# Operations of which the values of an operand say how large the result is, or more than its elements and whole numbers:
# bytes, at most.
_BY_VALUES: Mapping[Any, Callable[..., int]] = {
    torch.ops.aten.repeat_interleave.Tensor: lambda repeats, **_: 8 * int(repeats.double().sum()),
    torch.ops.aten.bincount.default: lambda x, weights=None, least=0, **_: 8 * max(
        least, int(x.max()) + 1 if x.numel() else 0
    ),
    torch.ops.aten.diag_embed.default: lambda x, offset=0, *_: x.numel() * (x.shape[-1] + abs(offset)) * x.itemsize,
    torch.ops.aten.nonzero.default: lambda x: 8 * x.numel() * x.dim(),
    torch.ops.aten.masked_select.default: _selected,
    torch.ops.aten.index.Tensor: _indexed,
}  # fmt: skip


class CheckedSizes(TorchDispatchMode):
    """Within it an operation runs only if its results fit into memory: InputError says which does not.

    What is made of tensors has no more elements than the product of their sizes, their numbers of axes and the whole
    numbers among the arguments, or than their values say. Only where that many might not fit, and for what is made of
    numbers alone, is the shape of the result inferred, once for operands of the same shapes.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if by_values := _BY_VALUES.get(func):
            if not any(isinstance(x, Tensor) and x.is_meta for x in tree_leaves((args, kwargs))):  # without values
                with _disable_current_modes():
                    size = by_values(*args, **kwargs)
                check_fits(f"{func.overloadpacket.__name__}: a result", size, 1)
        elif not func.is_view and _may_be_large(func, args, kwargs):
            leaves, nesting = tree_flatten((args, kwargs))
            if not any(isinstance(x, Tensor) and x.is_meta for x in leaves):  # without values
                described = ((type(x), (x.shape, x.dtype) if isinstance(x, Tensor) else x) for x in leaves)
                _check(func, tuple(described), nesting)
        return func(*args, **kwargs)


# The products of layers, whose results are as quickly told as made: elements.
_PRODUCTS: Mapping[Any, Callable[..., int]] = {
    torch.ops.aten.mm.default: lambda a, b: a.shape[0] * b.shape[1],
    torch.ops.aten.addmm.default: lambda c, a, b: a.shape[0] * b.shape[1],
    torch.ops.aten.bmm.default: lambda a, b: a.shape[0] * a.shape[1] * b.shape[2],
    torch.ops.aten.baddbmm.default: lambda c, a, b: a.shape[0] * a.shape[1] * b.shape[2],
}


def _may_be_large(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    of_tensors = any(isinstance(x, Tensor) for x in args)
    return not of_tensors or _most_of(func, args, kwargs) * _WIDEST > physical_memory() // 2


def _most_of(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return a number of elements that the results of an operation do not exceed."""
    if product := _PRODUCTS.get(func):
        return product(*args)
    if torch.Tag.pointwise in func.tags:
        return math.prod(torch.broadcast_shapes(*(x.shape for x in args if isinstance(x, Tensor))))
    return _most((args, *kwargs.values()))


def _most(arguments: Iterable[Any]) -> int:
    """Return such a number for operations of which nothing is known but their arguments."""
    most = 1
    for x in arguments:
        if isinstance(x, Tensor):
            most *= (x.numel() or 1) * (x.dim() or 1)  # indices of elements are as many as there are axes
        elif type(x) is int:
            most *= abs(x) + 1
        elif isinstance(x, list | tuple):
            most *= _most(x)
    return most


@functools.lru_cache(maxsize=4096)
def _check(func: Any, leaves: tuple[Any, ...], nesting: TreeSpec) -> None:
    """Raise InputError where the results of an operation do not fit."""
    with _disable_current_modes():
        shapes = [torch.empty(x[0], dtype=x[1], device="meta") if issubclass(kind, Tensor) else x for kind, x in leaves]
        args, kwargs = tree_unflatten(shapes, nesting)
        if any(argument.name == "device" for argument in func._schema.arguments):
            kwargs["device"] = torch.device("meta")  # where tensors have shapes and nothing else
        try:
            results = func(*args, **kwargs)
        except (NotImplementedError, RuntimeError, ValueError, TypeError, IndexError) as error:
            if "overflow" in str(error):  # of the number of elements
                check_fits(f"{func.overloadpacket.__name__}: a result", 1 << 63, 1)
            return  # a shape that depends on values, or operands that do not fit each other
    for x in tree_leaves(results):
        if isinstance(x, Tensor):
            check_fits(f"{func.overloadpacket.__name__}: a result of shape {tuple(x.shape)}", x.numel(), x.itemsize)
