"""Scales of operands: what a value is divided by before it is quantised, chosen from the magnitudes that there are.

A cell is what shares a scale: a tensor, a row, a channel or a block. The magnitudes of a cell are kept as their largest
and, where a method needs it, as a histogram, so that calibration over any number of samples and a choice at hand are
one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from formats import Format, Use
from formats.families import family_of
from simulator.errors import InputError
from simulator.hardware import Scaling

# Bins of a histogram: float32 cut to its exponent and so many bits of its fraction.
_FRACTION_BITS = 5
_DROPPED = 23 - _FRACTION_BITS
_BINS = 255 << _FRACTION_BITS  # up to the largest finite number

# Scales that are tried for the least error: octaves below and above the one at which nothing saturates.
_OCTAVES_BELOW, _OCTAVES_ABOVE = 12, 2
_STEPS_PER_OCTAVE = 8  # where a scale need not be a power of two

_LEAST, _LARGEST = 2.0**-126, 2.0**127
_LARGEST_ANCHOR = 2.0**64  # no operand is to be put at the end of a range that nothing can be multiplied in
_CELLS_AT_ONCE = 1 << 11  # rows come by the hundred thousand, and a histogram takes 32 KiB


class Magnitudes:
    """Magnitudes of the values of some cells, in memory that does not grow with their number.

    Args:
        cells: how many. counted: whether a histogram is kept, whose bins are 2**-5 wide relative to the values.
    """

    def __init__(self, cells: int, counted: bool) -> None:
        self.largest = np.zeros(cells, np.float32)
        self.counts = np.zeros((cells, _BINS), np.int64) if counted else None

    def add(self, x: NDArray[np.float32]) -> None:
        """Take values (cells, any number); what is not finite does not count."""
        with np.errstate(invalid="ignore"):
            magnitudes = np.abs(x, dtype=np.float32)
        finite = np.isfinite(magnitudes)
        if not finite.all():
            magnitudes = np.where(finite, magnitudes, np.float32(0))
        if not magnitudes.size:
            return
        np.maximum(self.largest, magnitudes.max(axis=1), out=self.largest)
        if self.counts is not None:
            keys = (magnitudes.view(np.uint32) >> _DROPPED).astype(np.int64)
            keys += np.arange(len(keys))[:, None] * _BINS
            self.counts += np.bincount(keys.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def percentile(self, share: float) -> NDArray[np.float64]:
        """Return the magnitudes that `share` per cent of the values of each cell do not exceed, to a bin's width.

        Zeros do not count: how many a ReLU or a transposed convolution puts in says nothing of the others.
        """
        assert self.counts is not None
        below = np.cumsum(self.counts[:, 1:], axis=1)
        ranks = np.ceil(below[:, -1:] * (share / 100))
        bins = 1 + np.argmax(below >= ranks, axis=1)
        return np.minimum(_edge(bins + 1), self.largest)


def _edge(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the lower ends of bins."""
    return (bins << _DROPPED).astype(np.uint32).view(np.float32).astype(np.float64)


def needs_histogram(scaling: Scaling) -> bool:
    """Whether a method needs a histogram."""
    return scaling.method != "max"


def check(scaling: Scaling, fmt: Format) -> None:
    """Raise InputError if a format cannot be scaled so."""
    if fmt.has_blocks and scaling.per != "tensor":
        raise InputError(
            f"{fmt.name}: got scales per {scaling.per}, and its blocks have their own; expected per: tensor; write it"
        )
    if scaling.to is not None and scaling.to > fmt.max:
        raise InputError(
            f"{fmt.name}: got scales to {scaling.to:g}, beyond its largest value {fmt.max:g}; expected at most that; "
            "give less"
        )
    if scaling.to is None and scaling.method != "mse" and (_tapered(fmt) or fmt.max > _LARGEST_ANCHOR):
        why = "is densest around 1" if _tapered(fmt) else f"has values up to {fmt.max:.3g}"
        raise InputError(
            f"{fmt.name}: got scales by {scaling.method} to the largest value of a format that {why}; expected where "
            "to put the magnitudes; add e.g. to: 1, or write method: mse"
        )


def _tapered(fmt: Format) -> bool:
    return family_of(fmt).key in ("posit", "takum")


def measured(x: NDArray[np.float32], use: Use, scaling: Scaling) -> NDArray[np.float32]:
    """Return the scales (cells,) of values (cells, any number); see `chosen`."""
    scales = []
    for first in range(0, len(x), _CELLS_AT_ONCE):
        part = x[first : first + _CELLS_AT_ONCE]
        magnitudes = Magnitudes(len(part), needs_histogram(scaling))
        magnitudes.add(part)
        scales.append(chosen(magnitudes, use, scaling))
    return np.concatenate(scales) if scales else np.ones(0, np.float32)


def chosen(magnitudes: Magnitudes, use: Use, scaling: Scaling) -> NDArray[np.float32]:
    """Return the scales (cells,) for magnitudes in a use, float32, each in 2**-126..2**127; 1 where all values are 0.

    Of max and percentile the least ones at which that magnitude is not beyond `to`; of mse an estimate,
    from the middles of the histogram's bins, over scales from 2**-12 to 4 times that of max.
    """
    if scaling.method == "mse":
        scales = _least_error(magnitudes, use, scaling.powers_of_two)
    else:
        largest = magnitudes.largest.astype(np.float64)
        top = magnitudes.percentile(scaling.percentile) if needs_histogram(scaling) else largest
        # A cell of zeros but for a few has no percentile to scale by.
        top = np.where(top > 0, top, largest)
        scales = top / (_anchor(use.format) if scaling.to is None else scaling.to)
        if scaling.powers_of_two:
            scales = _power_of_two(scales)
    scales = np.clip(scales, _LEAST, _LARGEST).astype(np.float32)
    return np.where(magnitudes.largest > 0, scales, np.float32(1))


def _anchor(fmt: Format) -> float:
    """Return where magnitudes are put: at the largest value, or at 1 where that is far from where values are dense."""
    return 1.0 if _tapered(fmt) or fmt.max > _LARGEST_ANCHOR else fmt.max


def _power_of_two(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least powers of two that are not smaller; 0 stays 0."""
    significands, exponents = np.frexp(x)
    return np.where(x > 0, np.ldexp(1.0, exponents - (significands == 0.5)), 0.0)


def _least_error(magnitudes: Magnitudes, use: Use, powers_of_two: bool) -> NDArray[np.float64]:
    assert magnitudes.counts is not None
    start = magnitudes.largest.astype(np.float64) / _anchor(use.format)
    if powers_of_two:
        start = _power_of_two(start)
    steps = 1 if powers_of_two else _STEPS_PER_OCTAVE
    used = np.flatnonzero(magnitudes.counts.any(axis=0))
    middles = (_edge(used) + _edge(used + 1)) / 2
    middles[used == 0] = 0.0
    weights = magnitudes.counts[:, used]
    best = np.full(len(start), np.inf)
    scales = start.copy()
    # From the largest down, so that of equal errors the larger scale is taken, which saturates less.
    for step in range(_OCTAVES_ABOVE * steps, -_OCTAVES_BELOW * steps - 1, -1):
        tried = np.clip(start * 2.0 ** (step / steps), _LEAST, _LARGEST)[:, None]
        errors = (np.square(middles - use.quantize(middles / tried) * tried) * weights).sum(axis=1)
        better = errors < best
        best[better], scales[better] = errors[better], tried[better, 0]
    return scales
