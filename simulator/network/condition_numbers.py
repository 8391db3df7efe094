"""How badly conditioned the inner products of a network are: what two-pass accumulation rests on, layer by layer.

Of an output v = sum a b + c behind which the activation phi stands: kappa_v = (sum |a b| + |c|) / |v|, the condition
number of the inner product, and kappa = kappa_v |v phi'(v) / phi(v)|, that of both. The score kappa' = |phi' / phi| is
kappa without its numerator. Source: arXiv 2503.15568 and its public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.arithmetic.engine import Accumulation
from simulator.arithmetic.scores import Product, kappa_of
from simulator.hardware import Machine

from .batches import passes
from .calibrated_policy import rows_kept
from .consumers import Consumer, record_first_sample
from .emulation import Emulation
from .ops import FORWARD, Block, Op
from .tap import Tap

PERCENTS = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class Conditions:
    """The condition numbers of a layer's outputs along an exact run.

    Args:
        layer: its name. activation: what consumes it. outputs: how many were looked at.
        active: share of them that the activation passes on, kappa' > 0; kappa and kappa_v are of these alone.
        kappa, kappa_v: percentiles by percent, see PERCENTS; infinite where v is 0.
        numerator: mean of sum |a b| + |c|. numerator_variation: standard deviation over mean, of all outputs.
        rank_correlation: of kappa' with the relative error of a low pass over the same operands (Spearman); None where
            one of them is the same throughout.
    """

    layer: str
    activation: str
    outputs: int
    active: float
    kappa: Mapping[int, float]
    kappa_v: Mapping[int, float]
    numerator: float
    numerator_variation: float
    rank_correlation: float | None


def condition_numbers(
    model: nn.Module, machine: Machine, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Conditions]:
    """Return the condition numbers of the layers that a machine emulates, in the order in which they run.

    Args:
        model: in the mode in which it runs. machine: whose low MAC and rules of layers count.
        args, kwargs: samples, as of a forward pass.
    """
    rules = Emulation(model, machine).rules
    consumers = record_first_sample(model, model, args, dict(kwargs))
    layers: dict[str, _Layer] = {}

    def execute(op: Op) -> Tensor | None:
        arithmetic = rules.arithmetic(op) if op.phase == FORWARD and op.macs else None
        if arithmetic is None or arithmetic.low is None or arithmetic.scaled:
            return None
        consumer = consumers.get(op.name, Consumer())
        layer = layers.setdefault(op.name, _Layer(consumer))
        low = op.on(arithmetic.low)
        out = np.empty((op.gemms, op.m, op.n))
        for block in op.blocks(low):
            first = Accumulation(low, block.a, block.b, block.c)
            sums, magnitudes = Product(first).exact
            out[block.gemm, block.rows] = sums
            layer.add(op, block, sums, magnitudes, first.dense()[0])
        return op.tensor(out)

    with torch.no_grad(), Tap(model, execute):
        for part, named in passes(model, args, kwargs):
            model(*part, **named)
    return [layer.conditions(name) for name, layer in layers.items()]


@dataclass
class _Layer:
    """Outputs of a layer: what its activation gets, the numerators, kappa' and the errors of the low pass."""

    consumer: Consumer
    parts: list[tuple[NDArray[np.float64], ...]] = field(default_factory=list)

    def add(self, op: Op, block: Block, sums: NDArray[Any], magnitudes: NDArray[Any], low: NDArray[Any]) -> None:
        affine, rows = self.consumer.affine, rows_kept(op, block)
        scale, shift = (1.0, 0.0) if affine is None else (op.columns(f, block.gemm) for f in affine)
        v, found = (x[rows].astype(np.float64) * scale + shift for x in (sums, low))
        self.parts.append((v, np.abs(scale) * magnitudes[rows] + np.abs(shift), found - v))

    def conditions(self, name: str) -> Conditions:
        """Return what they say."""
        v, numerator, error = (np.concatenate([part[i].ravel() for part in self.parts]) for i in range(3))
        score = kappa_of(v, self.consumer.activation)
        active = score > 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            kappa, kappa_v = (score * numerator)[active], (numerator / np.abs(v))[active]
            relative = np.abs(error / v)
        known = active & np.isfinite(relative) & np.isfinite(score)
        mean = float(numerator.mean())
        return Conditions(
            name, self.consumer.activation, v.size, float(active.mean()), _percentiles(kappa), _percentiles(kappa_v),
            mean, float(numerator.std() / mean) if mean else 0.0, _rank_correlation(score[known], relative[known]),
        )  # fmt: skip


def _percentiles(x: NDArray[np.float64]) -> dict[int, float]:
    known = x[~np.isnan(x)]
    if not known.size:
        return {}
    return {percent: float(np.quantile(known, percent / 100, method="lower")) for percent in PERCENTS}


def _rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Return Spearman's correlation, equal values with their mean rank."""
    if x.size < 2 or x.min() == x.max() or y.min() == y.max():
        return None
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[which]
    return ranks
