"""Which values are on their way from the MAC array to memory, so that the vector unit takes them as they pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from simulator.cost import VectorOperation

from .tap import Ran


class Coming:
    """The results of the last product, and what elementwise operations in a row make of them.

    Tensors are known by their storage, so that a view is what it shows. One that is freed may leave its place to
    another, which some operation has given: from then on that is known for what it is.
    """

    def __init__(self) -> None:
        self._places: set[int] = set()

    def clear(self) -> None:
        """Forget all, where a forward pass begins."""
        self._places.clear()

    def note(self, ran: Ran, from_array: bool) -> None:
        """Take what an operation gives, that of the array as coming."""
        if from_array:
            self._places = {_place(tensor) for tensor in _tensors(ran.result)}
        else:
            self._places.difference_update(_place(tensor) for tensor in _tensors(ran.result))

    def passed(self, ran: Ran, asked: VectorOperation) -> VectorOperation:
        """Return what an elementwise operation asks of the memory: nothing for what comes, and for its own result."""
        coming = {id(x): x.numel() for x in _tensors((ran.args, ran.kwargs)) if _place(x) in self._places}
        results = {_place(tensor) for tensor in _tensors(ran.result)}
        if not coming:
            self._places -= results
            return asked
        self._places = results
        return replace(asked, inputs=max(asked.inputs - sum(coming.values()), 0), outputs=0)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.numel())


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
