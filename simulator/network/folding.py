"""Batch normalisation folded into the weights of the product before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulator.errors import InputError

from .consumers import BATCH_NORMS, Affine, Normalisation
from .leaves import tensors_in
from .ops import Op
from .tap import Ran


def folded(op: Op, affine: Affine) -> Op:
    """Return an Op with scaled weights and a shifted addend, each rounded once, from float64 to the weights' type."""
    scale, shift = (np.stack([op.columns(x, gemm) for gemm in range(op.gemms)])[:, None] for x in affine)
    a, b = op.operands
    addend = shift if op.addend is None else op.addend.astype(np.float64) * scale + shift
    weight = (b.astype(np.float64) * op.columns_onto_b(affine[0])).astype(b.dtype)
    return op.with_operands(a, weight, addend.astype(b.dtype))


class Folding:
    """Lets the batch normalisations be skipped whose input has been normalised by folded weights.

    Whatever else reads such a result would take it for what the product gives; so that is refused.
    """

    def __init__(self) -> None:
        # By the address of the tensor that waits: the layer, and what was folded into its weights.
        self._waiting: dict[int, tuple[str, Affine]] = {}

    def clear(self) -> None:
        """Begin a forward pass."""
        self._waiting.clear()

    def note(self, layer: str, normalised: Tensor, affine: Affine) -> None:
        """Remember the result of an Op with folded weights."""
        self._waiting[normalised.data_ptr()] = layer, affine

    def skip(self, func: Any, args: tuple[Any, ...]) -> Any:
        """Return what a batch normalisation gives whose work is done; None if it is another operation.

        Raises:
            InputError: it normalises by the batch, or not as it did when the weights were folded, or gradients are
                wanted, which folded weights do not have.
        """
        name = func.overloadpacket.__name__ if isinstance(func, torch._ops.OpOverload) else ""
        if not self._waiting or name not in BATCH_NORMS or args[0].data_ptr() not in self._waiting:
            return None
        x = args[0]
        _, affine = self._waiting.pop(x.data_ptr())
        if name == "native_batch_norm" and args[5]:
            raise InputError(
                "batch_norm: folded: got a batch normalisation in training mode; expected running statistics, which "
                "can be folded; call model.eval(), or write batch_norm: separate"
            )
        if torch.is_grad_enabled() and x.requires_grad:
            raise InputError(
                "batch_norm: folded: got a forward pass whose gradients are wanted; expected inference; run it under "
                "torch.no_grad(), or write batch_norm: separate"
            )
        own = Normalisation.of(name, args).affine
        if not all(np.array_equal(now, then) for now, then in zip(own, affine, strict=True)):
            raise InputError(
                "batch_norm: folded: got another batch normalisation than in the recording pass; expected the same one "
                "for the same layer; write batch_norm: separate"
            )
        return x.clone(), x.new_empty(0), x.new_empty(0)

    def check(self, ran: Ran) -> None:
        """Raise InputError if an operation read what waits for its normalisation."""
        if not self._waiting:
            return
        for x in tensors_in((ran.args, ran.kwargs)):
            if x.layout is torch.strided and x.data_ptr() in self._waiting:
                self._refuse(x.data_ptr(), f"{ran.func.__name__} reads its result")

    def end(self) -> None:
        """Raise InputError if a forward pass ends while a result waits for its normalisation."""
        for at in self._waiting:
            self._refuse(at, "its result leaves the model")

    def _refuse(self, at: int, why: str) -> None:
        layer, _ = self._waiting[at]
        self._waiting.clear()
        raise InputError(
            f"batch_norm: folded: {layer}: {why} before the batch normalisation that was folded into it; expected the "
            "same operations as in the first forward pass; write batch_norm: separate"
        )
