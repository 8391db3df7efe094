"""What is made of weights once, their scales and quantised operands, and kept while the weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .leaves import tensors_in
from .ops import Op
from .storages import plain
from .tap import Ran

Made = TypeVar("Made")


def samples_of(args: Any, kwargs: Any) -> int:
    """Return how many samples a forward pass has: the length of its first tensor, 1 without one."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
    return tensors[0].shape[0] if tensors else 1


class _Kept(NamedTuple):
    """What was made of a weight: the array itself keeps its memory, from `first` to `end`, from any other use."""

    weight: NDArray[Any]
    first: int
    end: int
    made: Any


class Weights:
    """Keeps what is made of a model's parameters and buffers.

    An entry holds until torch writes to the weight's memory while the tap watches, or until `forget`; numpy arrays
    that share this memory, and other threads, must leave it alone meanwhile.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._memory: dict[int, int] = {}
        self._kept: dict[tuple[object, ...], _Kept] = {}

    def look(self) -> None:
        """Look where the weights lie; to be called whenever they may have moved."""
        tensors = (*self._model.parameters(), *self._model.buffers())
        storages = [x.untyped_storage() for x in tensors if plain(x)]
        self._memory = {storage.data_ptr(): storage.nbytes() for storage in storages}

    def forget(self) -> None:
        """Forget all."""
        self._kept.clear()

    def keep(self, weight: NDArray[Any], what: Any, make: Callable[[], Made]) -> Made:
        """Return what `make` makes of a weight, from an earlier time if nothing has changed.

        Args:
            weight: the array as the network has it. what: is made, and from what else.
        """
        if not self.holds(weight):
            return make()
        key = (weight.ctypes.data, weight.shape, weight.strides, weight.dtype, what)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(weight, *byte_bounds(weight), make())
        made: Made = kept.made
        return made

    def observe(self, ran: Ran) -> None:
        """Forget what an operation has written to."""
        if not self._kept or not isinstance(ran.func, torch._ops.OpOverload) or not ran.func._schema.is_mutable:
            return
        written = [
            (storage.data_ptr(), storage.data_ptr() + storage.nbytes())
            for x in tensors_in((ran.args, ran.kwargs))
            if plain(x) and (storage := x.untyped_storage())
        ]
        for key, kept in list(self._kept.items()):
            if any(start < kept.end and kept.first < stop for start, stop in written):
                del self._kept[key]

    def unstack(self, op: Op, samples: int) -> None:
        """Take what einsum makes a stack of, though it is a layer or has one for each head, for what it is: its rows
        count samples, not its products.
        """
        if op.batched and (op.gemms % max(1, samples) or (op.gemms == 1 and self.holds(op.operands[1]))):
            op.batched = False

    def holds(self, weight: NDArray[Any]) -> bool:
        """Whether an array lies in the memory of a parameter or buffer."""
        return self._within(byte_bounds(weight)[0])

    def has(self, x: Tensor) -> bool:
        """Whether a tensor lies in the memory of a parameter or buffer."""
        return plain(x) and self._within(x.untyped_storage().data_ptr())

    def _within(self, at: int) -> bool:
        return any(start <= at < start + size for start, size in self._memory.items())
