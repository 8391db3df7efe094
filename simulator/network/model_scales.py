"""Scales that a quantised model has for the operands of its products, and whether a machine can take them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from formats import Use

from .ops import Op


@dataclass(frozen=True)
class ModelScales:
    """Scales of a tensor whose values a model makes of integers; used as a Scaling is, where they are an operand's.

    Args:
        scales: float32, one for the tensor or one for each place along an axis.
        low, high: the least and the largest integer that a scale is multiplied by, the zero point taken off.
        axis: along which there are several. rank: of the tensor; None where the file does not say it.
        refusal: why no operand of a product can have them, in words; empty if one can.
        kinds: of Ops that have the tensor as the operand that it is of the model's; empty for all.
    """

    scales: tuple[float, ...]
    low: int
    high: int
    axis: int | None = None
    rank: int | None = None
    refusal: str = ""
    kinds: frozenset[str] = frozenset()

    when = "model"
    block = 0

    @property
    def per(self) -> str:
        """What shares a scale, in the words of a Scaling; of several they are the output channels'."""
        return "tensor" if self.axis is None else "channel"

    def __str__(self) -> str:
        return f"per {self.per}, the model's"

    def refused(self, op: Op, use: Use) -> str:
        """Return why an operand of an Op in a use does not have these scales; empty if it has."""
        if self.refusal:
            return self.refusal
        if self.kinds and op.kind not in self.kinds:
            return f"a product computed as {op.kind}, which may exchange its operands"
        if not _holds(use, self.low, self.high):
            return f"integers from {self.low} to {self.high} less the zero point, which {use.format.name} does not hold"
        return ""

    def of(self, op: Op, which: int) -> NDArray[np.float32]:
        """Return the scales as they broadcast to operand a (0) or b (1) of an Op, an axis for each of its own."""
        scales = np.array(self.scales, np.float32)
        return scales.reshape((1,) * op.operands[which].ndim) if self.axis is None else op.columns_onto_b(scales)


Operands = tuple[ModelScales | None, ModelScales | None]


class ScaledByModel(nn.Module):
    """A module whose product may have scales of the model's own for its operands a and b."""

    operand_scales: Operands = (None, None)


def model_scales(model: nn.Module) -> Mapping[str, Operands]:
    """Return the scales that a model has for operands, by path of the module that multiplies them."""
    return {
        path: module.operand_scales
        for path, module in model.named_modules()
        if isinstance(module, ScaledByModel) and any(module.operand_scales)
    }


@functools.cache
def _holds(use: Use, low: int, high: int) -> bool:
    """Whether a format holds all integers of a range."""
    if use.format.has_blocks:
        return False
    integers: NDArray[Any] = np.arange(low, high + 1, dtype=np.float64)
    return bool(np.array_equal(use.format.quantize(integers), integers))
