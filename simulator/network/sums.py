"""Sums of float64 that no order of terms and no division into batches changes."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNIT = 1074  # every finite float64 is a multiple of 2**-1074
_BLOCK = 16  # the terms of a block, as a power of two
_HUGE = math.ldexp(1.0, 1000)


class ExactSum:
    """The exact sum of float64 numbers, in a memory that does not grow with them.

    Infinities and NaN are counted in as IEEE 754 adds them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._finite, self._other = 0, 0.0  # the first in units of 2**-_UNIT

    def add(self, terms: NDArray[Any]) -> None:
        """Take terms of any shape and float type."""
        x = np.ravel(terms).astype(np.float64, copy=False)
        self.count += x.size
        finite = np.isfinite(x)
        if not finite.all():
            with np.errstate(invalid="ignore"):
                self._other += float(x[~finite].sum())
            x = x[finite]
        self._finite += sum(_block(x[first : first + (1 << _BLOCK)]) for first in range(0, x.size, 1 << _BLOCK))

    def join(self, other: ExactSum) -> None:
        """Take the terms of another sum."""
        self.count += other.count
        self._finite += other._finite
        self._other += other._other

    @property
    def mean(self) -> float | None:
        """The mean, correctly rounded; None of no terms."""
        if not self.count or self._other != 0:
            return self._other if self.count else None
        return float(Fraction(self._finite, self.count << _UNIT))

    @property
    def log10(self) -> float | None:
        """The decimal logarithm of the sum, within a few units in the last place; None if that is no number."""
        return math.log10(self._finite) - _UNIT * math.log10(2) if self._finite > 0 and self._other == 0 else None


def decibels(signal: ExactSum, noise: ExactSum) -> float | None:
    """Return 10 log10(signal / noise); None where either sum is 0 or not finite."""
    of_signal, of_noise = signal.log10, noise.log10
    return None if of_signal is None or of_noise is None else 10 * (of_signal - of_noise)


def _block(x: NDArray[np.float64]) -> int:
    """Return the sum of at most 2**_BLOCK finite numbers in units of 2**-_UNIT.

    Extraction as in AccSum (Rump, Ogita and Oishi 2008): the leading bits of all terms on one grid, coarse enough that
    they sum without rounding, then what is left of them.
    """
    rest = x.copy()
    huge = np.abs(rest) >= _HUGE  # a grid above them would overflow
    total = sum(map(int, rest[huge])) << _UNIT
    rest[huge] = 0
    while largest := float(np.abs(rest).max(initial=0)):
        grid = math.ldexp(1.0, math.frexp(largest)[1] + _BLOCK + 1)
        leading = (rest + grid) - grid
        numerator, denominator = float(leading.sum()).as_integer_ratio()
        total += (numerator << _UNIT) // denominator
        rest -= leading
    return total
