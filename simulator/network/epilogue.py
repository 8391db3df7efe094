"""The epilogue of a product: elementwise operations that take its results on their way from the MAC array to memory."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from simulator.cost import VectorOperation

from .leaves import tensors_in
from .storages import Storages
from .tap import Ran


class Epilogue:
    """Knows the results of the last product, and what elementwise operations in a row make of them.

    They are on their way until anything else reads them, which finds them in memory.
    """

    def __init__(self) -> None:
        self._coming = Storages()

    def clear(self) -> None:
        """Forget all, where a forward pass begins."""
        self._coming.clear()

    def note(self, ran: Ran, from_array: bool) -> None:
        """Take note of an operation that is not elementwise: of a product, whose results are on their way, or not."""
        if from_array:
            self._coming.clear()
            for x in tensors_in(ran.result):
                self._coming.add(x)
        else:
            for x in tensors_in((ran.args, ran.kwargs, ran.result)):
                self._coming.discard(x)

    def fused(self, ran: Ran, asked: VectorOperation) -> VectorOperation:
        """Return what an elementwise operation asks of the memory: neither what is on its way, nor room in its place.

        The product has paid for as many results as are on their way; a result that is larger goes to memory beyond.
        """
        taken = {id(x): x for x in tensors_in((ran.args, ran.kwargs)) if x in self._coming}.values()
        results = tensors_in(ran.result)
        if not taken:
            for x in results:
                self._coming.discard(x)
            return asked
        self._coming.clear()
        for x in results:
            self._coming.add(x)
        return replace(
            asked,
            inputs=max(asked.inputs - sum(x.numel() for x in taken), 0),
            outputs=max(asked.outputs - sum(_distinct(x) for x in taken), 0),
        )


def _distinct(x: Tensor) -> int:
    """Return the elements of a view in memory, each once however often it is repeated."""
    return math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride)
