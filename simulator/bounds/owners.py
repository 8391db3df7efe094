"""Which sample each element of a value belongs to.

(B43) An element belongs to the only sample that it depends on: the graph runs with NaN in the place of some samples,
and what becomes NaN depends on one of them, as every operation that has a rule hands NaN on. Twice for each binary
digit of a sample's number, for the samples that have it and for those that do not: what depends on two samples becomes
NaN both times for some digit. Constants among values, and what pads, belong where they lie: any share-out will do in
which no operation mixes samples and the rows of the output are the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from simulator.errors import InputError

from .graph import AT_VALUES, ROUND, Graph, Node, Ref
from .moves import called


def owners(graph: Graph, shapes: Mapping[int, torch.Size]) -> Mapping[int, Tensor]:
    """Return the sample of every element, by number of the value.

    Args:
        shapes: of the values that have bounds, by number; those of the inputs are (samples, ...).
    Raises:
        InputError: an operation that mixes samples, or depends on none, or an output whose rows are not the samples.
    """
    samples = shapes[graph.inputs[0]][0]
    number = torch.arange(samples)
    found = {n: torch.zeros(shape, dtype=torch.int64) for n, shape in shapes.items()}
    for digit in range((samples - 1).bit_length()):
        has = (number >> digit) & 1 == 1
        with_it, without = _depends(graph, shapes, has), _depends(graph, shapes, ~has)
        for node in graph.nodes:
            made = [n for n in node.outputs if n is not None and n in with_it]
            if any(bool((~with_it[n] & ~without[n]).any()) for n in made):
                raise InputError(
                    f"bounds: {node.path}: {node.kind} gives values that depend on no sample; expected none but "
                    "constants of the model; certify samples one by one"
                )
            if any(bool((with_it[n] & without[n]).any()) for n in made):
                raise InputError(
                    f"bounds: {node.path}: {node.kind} mixes samples; expected operations on each sample alone, "
                    "whose answers are those of any batch; certify samples one by one if they run so"
                )
        for n, owner in found.items():
            owner += with_it[n].long() << digit
    if bool((found[graph.output] != number.reshape(-1, *(1,) * (found[graph.output].dim() - 1))).any()):
        raise InputError(
            "bounds: the rows of the output are not the samples in their order; expected (samples, classes); certify "
            "samples one by one"
        )
    return found


def _depends(graph: Graph, shapes: Mapping[int, torch.Size], some: Tensor) -> dict[int, Tensor]:
    """Return which elements depend on some of the samples."""
    values = {number: torch.ones(shapes[number], dtype=torch.float64) for number in graph.inputs}
    for x in values.values():
        x[some] = torch.nan
    for node in graph.nodes:
        if any(number in shapes for number in node.outputs):
            results = [values[node.inputs[0]]] if node.kind == ROUND else tree_leaves(_run(node, values))
            for number, y in zip(node.outputs, results, strict=True):
                if number is not None and number in shapes:
                    # 1 elsewhere, of which no operation makes NaN by itself.
                    values[number] = torch.where(y.isnan(), torch.nan, torch.ones_like(y))
    return {number: value.isnan() for number, value in values.items()}


def _run(node: Node, values: Mapping[int, Tensor]) -> Any:
    """Return what an operation makes of values, in float64."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return values[leaf.number].clone()  # that it may write to
        return leaf.detach().double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    if node.known is not None or node.kind == "where":  # whatever is picked, or decided, it reads all of its operands
        read = [values[number].expand(node.shapes[0]) for number in node.inputs]
        return torch.stack(read).sum(0)
    if node.kind == "embedding" or node.kind.endswith(AT_VALUES):
        places = values[node.inputs[0]]
        inner = (1,) * (len(node.shapes[0]) - places.dim())
        return places.reshape(*places.shape, *inner).expand(node.shapes[0])
    args, kwargs = tree_map(one, (node.args, dict(node.kwargs)), is_leaf=lambda leaf: isinstance(leaf, Ref))
    if node.kind in ("cat", "stack"):
        args = (_beside(node, args[0], *args[1:]), *args[1:])
    result = called(node, args, kwargs)
    if node.kind == "constant_pad_nd":
        first = result.dim() - len(args[1]) // 2
        return _spread(result, tuple(range(first, result.dim())))
    if node.kind == "convolution":  # some of its outputs may read nothing but what pads
        return _spread(result, tuple(range(1, result.dim())))
    return result


def _beside(node: Node, parts: list[Tensor], axis: int = 0) -> list[Tensor]:
    """Return what is joined, constants NaN where a value beside them is."""
    values = [x for x, arg in zip(parts, node.args[0], strict=True) if isinstance(arg, Ref)]
    beside = values[0] if node.kind == "stack" else _spread(values[0], (axis,)).narrow(axis, 0, 1)
    return [
        x if isinstance(arg, Ref) or x.numel() == 0 else torch.where(beside.isnan(), torch.nan, x)
        for x, arg in zip(parts, node.args[0], strict=True)
    ]


def _spread(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return a tensor, NaN wherever there is a NaN along some axes."""
    return torch.where(x.isnan().any(axes, keepdim=True) if axes else x.isnan(), torch.nan, x)
