"""How far outputs are from those of the exact run, over any number of batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sums import ExactSum, decibels


class RelativeErrors:
    """Largest, mean and median of |v - v*| / |v*| over the outputs with v* not 0; rms of v - v*, SQNR. Bounded memory.

    Largest and mean are exact (the mean rounded once, at the end), and so are the sums of the SQNR, so that no order of
    summation and no division into batches shows. The median is the middle of a bin of a histogram, at most 2**-12 wide
    relative to the value.
    """

    _DROPPED_BITS = 11  # of a float32: 8 exponent and 12 fraction bits are left
    _INFINITE = 0x7F800000 >> _DROPPED_BITS

    def __init__(self) -> None:
        self._zeros = 0
        self._first, self._bins = 0, np.zeros(0, np.int64)  # counts of the keys from _first on, as far as they occur
        self._errors, self._max = ExactSum(), 0.0
        self._signal, self._noise = ExactSum(), ExactSum()

    def add(self, v: NDArray[Any], exact: NDArray[Any]) -> None:
        """Take outputs and what they would be exactly, of the same shape.

        A NaN counts as infinitely wrong, and so does whatever else is not the infinity that it should be.
        """
        values, reference = v.astype(np.float64), exact.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            differences = np.abs(values - reference)
            self._signal.add(np.square(reference))
            self._noise.add(np.square(differences))
            errors = (differences / np.abs(reference))[reference != 0]
            errors[np.isnan(errors)] = np.inf
            errors[(values == reference)[reference != 0]] = 0.0
            keys = (errors.astype(np.float32).view(np.uint32) >> self._DROPPED_BITS).astype(np.int64)
        self._zeros += int(np.count_nonzero(keys == 0))
        self._add_to_bins(keys[(keys > 0) & (keys < self._INFINITE)])
        self._errors.add(errors)
        self._max = max(self._max, float(errors.max(initial=0.0)))

    def join(self, other: RelativeErrors) -> None:
        """Take the outputs of another record."""
        self._zeros += other._zeros
        self._max = max(self._max, other._max)
        for own, more in ((self._errors, other._errors), (self._signal, other._signal), (self._noise, other._noise)):
            own.join(more)
        self._widen(other._first, other._first + other._bins.size - 1)
        at = other._first - self._first
        self._bins[at : at + other._bins.size] += other._bins

    def summary(self) -> tuple[float | None, float | None, float | None]:
        """Return (max, mean, median), None each if nothing was added."""
        mean = self._errors.mean
        if mean is None:
            return None, None, None
        below = np.cumsum(self._bins)
        rank = (self._errors.count + 1) // 2 - self._zeros
        if rank <= 0:
            return self._max, mean, 0.0
        if not below.size or rank > below[-1]:
            return self._max, mean, math.inf
        middle = self._first + int(np.searchsorted(below, rank))
        low, high = (np.array([middle, middle + 1], np.uint32) << self._DROPPED_BITS).view(np.float32).tolist()
        return self._max, mean, low if math.isinf(high) else (low + high) / 2

    @property
    def rms(self) -> float | None:
        """The root of the mean of (v - v*)^2; None if nothing was added."""
        mean = self._noise.mean
        return None if mean is None else math.sqrt(mean)

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum v*^2 / sum (v - v*)^2) over all outputs; None where either sum is 0 or not finite."""
        return decibels(self._signal, self._noise)

    def _add_to_bins(self, keys: NDArray[np.int64]) -> None:
        if not keys.size:
            return
        self._widen(int(keys.min()), int(keys.max()))
        self._bins += np.bincount(keys - self._first, minlength=self._bins.size)

    def _widen(self, first: int, last: int) -> None:
        """Make room for counts of these keys."""
        if last < first:
            return
        if self._bins.size:
            first, last = min(first, self._first), max(last, self._first + self._bins.size - 1)
        if last - first + 1 > self._bins.size:
            grown = np.zeros(last - first + 1, np.int64)
            if self._bins.size:
                grown[self._first - first :][: self._bins.size] = self._bins
            self._first, self._bins = first, grown
