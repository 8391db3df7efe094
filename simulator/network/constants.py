"""Which tensors depend on no sample: masks, positions and the like, which a compiler prepares before anything runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .leaves import tensors_in
from .storages import Storages
from .tap import Ran


class Constants:
    """Knows the memory of the model's own tensors, and of what is made of these or of nothing.

    Args:
        own: whether a tensor is one of the model's parameters or buffers.
    """

    def __init__(self, own: Callable[[Tensor], bool]) -> None:
        self._own = own
        self._made = Storages()

    def forget_freed(self) -> None:
        """Forget the memory that has been freed."""
        self._made.forget_freed()

    def holds(self, x: Tensor) -> bool:
        """Whether a tensor depends on no sample."""
        return self._own(x) or x in self._made

    def note(self, ran: Ran) -> bool:
        """Take note of what an operation wrote; return whether it depends on no sample.

        What has a gradient is no constant: the weights that it is made of change from step to step.
        """
        operands = tensors_in((ran.args, ran.kwargs))
        learns = torch.is_grad_enabled() and any(x.requires_grad for x in operands)
        constant = not learns and all(self.holds(x) for x in operands)
        for x in tensors_in(ran.result):
            if constant:
                self._made.add(x)
            else:
                self._made.discard(x)
        return constant
