"""How densely values lie: by binade, and by bands of binades with one precision or one spacing.

A binade e holds the magnitudes from 2**e to below 2**(e+1). What float64 holds of at most 16 bits is read from
the table. Other formats are asked by exact directed rounding; they are floats, posits, takums and fixed point, whose
values are evenly spaced within a binade. As there can be tens of thousands of binades, each is kept divided by 2**e.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .exact import (
    PLACES,
    Number,
    ends,
    exponent_of,
    largest_magnitude,
    magnitude_after,
    magnitude_beside,
    number,
    pair_of,
    scaled,
    significand_of,
)
from .format import Format

ENUMERATED_BITS = 16


@dataclass(frozen=True)
class Binade:
    """The positive (or negative) values of a format in one binade, as magnitudes.

    Args:
        exponent: e. low, high: significands of the smallest and largest of them, from 1 to below 2. count: how many.
        steps: smallest and largest distance from one of them to the next larger magnitude, which may lie in a higher
            binade, divided by 2**e; None where the only one is the largest of all.
    """

    exponent: int
    low: Fraction
    high: Fraction
    count: int
    steps: tuple[Fraction, Fraction] | None

    @property
    def first(self) -> Number:
        """Smallest magnitude. Exact."""
        return scaled(self.low, self.exponent)

    @property
    def last(self) -> Number:
        """Largest magnitude. Exact."""
        return scaled(self.high, self.exponent)

    @property
    def precision(self) -> int | None:
        """Significand bits p: all values in reach are 2**(e-p+1) apart. None where there is no such number."""
        if self.steps is None or self.steps[0] != self.steps[1]:
            return None
        integer, exponent = pair_of(self.steps[0])
        return 1 - exponent if integer == 1 and exponent <= 0 else None


@dataclass(frozen=True)
class Band:
    """Neighbouring binades that share a precision ("floating") or a spacing ("fixed"); one alone may have neither.

    Args:
        binades: from the lowest up. kind: "floating", "fixed" or "uneven".
    """

    binades: tuple[Binade, ...]
    kind: str

    @property
    def low(self) -> int:
        """Exponent of the lowest binade."""
        return self.binades[0].exponent

    @property
    def high(self) -> int:
        """Exponent of the highest binade."""
        return self.binades[-1].exponent

    @property
    def count(self) -> int:
        """Number of values of one sign."""
        return sum(binade.count for binade in self.binades)

    @property
    def gaps(self) -> tuple[Number, Number] | None:
        """Smallest and largest distance of neighbours; none shrinks from binade to binade of a band. Exact."""
        known = [(binade.exponent, binade.steps) for binade in self.binades if binade.steps]
        if not known:
            return None
        (low, (smallest, _)), (high, (_, largest)) = known[0], known[-1]
        return scaled(smallest, low), scaled(largest, high)

    @property
    def precisions(self) -> tuple[int, int] | None:
        """Significand bits in the lowest and in the highest binade, as far as there are any."""
        known = [binade.precision for binade in self.binades if binade.precision is not None]
        return (known[0], known[-1]) if known else None


def enumerable(fmt: Format) -> bool:
    """Whether a format is read from its table: at most 16 bits, and every value a float64."""
    return fmt.bits <= ENUMERATED_BITS and fmt.fits_float64


@functools.lru_cache(maxsize=16)
def finite_values(fmt: Format) -> NDArray[np.float64]:
    """Return the finite values of an enumerable format, ascending, each once, zeros as +0. Exact."""
    table = fmt.table()
    return np.unique(table[np.isfinite(table)] + 0.0)


@functools.lru_cache(maxsize=16)
def binades(fmt: Format, sign: int = 1) -> tuple[Binade, ...]:
    """Return the binades of a format that hold values, ascending.

    Args:
        fmt: a format without blocks. sign: 1 for positive values, -1 for negative ones.
    """
    if enumerable(fmt):
        return tuple(_enumerated(fmt, sign))
    if sign < 0 and ends(fmt).lowest == -ends(fmt).largest:  # the families that are asked mirror their values then
        return binades(fmt)
    return tuple(_asked(fmt, sign))


def bands(fmt: Format) -> tuple[Band, ...]:
    """Return the binades of the positive values in as few bands as their precision and spacing allow."""
    found: list[tuple[list[Binade], str]] = []
    rows = binades(fmt)
    for place, row in enumerate(rows):
        above = rows[place + 1] if place + 1 < len(rows) else None
        if found:
            band, kind = found[-1]
            unlike = row.precision is None or row.precision != band[-1].precision
            # A binade with the spacing of the band below and the precision of the binade above begins a new band.
            unlike_fixed = not _same_spacing(band[-1], row) or (above is not None and above.precision == row.precision)
            if (row.steps is None and kind != "uneven") or (kind == "floating" and not unlike):
                band.append(row)
                continue
            if not unlike_fixed and (kind == "fixed" or len(band) == 1):
                found[-1] = [*band, row], "fixed"
                continue
        found.append(([row], "uneven" if row.precision is None else "floating"))
    return tuple(Band(tuple(band), kind) for band, kind in found)


def _same_spacing(a: Binade, b: Binade) -> bool:
    ratio = Fraction(2) ** (b.exponent - a.exponent)
    return a.steps is not None and b.steps is not None and a.steps == tuple(ratio * step for step in b.steps)


@dataclass(frozen=True)
class Spacing:
    """A point of the curve of relative spacing.

    Args:
        exponent, significand: of the magnitude, significand * 2**exponent. relative: distance to the next larger
            magnitude, divided by this one. All exact.
    """

    exponent: int
    significand: Fraction
    relative: Fraction


def relative_spacing(fmt: Format) -> list[Spacing]:
    """Return the relative spacing at positive values, ascending.

    Where a binade is evenly spaced its first and its last value stand for all; in between the curve is 1 / magnitude.
    The largest value of all stands with the distance to the one before, if that is the spacing of its binade.
    """
    points: list[Spacing] = []
    for binade in binades(fmt):
        if binade.steps is None:
            continue
        if binade.steps[0] == binade.steps[1]:
            found = dict.fromkeys((binade.low, binade.high))
            points += [Spacing(binade.exponent, value, binade.steps[0] / value) for value in found]
            continue
        values = finite_values(fmt)
        low, high = np.searchsorted(values, [float(binade.first), float(binade.last)])
        own = [Fraction(value) for value in values[low : high + 2].tolist()]
        for place, value in enumerate(own[: high + 1 - low]):
            if place + 1 < len(own):
                relative = (own[place + 1] - value) / value
                points.append(Spacing(binade.exponent, significand_of(value), relative))
    return points


def _enumerated(fmt: Format, sign: int) -> Iterator[Binade]:
    values = finite_values(fmt)
    magnitudes = np.sort(np.abs(values[values * sign > 0]))
    if not magnitudes.size:
        return
    exponents = np.frexp(magnitudes)[1] - 1
    gaps = np.diff(magnitudes)
    starts = np.flatnonzero(np.diff(exponents, prepend=exponents[:1] - 1))
    for start, stop in zip(starts, [*starts[1:], len(magnitudes)], strict=True):
        exponent, own = int(exponents[start]), gaps[start:stop]
        low, high = (significand_of(float(magnitudes[place])) for place in (start, stop - 1))
        unit = Fraction(2) ** exponent
        steps = (Fraction(float(own.min())) / unit, Fraction(float(own.max())) / unit) if own.size else None
        yield Binade(exponent, low, high, int(stop - start), steps)


def _asked(fmt: Format, sign: int) -> Iterator[Binade]:
    largest = largest_magnitude(fmt, sign)
    if largest <= 0:
        return
    for exponent in range(exponent_of(ends(fmt).smallest), exponent_of(largest) + 1):
        first = magnitude_beside(fmt, 1, exponent, sign, away=True)
        last = magnitude_beside(fmt, (2 << PLACES) - 1, exponent - PLACES, sign, away=False)
        low, high = (Fraction(number(integer, below - exponent)) for integer, below in (first, last))
        if not 1 <= low <= high < 2:
            continue
        after = magnitude_after(fmt, *first, sign)
        if after is None:
            yield Binade(exponent, low, high, 1, None)
        else:
            step = Fraction(number(after[0], after[1] - exponent)) - low
            yield Binade(exponent, low, high, int((high - low) / step) + 1, (step, step))
