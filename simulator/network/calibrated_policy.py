"""What of a two-pass policy is calibrated on samples: the score sensitivity, and the shares of a network's budget.

In low-precision accumulation the absolute error of an inner product grows with its partial sums, hardly with the
smallness of its result. So the score that weighs absolute errors is measured: of each layer the root mean square error
of the first pass where the activation gets v, by bins of v, and how the errors of each column compare with these; and
of each column the root mean square change of the network's outputs (2-norm) for a unit change behind the activation,
from backward passes with random signs (Hutchinson's estimate of a sum of squares). A threshold on the scores of all
layers then shares out a budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.arithmetic.activations import SLOPE
from simulator.arithmetic.bins import Bins
from simulator.arithmetic.criterion import Criterion
from simulator.arithmetic.engine import Accumulation
from simulator.arithmetic.scores import OF_LOGITS, OF_SAMPLES, Product, Seen, Sensitivity, score_of
from simulator.errors import InputError

from .batches import passes
from .consumers import Consumer
from .execution import affine_of, outputs_of
from .layer_arithmetic import Arithmetic, exact_unit
from .ops import FORWARD, INPUT_GRADIENT, Block, Op
from .output_gradients import go_back, squares
from .rules import Rules
from .scaled import Calibration, Scaled, scaled
from .weights import Weights, samples_of

_BINS = 64
_PROBES = 8
# How much a column's errors are drawn towards those of its layer, in parts of what an average column shows.
_PRIOR = 0.25
# Outputs of a layer that are kept to make bins and thresholds of.
_KEPT = 1 << 16


@dataclass
class Scored:
    """What is collected of a layer: all of its outputs are counted, some of its rows are kept.

    Args:
        criterion: of its two passes, in the end with the score that samples have made. activation: what consumes it.
        macs: K of an output. n, gemms: columns of a product, and products. batched: whether these count samples.
        outputs: how many there were.
        v, errors, scores: of the rows that are kept, (rows, N) each, and v with the number of its product.
        slopes: sum over all rows of phi'(v)**2, by column. gradients: mean over probes of the sums of (d/dv)**2.
    """

    criterion: Criterion
    activation: str
    macs: int
    n: int
    gemms: int
    batched: bool
    outputs: int = 0
    v: list[tuple[int, NDArray[np.float64]]] = field(default_factory=list)
    errors: list[NDArray[np.float64]] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    slopes: NDArray[np.float64] | float = 0.0
    gradients: NDArray[np.float64] | float = 0.0

    def finish(self) -> None:
        """Make the calibrated score, and score with it."""
        if self.criterion.score == OF_SAMPLES:
            score = self.sensitivity()
            self.criterion = replace(self.criterion, score=score)
            self.scores = [
                score.part(gemm, v.shape[1])(Seen(v, self.activation, slice(0, len(v)))) for gemm, v in self.v
            ]

    def sensitivity(self) -> Sensitivity:
        """Return the calibrated score."""
        v, errors = (np.concatenate([x.ravel() for x in parts]) for parts in ([v for _, v in self.v], self.errors))
        finite = np.isfinite(errors)
        v, errors = v[finite], errors[finite]
        edges = np.quantile(v, np.arange(1, _BINS) / _BINS) if v.size else np.zeros(_BINS - 1)
        bins = np.searchsorted(edges, v)
        squares = np.bincount(bins, errors * errors, _BINS) / np.maximum(np.bincount(bins, minlength=_BINS), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            effect = np.sqrt(np.where(self.slopes > 0, self.gradients / self.slopes, 0.0))
        found = Sensitivity(Bins(edges), np.sqrt(squares), np.atleast_1d(effect), self.macs)
        return found if self.batched else replace(found, columns=self._columns(found))

    def by_column(self, statistic: Callable[[NDArray[np.float64]], Any]) -> NDArray[np.float64]:
        """Return what a statistic of the scores (any number,) says of each column, or of all of a stack of products.

        NaN counts as infinite.
        """
        scores = [np.where(np.isnan(found), np.inf, found) for found in self.scores]
        if self.batched:
            return np.array([statistic(np.concatenate([found.ravel() for found in scores]))])
        by_gemm: dict[int, list[NDArray[np.float64]]] = {gemm: [] for gemm in range(self.gemms)}
        for (gemm, _), found in zip(self.v, scores, strict=True):
            by_gemm[gemm].append(found)
        return np.array([statistic(column) for parts in by_gemm.values() for column in np.concatenate(parts).T])

    def _columns(self, score: Sensitivity) -> NDArray[np.float64]:
        """Return the rms error behind the activation of each column over what the bins of v let expect."""
        shown, expected = np.zeros((2, self.gemms, self.n))
        for (gemm, v), errors in zip(self.v, self.errors, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                slopes = SLOPE[self.activation](v.copy()) ** 2
                weights = np.where(np.isfinite(errors) & np.isfinite(slopes), slopes, 0.0)
            shown[gemm] += (np.where(weights > 0, errors, 0.0) ** 2 * weights).sum(axis=0)
            expected[gemm] += (score.errors[score.bins.of(v)] ** 2 * weights).sum(axis=0)
        prior = _PRIOR * expected.mean()
        if not prior:
            return np.ones(self.gemms * self.n)
        return np.sqrt((shown + prior) / (expected + prior)).ravel()


def calibrated(
    model: nn.Module,
    rules: Rules,
    consumers: Mapping[str, Consumer],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    seed: int = 0,
    calibrations: Mapping[str, Calibration] | None = None,
) -> dict[str, Criterion]:
    """Return the criteria of the layers that run in two passes, by name, with what samples say. Statistical estimates.

    Arguments and errors as of `scored`.
    """
    return _criteria(scored(model, rules, consumers, args, kwargs, seed, calibrations), rules)


def scored(
    model: nn.Module,
    rules: Rules,
    consumers: Mapping[str, Consumer],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    seed: int = 0,
    calibrations: Mapping[str, Calibration] | None = None,
) -> dict[str, Scored]:
    """Return what samples say of the layers that run in two passes, by name, with their scores.

    The network runs once on exact sums, or once on each batch if it takes a fixed one, and goes back _PROBES times in
    torch's own arithmetic.

    Args:
        model: in the mode in which it will run. rules: of its layers. consumers: of a recording pass.
        args, kwargs: samples, as of a forward pass. seed: of the signs. calibrations: of scales, by name of the layer.
    Raises:
        InputError: a layer of which the scales are calibrated was not.
    """
    layers: dict[str, Scored] = {}
    weights = Weights(model)
    weights.look()

    def execute(op: Op) -> Tensor | None:
        weights.unstack(op, samples)
        if op.phase == INPUT_GRADIENT and op.name in layers:
            layers[op.name].gradients += squares(op) / _PROBES
        arithmetic = rules.arithmetic(op) if op.phase == FORWARD and op.macs else None
        if arithmetic is None or arithmetic.criterion is None or arithmetic.low is None:
            return None
        consumer = consumers.get(op.name, Consumer())
        layer = layers.setdefault(
            op.name, Scored(arithmetic.criterion, consumer.activation, op.k, op.n, op.gemms, op.batched)
        )
        divided = None
        if arithmetic.scaled:
            divided = scaled(op, arithmetic, calibrations or {}, lambda what, find: find())
        return op.tensor(_collect(layer, op, arithmetic, consumer, divided))

    signs = torch.Generator().manual_seed(seed)
    for part, named in passes(model, args, kwargs):
        samples = samples_of(part, named)
        go_back(model, part, named, execute, signs, _PROBES)
    sensitive = [layer for layer in layers.values() if layer.criterion.score == OF_SAMPLES]
    if sensitive and not any(np.any(layer.gradients) for layer in sensitive):
        raise InputError(
            f"{', '.join(list(layers)[:4])}: no gradient of the outputs reaches them, so that no output has a "
            "sensitivity; expected outputs that depend on them smoothly, such as logits; give a model without no_grad, "
            "detach, argmax or rounding behind its layers, or another policy.score"
        )
    for layer in layers.values():
        layer.finish()
    return layers


def _collect(layer: Scored, op: Op, arithmetic: Arithmetic, consumer: Consumer, divided: Scaled | None) -> NDArray[Any]:
    """Return the exact outputs of an Op; note how far those of the first pass are off.

    Args:
        divided: the same Op with its operands over their scales, or None.
    """
    assert arithmetic.low is not None
    low, exact = op.on(arithmetic.low), op.on(exact_unit(arithmetic.low))
    out = np.empty((op.gemms, op.m, op.n), exact.dtype)
    slopes = np.zeros((op.gemms, op.n))
    for block in (op if divided is None else divided.op).blocks(low):
        scale, shift = affine_of(op, block, consumer, divided)
        first = Accumulation(low, block.a, block.b, block.c)
        sums = Accumulation(exact, block.a, block.b, block.c).dense()[0]
        out[block.gemm, block.rows] = sums if divided is None else outputs_of(sums, op, block, divided)
        v = first.dense()[0].astype(np.float64) * scale + shift
        truth = sums.astype(np.float64) * scale + shift
        with np.errstate(over="ignore", invalid="ignore"):
            slopes[block.gemm] += (SLOPE[layer.activation](truth.copy()) ** 2).sum(axis=0)
        some = rows_kept(op, block)
        layer.v.append((block.gemm, v[some]))
        layer.errors.append((v - truth)[some])
        if layer.criterion.score != OF_SAMPLES:
            product = Product(first, layer.criterion.side_format)
            logits = consumer.logits_of(op, block) if layer.criterion.score in OF_LOGITS else None
            seen = Seen(v, layer.activation, slice(0, v.shape[0]), product, scale, shift, logits)
            layer.scores.append(score_of(layer.criterion.score)(seen)[some])
    layer.outputs += out.size
    # Columns of a stack of products are places in it, of which no two need to mean the same.
    layer.slopes += slopes.sum() if op.batched else slopes.ravel()
    return out


def rows_kept(op: Op, block: Block) -> NDArray[np.intp] | slice:
    """Return which rows of a block are looked at: of an Op with many outputs some at random, whatever their order."""
    rows = block.a.shape[0]
    one_of = op.gemms * op.m * op.n // _KEPT
    if one_of <= 1:
        return slice(None)
    draw = np.random.default_rng((block.gemm, block.rows.start))
    return np.sort(draw.permutation(rows)[: math.ceil(rows / one_of)])


def _criteria(layers: Mapping[str, Scored], rules: Rules) -> dict[str, Criterion]:
    found = {name: layer.criterion for name, layer in layers.items()}
    policy = rules.machine.policy
    if not found or policy is None or policy.budget is None or policy.budget_over == "layer":
        return found
    own = [name for name, layer in layers.items() if layer.criterion.budget != policy.budget]
    if own:
        raise InputError(
            f"layers: {own[0]}: got a budget of its own with policy.budget_over: network; expected none, or layer; "
            "change one of the two"
        )
    threshold, shares = _shares(list(layers.values()), policy.budget)
    return {
        name: replace(one, budget=share, threshold=threshold)
        for (name, one), share in zip(found.items(), shares, strict=True)
    }


def _shares(layers: list[Scored], budget: float) -> tuple[float, list[float]]:
    """Return one threshold, which spends a budget of all MACs, and the share of each layer's outputs above it."""
    scores, weights = [], []
    for layer in layers:
        found = np.concatenate([part.ravel() for part in layer.scores])
        scores.append(np.where(np.isnan(found), np.inf, found))
        weights.append(np.full(found.size, layer.macs * layer.outputs / max(1, found.size)))
    every, weight = np.concatenate(scores), np.concatenate(weights)
    order = np.argsort(-every, kind="stable")
    spent = np.cumsum(weight[order])
    over = int(np.searchsorted(spent, budget * weight.sum(), side="right"))
    threshold = float(every[order][over]) if over < every.size else 0.0
    return threshold, [float(np.count_nonzero(s > threshold) / max(1, s.size)) for s in scores]
