"""The graph of a forward pass: the operations that depend on its inputs, as the tap sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from simulator.errors import InputError
from simulator.network.outputs import output_of
from simulator.network.tap import Ran, Tap


class Ref(NamedTuple):
    """A value of the graph, by number; what an operation reads besides is constant."""

    number: int


@dataclass(frozen=True)
class Node:
    """An operation.

    Args:
        kind: its name in aten, without overload and without _ behind it. func: what torch's dispatcher calls.
        args, kwargs: with a Ref for each value of the graph. outputs: numbers of its tensors; None for what is none.
        shapes: of these. path: of the module that it belongs to. layer: name of the product, if it is one, and
            terms, how many products each of its sums has.
    """

    kind: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    shapes: tuple[torch.Size, ...]
    path: str
    layer: str = ""
    terms: int = 0

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the values that it reads, in the order in which it does."""
        return tuple(leaf.number for leaf in _leaves((self.args, self.kwargs)) if isinstance(leaf, Ref))


@dataclass(frozen=True)
class Graph:
    """A forward pass: values with these numbers are its inputs and its output, the nodes are in the order in which they
    run.
    """

    inputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    output: int


def record(model: nn.Module, x: Tensor) -> Graph:
    """Return the graph of a model's forward pass on a batch.

    Raises:
        InputError: what depends on its inputs in a way that no graph shows, such as writing into a part of a tensor.
    """
    recorder = _Recorder()
    number = recorder.new(x)
    with torch.no_grad(), Tap(model, lambda op: None, recorder.note):
        y = output_of(model(x))
    found = recorder.of(y)
    if found is None:
        raise InputError("bounds: the output does not depend on the input; expected a network of one input")
    return Graph((number,), tuple(recorder.nodes), found)


class _Recorder:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Tensor] = []  # so that no other tensor has its address
        self._next = 0

    def new(self, tensor: Tensor) -> int:
        self._numbers[id(tensor)] = self._next
        self._kept.append(tensor)
        self._next += 1
        return self._next - 1

    def of(self, tensor: Tensor) -> int | None:
        return self._numbers.get(id(tensor))

    def note(self, ran: Ran) -> None:
        if not any(isinstance(x, Tensor) and id(x) in self._numbers for x in _leaves((ran.args, ran.kwargs))):
            return
        name = str(ran.func.overloadpacket.__name__) if isinstance(ran.func, torch._ops.OpOverload) else str(ran.func)
        results = tree_leaves(ran.result)
        if not any(isinstance(x, Tensor) for x in results):
            return  # a question about shapes or types
        args, kwargs = tree_map(self._ref, (ran.args, dict(ran.kwargs)))
        written = isinstance(ran.func, torch._ops.OpOverload) and ran.func._schema.is_mutable
        if written and name != "native_batch_norm" and (not name.endswith("_") or self._is_shared(ran.args[0])):
            raise InputError(
                f"bounds: {ran.path}: {name} writes into a part of a tensor; expected operations that return their "
                "result; write it so"
            )
        outputs = tuple(self.new(x) if isinstance(x, Tensor) else None for x in results)
        shapes = tuple(x.shape if isinstance(x, Tensor) else torch.Size() for x in results)
        product = (ran.ops[0].name, ran.ops[0].k) if ran.ops else ()
        self.nodes.append(Node(name.removesuffix("_"), ran.func, args, kwargs, outputs, shapes, ran.path, *product))

    def _ref(self, x: Any) -> Any:
        return Ref(self._numbers[id(x)]) if isinstance(x, Tensor) and id(x) in self._numbers else x

    def _is_shared(self, x: Any) -> bool:
        """Whether another tensor of the graph shows the memory of this one."""
        return isinstance(x, Tensor) and any(
            other is not x and other.untyped_storage()._cdata == x.untyped_storage()._cdata for other in self._kept
        )


def _leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves, a Ref being one."""
    yield from tree_leaves(tree, is_leaf=lambda x: isinstance(x, Ref))
