"""Operators on sequences, which are lists here, and on optionals, which are a value or None."""

from __future__ import annotations

import torch
from torch import Tensor

from .registry import Declined, Graph, Node, Value, operator
from .types import torch_type


@operator("SequenceEmpty", since=11)
def _empty(node: Node) -> list[Tensor]:
    torch_type(node.get("dtype", 1))
    return []


@operator("SequenceConstruct", since=11)
def _construct(node: Node, *tensors: Tensor) -> list[Tensor]:
    return list(tensors)


@operator("SequenceLength", since=11)
def _length(node: Node, sequence: list[Tensor]) -> Tensor:
    return torch.tensor(len(sequence))


@operator("SequenceAt", since=11)
def _at(node: Node, sequence: list[Tensor], position: Tensor) -> Tensor:
    return sequence[_within(position, len(sequence))]


@operator("SequenceInsert", since=11)
def _insert(node: Node, sequence: list[Tensor], tensor: Tensor, position: Tensor | None = None) -> list[Tensor]:
    at = len(sequence) if position is None else _within(position, len(sequence) + 1, len(sequence))
    return [*sequence[:at], tensor, *sequence[at:]]


@operator("SequenceErase", since=11)
def _erase(node: Node, sequence: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    at = _within(torch.tensor(-1) if position is None else position, len(sequence))
    return [*sequence[:at], *sequence[at + 1 :]]


@operator("SplitToSequence", since=11)
def _split(node: Node, x: Tensor, split: Tensor | None = None) -> list[Tensor]:
    axis = node.get("axis", 0)
    if split is None:
        parts = x.split(1, axis)
        return [part if node.get("keepdims", 1) else part.squeeze(axis) for part in parts]
    sizes = split.tolist()
    return list(x.split(sizes, axis))


@operator("ConcatFromSequence", since=11)
def _concat(node: Node, sequence: list[Tensor]) -> Tensor:
    if not sequence:
        raise Declined("an empty sequence, which has no shape")
    axis = node.get("axis")
    return torch.stack(sequence, axis) if node.get("new_axis", 0) else torch.cat(sequence, axis)


@operator("SequenceMap", since=17)
def _map(node: Node, sequence: list[Tensor], *others: Value) -> tuple[list[Value], ...]:
    body: Graph = node.get("body")
    lengths = {len(other) for other in others if isinstance(other, list)} | {len(sequence)}
    if len(lengths) > 1:
        raise Declined(f"sequences of the lengths {', '.join(map(str, sorted(lengths)))}")
    outputs: list[list[Value]] = [[] for _ in node.outputs]
    for i, tensor in enumerate(sequence):
        results = body(tensor, *(other[i] if isinstance(other, list) else other for other in others))
        for output, result in zip(outputs, results, strict=True):
            output.append(result)
    return tuple(outputs)


@operator("Optional", since=15)
def _optional(node: Node, x: Value = None) -> Value:
    return x


@operator("OptionalHasElement", since=15)
def _has_element(node: Node, x: Value = None) -> Tensor:
    return torch.tensor(x is not None)


@operator("OptionalGetElement", since=15)
def _get_element(node: Node, x: Value) -> Value:
    if x is None:
        raise Declined("an optional without value")
    return x


def _within(position: Tensor, length: int, beyond: int | None = None) -> int:
    """Return a position of a sequence, counted from its end if it is negative.

    Args:
        length: how many positions there are. beyond: what negative ones count from; None for the length.
    """
    at = int(position)
    counted = at + (length if beyond is None else beyond) if at < 0 else at
    if not 0 <= counted < length:
        raise Declined(f"position {at} of a sequence with {length}")
    return counted
