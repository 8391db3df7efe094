"""What the nodes of an ONNX graph see: names of tensors in the file, of values around them, and in which order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from simulator.errors import InputError

from .model_scales import ModelScales

GRAPH = onnx.AttributeProto.GRAPH
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Constant:
    """A tensor that the file holds.

    Args:
        name: in the file. tensor: its values. is_weight: whether it may be one, which training changes.
    """

    def __init__(self, name: str, tensor: Tensor, is_weight: bool = True) -> None:
        self.name, self.tensor, self._is_weight = name, tensor, is_weight
        self._weight: nn.Parameter | None = None

    def used(self, as_weight: bool) -> Tensor:
        """Return it for one use: the one parameter that all its users share if it is a weight.

        That are floats with an axis, all of them finite: a number alone is part of a formula, and infinities are masks.
        """
        as_weight = as_weight and self._is_weight
        if as_weight and self._weight is None and self.tensor.dim() and self.tensor.dtype in _FLOATS:
            extremes = torch.stack(self.tensor.float().aminmax()) if self.tensor.numel() else torch.zeros(2)
            if bool(extremes.isfinite().all()):
                self._weight = nn.Parameter(self.tensor)
        return self._weight if as_weight and self._weight is not None else self.tensor


@dataclass
class Scope:
    """What nodes see: of a graph, of a function, or of a subgraph within one of them.

    Args:
        versions: of the opsets, by domain. where: which graph it is, for messages; empty for that of the file.
        attributes: of the call of a function, to which its nodes refer. outer: the scope around a subgraph.
        constants: tensors of the file by their names here. values: names of what is computed here or given.
        scales: of values that are made of integers, by their names here.
    """

    versions: Mapping[str, int]
    where: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outer: Scope | None = None
    constants: dict[str, Constant] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    scales: dict[str, ModelScales] = field(default_factory=dict)

    def constant(self, name: str) -> Constant | None:
        """Return the constant of a name here or around; None of what is computed, and of what nobody knows."""
        if name in self.constants:
            return self.constants[name]
        return None if name in self.values or self.outer is None else self.outer.constant(name)

    def scales_of(self, name: str) -> ModelScales | None:
        """Return the scales of a value of a name here or around; None of any other."""
        if name in self.scales:
            return self.scales[name]
        known_here = name in self.values or name in self.constants
        return None if known_here or self.outer is None else self.outer.scales_of(name)

    def knows(self, name: str) -> bool:
        """Whether a name stands for something, here or around."""
        return name in self.values or name in self.constants or (self.outer is not None and self.outer.knows(name))

    def place(self, number: int, node: Any) -> str:
        """Say which node of the graph one is: node 12 /conv1/Conv (Conv)."""
        named = f" {node.name}" if node.name else ""
        return f"{self.where}{', ' if self.where else ''}node {number}{named} ({node.op_type})"


def in_order(path: str, nodes: Sequence[Any], scope: Scope) -> list[tuple[int, Any]]:
    """Return the nodes of a graph with their numbers, each behind those that it reads and else as in the file.

    Args:
        path: of the file, for messages. scope: of the graph, which from then on knows what the nodes compute.
    Raises:
        InputError: a name that is defined twice, or not at all; nodes in a circle.
    """
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers or name in scope.values or name in scope.constants:
                raise InputError(
                    f"{path}: {scope.place(i, node)}: its output {name} is defined already; expected new names; export "
                    "the network anew"
                )
            makers[name] = i
    readers: list[list[int]] = [[] for _ in nodes]
    waiting = [0] * len(nodes)
    for i, node in enumerate(nodes):
        for name in dict.fromkeys((*filter(None, node.input), *seen_around(node))):
            if name in makers:
                readers[makers[name]].append(i)
                waiting[i] += 1
            elif not scope.knows(name):
                raise InputError(
                    f"{path}: {scope.place(i, node)}: reads {name}, which nothing defines; expected an input, a tensor "
                    "of the file or an output of another node; export the network anew"
                )
    ready = [i for i, count in enumerate(waiting) if not count]  # in order, so that it is a heap
    ordered = []
    while ready:
        i = heapq.heappop(ready)
        ordered.append((i, nodes[i]))
        for reader in readers[i]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(ordered) < len(nodes):
        first = next(i for i, count in enumerate(waiting) if count)
        raise InputError(
            f"{path}: {scope.place(first, nodes[first])}: waits for its own output, or for a node that does "
            f"({len(nodes) - len(ordered)} nodes do); expected a graph without circles; export the network anew"
        )
    scope.values.update(makers)
    return ordered


def seen_around(node: Any) -> Iterable[str]:
    """Yield the names that the subgraphs of a node see around them."""
    for one in node.attribute:
        if one.type == GRAPH:
            yield from seen(one.g)


def seen(graph: Any) -> Iterable[str]:
    """Yield the names that a subgraph reads and does not define."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        yield from (name for name in (*filter(None, node.input), *seen_around(node)) if name not in own)
    yield from (value.name for value in graph.output if value.name not in own)
