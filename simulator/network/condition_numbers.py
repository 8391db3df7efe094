"""How badly conditioned the inner products of a network are: what two-pass accumulation rests on, layer by layer.

Of an output v = sum a b + c behind which the activation phi stands: kappa_v = (sum |a b| + |c|) / |v|, the condition
number of the inner product, and kappa = kappa_v |v phi'(v) / phi(v)|, that of both. The score kappa' = |phi' / phi| is
kappa without its numerator. Source: arXiv 2503.15568 and its public code.
"""

from __future__ import annotations

import math
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
from simulator.result import Conditions

from .batches import Batches, fixed_batch, passes
from .buffers import Buffers
from .calibrated_policy import rows_kept
from .consumers import Consumer, record_first_sample
from .emulation import Emulation
from .fit import named_failures
from .ops import FORWARD, Block, Op
from .tap import Tap

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
# A run takes them from so many samples, or one in so many of all if that is less: a few hundredths of its time.
SAMPLES, ONE_IN = 64, 8


def conditions_of_first(
    model: nn.Module,
    machine: Machine,
    layers: Mapping[str, Any] | None,
    data: Batches,
    at_once: int,
    seed: int,
    threads: int | None,
) -> tuple[tuple[Conditions, ...], int]:
    """Return the condition numbers of the first samples of a run, whose data no pass has read, and how many these are.

    Args:
        model, machine, layers, threads: as evaluate takes them. at_once: at most so many samples.
        seed: of what the model draws.
    """
    fixed = fixed_batch(model) or 1
    wanted = SAMPLES if data.total is None else min(SAMPLES, -(-data.total // ONE_IN))
    head = data.head(max(1, min(wanted, at_once) // fixed) * fixed).copy()  # in which a model may write
    with (
        torch.random.fork_rng(devices=[]),
        Buffers(model),
        named_failures(model, head.args, dict(head.kwargs), 0, head.samples, "exact"),
    ):
        torch.default_generator.manual_seed(seed)
        return tuple(condition_numbers(model, machine, head.args, head.kwargs, layers, threads)), head.samples


def condition_numbers(
    model: nn.Module,
    machine: Machine,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    layers: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> list[Conditions]:
    """Return the condition numbers of the layers that a machine emulates, in the order in which they run.

    Args:
        model: in the mode in which it runs. machine: whose low MAC and rules of layers count.
        args, kwargs: samples, as of a forward pass. layers: rules of layers before those of the machine.
        threads: at most so many; None for all processors available.
    """
    rules = Emulation(model, machine, layers).rules
    consumers = record_first_sample(model, model, args, dict(kwargs))
    found: dict[str, _Layer] = {}

    def execute(op: Op) -> Tensor | None:
        arithmetic = rules.arithmetic(op) if op.phase == FORWARD and op.macs else None
        if arithmetic is None or arithmetic.low is None or arithmetic.scaled:
            return None
        consumer = consumers.get(op.name, Consumer())
        layer = found.setdefault(op.name, _Layer(consumer))
        low = op.on(arithmetic.low)
        out = np.empty((op.gemms, op.m, op.n))
        for block in op.blocks(low):
            first = Accumulation(low, block.a, block.b, block.c, threads)
            sums, magnitudes = Product(first).exact
            out[block.gemm, block.rows] = sums
            layer.add(op, block, sums, magnitudes, first.dense()[0])
        return op.tensor(out)

    with torch.no_grad(), Tap(model, execute):
        for part, named in passes(model, args, kwargs):
            model(*part, **named)
    return [layer.conditions(name) for name, layer in found.items()]


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


def _percentiles(x: NDArray[np.float64]) -> dict[int, float | None]:
    known = x[~np.isnan(x)]
    if not known.size:
        return {}
    found = {percent: float(np.quantile(known, percent / 100, method="lower")) for percent in PERCENTS}
    return {percent: value if math.isfinite(value) else None for percent, value in found.items()}


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
