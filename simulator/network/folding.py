"""Batch normalisation folded into the weights of the product before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulator.errors import InputError

from .consumers import BATCH_NORMS, Affine, affine_of
from .ops import Op


def folded(op: Op, affine: Affine) -> Op:
    """Return an Op with scaled weights and a shifted addend, each rounded once to the weight's type from float64."""
    scale, shift = (np.stack([op.columns(x, gemm) for gemm in range(op.gemms)])[:, None] for x in affine)
    a, b = op.operands
    addend = shift if op.addend is None else op.addend.astype(np.float64) * scale + shift
    weight = (b.astype(np.float64) * op.columns_onto_b(affine[0])).astype(b.dtype)
    return op.with_operands(a, weight, addend.astype(b.dtype))


class Folding:
    """Lets the batch normalisations be skipped whose input has been normalised by folded weights."""

    def __init__(self) -> None:
        self._done: dict[int, Affine] = {}  # by the address of the tensor that waits for its normalisation

    def clear(self) -> None:
        """Begin a forward pass."""
        self._done.clear()

    def note(self, normalised: Tensor, affine: Affine) -> None:
        """Remember the result of an Op with folded weights."""
        self._done[normalised.untyped_storage().data_ptr()] = affine

    def skip(self, func: Any, args: tuple[Any, ...]) -> Any:
        """Return what a batch normalisation gives whose work is done; None if it is another operation.

        Raises:
            InputError: it normalises by the batch, or not as it did when the weights were folded, or gradients are
                wanted, which folded weights do not have.
        """
        name = func.overloadpacket.__name__ if isinstance(func, torch._ops.OpOverload) else ""
        if not self._done or name not in BATCH_NORMS:
            return None
        x = args[0]
        at = x.untyped_storage().data_ptr()
        if at not in self._done:
            return None
        affine = self._done.pop(at)
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
        if not all(np.array_equal(now, then) for now, then in zip(affine_of(name, args), affine, strict=True)):
            raise InputError(
                "batch_norm: folded: got a batch normalisation that has changed since it was folded; expected the same "
                "parameters and statistics; begin a new emulation"
            )
        return x.clone(), x.new_empty(0), x.new_empty(0)
