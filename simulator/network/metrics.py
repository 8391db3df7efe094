"""Metrics of the task: what a mode answers, against the exact run and against the labels, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.errors import InputError

from .sums import ExactSum, decibels

Function = Callable[[Tensor, Tensor | None], Tensor]
Array = NDArray[np.float64]

NAMES = ("top1", "top5", "agreement", "cosine", "kl", "perplexity", "mse", "sqnr_db")
IGNORED = -100  # the label that torch.nn.functional.cross_entropy ignores
NORMAL_95 = 1.959964  # of the normal distribution, so many deviations from the mean on both sides
_BLOCK = 1 << 20  # outputs that are in float64 at a time


class Metrics:
    """The metrics of one mode, in a memory that does not grow with the samples.

    Of each output, position or sample a number is taken in float64 on its own, and these are summed exactly, so that
    neither the order of samples nor their division into batches shows.

    Outputs are (samples, ...), and where they are classes, these are

        (N, C)         a class for each sample, labels (N,)
        (N, T, C)      a class for each position, as language models have them, labels (N, T); T may be any axes
        (N, C, H, W)   a class for each pixel, labels (N, H, W); likewise any (N, C, ...) with labels (N, ...)

    Where both of the last fit, the classes are the last axis. Without labels they are the last axis of outputs of two
    or three axes, and the second of others. Positions with the label -100 do not count.

        top1, top5    share of the positions whose label is the largest logit, or among the five largest; of equal ones
                      the first counts as larger. top5 of more than five classes only
        agreement     share of the positions with the answer (largest logit) of the exact run
        kl            mean of KL(softmax(exact) || softmax(computed)) over positions, in nats
        perplexity    exp of the mean of -log softmax(computed)[label] over positions
        cosine        mean over samples of the cosine similarity of the outputs of a sample with the exact ones
        mse           mean over outputs of (computed - exact)^2
        sqnr_db       10 log10(sum exact^2 / sum (computed - exact)^2) over outputs

    Special values: logits with a NaN give no answer, which is never right and agrees with no answer. Logits without a
    softmax (a NaN, an infinity, or -infinity only) are infinitely far from the exact ones, and infinitely improbable;
    positions where the exact run has none are left out of kl. A NaN, or an infinity that should be another value, is
    infinitely wrong in mse and has cosine 0; samples that are zero or not finite in the exact run are left out of
    cosine, which samples of one output do not have: it would be a sign. sqnr_db is None where either sum is 0 or not
    finite.

    Args:
        functions: metrics of the user's, by name. Each is called with (outputs, labels) of a batch, copies that are its
            own, and returns one number for each sample, a tensor of shape (samples,); the metric is their mean over all
            samples.
    Raises:
        InputError: a name that is taken, or something that cannot be called.
    """

    def __init__(self, functions: Mapping[str, Function] | None = None) -> None:
        self.functions = dict(functions or {})
        for name, function in self.functions.items():
            if name in NAMES:
                raise InputError(f"metrics: {name!r} is a metric of ours; expected another name; rename yours")
            if not callable(function):
                raise InputError(
                    f"metrics: {name!r} is {function!r}; expected a function of (outputs, labels) that returns one "
                    "number for each sample; give one"
                )
        self._sums = {name: ExactSum() for name in (*NAMES, *self.functions)}  # of perplexity, the logarithms
        self._signal = ExactSum()
        self._by_sample, self._spread = ExactSum(), ExactSum()  # mean squares of the samples, and their squares

    def add(self, outputs: Tensor, exact: Tensor, labels: Tensor | None = None) -> None:
        """Take a batch: outputs of the mode and of the exact run, of the same shape (samples, ...), and its labels.

        Raises:
            InputError: shapes that differ, labels that are no classes, a function that returns something else.
        """
        if outputs.shape != exact.shape:
            raise InputError(
                f"outputs of shape {tuple(outputs.shape)} where the exact run has {tuple(exact.shape)}; expected a "
                "model whose output has the same shape in every arithmetic; give what it computes before that"
            )
        for name, function in self.functions.items():
            given = outputs.clone(), None if labels is None else labels.clone()  # theirs to change
            self._sums[name].add(_per_sample(name, function(*given), len(outputs)))
        axis = class_axis(exact.shape, labels)
        classes = labels if are_classes(exact.shape, labels) else None
        step = max(1, _BLOCK // max(1, math.prod(exact.shape[1:])))
        for first in range(0, len(exact), step):
            part = slice(first, first + step)
            values, reference = _float64(outputs[part]), _float64(exact[part])
            self._add_values(values.reshape(len(values), -1), reference.reshape(len(values), -1))
            if axis is not None:
                right = None if classes is None else classes[part].numpy(force=True).astype(np.int64).ravel()
                self._add_positions(_rows(values, axis), _rows(reference, axis), right)

    @property
    def values(self) -> dict[str, float | None]:
        """The metrics so far by name; None for one that the outputs or labels do not have."""
        values = {name: total.mean for name, total in self._sums.items()}
        values["sqnr_db"] = decibels(self._signal, self._sums["mse"])
        surprise = values["perplexity"]
        if surprise is not None:
            values["perplexity"] = math.exp(surprise) if surprise < 709 else math.inf
        return values

    @property
    def rms_interval(self) -> tuple[float, float] | None:
        """Where the root of mse lies, with about 95 % over samples like these; None of one sample or of infinities.

        Statistical: the mean over samples is taken as normal, with the variance that the samples show.
        """
        count, mean, square = self._by_sample.count, self._by_sample.mean, self._spread.mean
        if count < 2 or mean is None or square is None or not math.isfinite(square):
            return None
        half = NORMAL_95 * math.sqrt(max(0.0, square - mean * mean) / (count - 1))
        return math.sqrt(max(0.0, mean - half)), math.sqrt(mean + half)

    def _add_values(self, values: Array, reference: Array) -> None:
        """Take outputs (samples, outputs)."""
        with np.errstate(invalid="ignore", over="ignore"):
            same = (values == reference) | (np.isnan(values) & np.isnan(reference))
            squares = np.square(np.where(same, 0.0, values - reference))
            squares[np.isnan(squares)] = np.inf
            self._sums["mse"].add(squares)
            of_samples = squares.mean(axis=1) if squares.shape[1] else np.zeros(len(squares))
            self._by_sample.add(of_samples)
            self._spread.add(np.square(of_samples))
            self._signal.add(np.square(reference))
        if values.shape[1] > 1:
            self._sums["cosine"].add(_cosines(values, reference))

    def _add_positions(self, logits: Array, exact: Array, labels: NDArray[np.int64] | None) -> None:
        """Take logits (positions, classes) and labels (positions,)."""
        if labels is not None:
            counts = labels != IGNORED
            logits, exact, labels = logits[counts], exact[counts], labels[counts]
        if not len(logits):
            return
        self._sums["agreement"].add(_answers(logits) == _answers(exact))
        computed, wanted = _log_softmax(logits), _log_softmax(exact)
        has_softmax = ~np.isnan(wanted[:, 0])
        self._sums["kl"].add(_divergences(wanted[has_softmax], computed[has_softmax]))
        if labels is None:
            return
        if labels.min() < 0 or labels.max() >= logits.shape[1]:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise InputError(
                f"labels: got class {wrong}, and the model has {logits.shape[1]} outputs; expected 0 to "
                f"{logits.shape[1] - 1}, or {IGNORED} where a position does not count; use the labels it was trained on"
            )
        ranks = _ranks(logits, labels)
        self._sums["top1"].add(ranks == 0)
        if logits.shape[1] > 5:
            self._sums["top5"].add(ranks < 5)
        surprises = -computed[np.arange(len(labels)), labels]
        surprises[np.isnan(surprises)] = np.inf
        self._sums["perplexity"].add(surprises)


def are_classes(shape: torch.Size, labels: Tensor | None) -> bool:
    """Whether labels are a class for each sample or position of outputs of a shape."""
    if labels is None or labels.is_floating_point() or labels.is_complex() or len(shape) < 2:
        return False
    return labels.shape in (shape[:-1], torch.Size((shape[0], *shape[2:])))


def class_axis(shape: torch.Size, labels: Tensor | None) -> int | None:
    """Return the axis of the classes in outputs of a shape (see Metrics); None if they are no classes."""
    if len(shape) < 2 or (labels is not None and not are_classes(shape, labels)):
        return None
    last = labels.shape == shape[:-1] if labels is not None else len(shape) <= 3
    axis = len(shape) - 1 if last else 1
    return axis if shape[axis] > 1 else None


def _per_sample(name: str, result: Any, samples: int) -> NDArray[Any]:
    try:
        numbers = torch.as_tensor(result)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"metrics: {name!r} returned {type(result).__name__}; expected a tensor of one number for each sample, of "
            f"shape ({samples},); return one"
        ) from None
    if numbers.shape != (samples,):
        raise InputError(
            f"metrics: {name!r} returned shape {tuple(numbers.shape)} for a batch of {samples} samples; expected one "
            f"number for each sample, of shape ({samples},), since batches are of any size; average over other axes "
            "only, as .mean(1) does"
        )
    return _float64(numbers)


def _float64(tensor: Tensor) -> Array:
    array: Array = tensor.detach().double().numpy(force=True)
    return array


def _rows(values: Array, axis: int) -> Array:
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])


def _cosines(values: Array, reference: Array) -> Array:
    """Return the cosine similarity of each row with its reference, without the rows whose reference has none."""
    with np.errstate(invalid="ignore"):
        sizes, wanted = np.abs(values).max(1, initial=0), np.abs(reference).max(1, initial=0)
    known = np.isfinite(wanted) & (wanted > 0)
    values, reference, sizes, wanted = values[known], reference[known], sizes[known], wanted[known]
    usable = np.isfinite(sizes) & (sizes > 0)
    # Scaled to a largest value of 1, so that no square overflows; of equal rows the cosine is 1 exactly.
    a = np.where(usable[:, None], values, 0.0) / np.where(usable, sizes, 1.0)[:, None]
    b = reference / wanted[:, None]
    lengths = np.where(usable, np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1.0)
    return np.clip((a * b).sum(1) / lengths, -1.0, 1.0)


def _answers(logits: Array) -> NDArray[np.int64]:
    """Return the first of the largest logits of each row, -1 where one is NaN."""
    return np.where(np.isnan(logits).any(1), -1, logits.argmax(1))


def _ranks(logits: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many logits of each row are larger than its label's, or equal and before it; all where one is NaN."""
    chosen = np.take_along_axis(logits, labels[:, None], 1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    ranks = np.count_nonzero((logits > chosen) | ((logits == chosen) & before), axis=1)
    return np.where(np.isnan(logits).any(1), logits.shape[1], ranks)


def _log_softmax(logits: Array) -> Array:
    """Return log softmax of each row, NaN throughout where it has none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = logits - logits.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _divergences(wanted: Array, computed: Array) -> Array:
    """Return KL(wanted || computed) of each row of log probabilities; infinity where `computed` is NaN."""
    p = np.exp(wanted)
    with np.errstate(invalid="ignore"):
        sums = np.where(p == 0, 0.0, p * (wanted - computed)).sum(1)
    sums[np.isnan(computed[:, 0])] = np.inf
    return np.maximum(sums, 0.0)
