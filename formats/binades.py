"""How densely values lie: by binade, and by bands of binades with one precision or one spacing.

A binade e holds the magnitudes from 2**e to below 2**(e+1). Formats of at most 16 bits are read from their tables.
Wider ones are asked by exact directed rounding; they are floats, posits, takums and fixed point, whose values are
evenly spaced within a binade.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import dyadic
from .format import Format
from .qtorch import QtorchFormat
from .rounding import Rounding

ENUMERATED_BITS = 16
_JUST_ABOVE = 64  # binary places below a value at which a number is still nearer to it than any other value is


@dataclass(frozen=True)
class Binade:
    """The positive (or negative) values of a format in one binade, as magnitudes.

    Args:
        exponent: e. first, last: smallest and largest of them. count: how many.
        gaps: smallest and largest distance from one of them to the next larger magnitude, which may lie in a higher
            binade; None where the only one is the largest of all.
    """

    exponent: int
    first: float
    last: float
    count: int
    gaps: tuple[float, float] | None

    @property
    def precision(self) -> int | None:
        """Significand bits p: all values in reach are 2**(e-p+1) apart. None where there is no such number."""
        if self.gaps is None or self.gaps[0] != self.gaps[1]:
            return None
        fraction, above = math.frexp(self.gaps[0])
        precision = self.exponent - (above - 1) + 1
        return precision if fraction == 0.5 and precision >= 1 else None


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
    def gaps(self) -> tuple[float, float] | None:
        """Smallest and largest distance of neighbours."""
        known = [binade.gaps for binade in self.binades if binade.gaps]
        return (min(low for low, _ in known), max(high for _, high in known)) if known else None

    @property
    def precisions(self) -> tuple[int, int] | None:
        """Significand bits in the lowest and in the highest binade, as far as there are any."""
        known = [binade.precision for binade in self.binades if binade.precision is not None]
        return (known[0], known[-1]) if known else None


@functools.lru_cache(maxsize=16)
def finite_values(fmt: Format) -> NDArray[np.float64]:
    """Return the finite values of a format of at most 16 bits, ascending, each once, zeros as +0. Exact."""
    table = fmt.table()
    return np.unique(table[np.isfinite(table)] + 0.0)


@functools.lru_cache(maxsize=16)
def binades(fmt: Format, sign: int = 1) -> tuple[Binade, ...]:
    """Return the binades of a format that hold values, ascending.

    Args:
        fmt: a format without blocks. sign: 1 for positive values, -1 for negative ones.
    """
    return tuple(_enumerated(fmt, sign) if fmt.bits <= ENUMERATED_BITS else _asked(fmt, sign))


def bands(fmt: Format) -> tuple[Band, ...]:
    """Return the binades of the positive values in as few bands as their precision and spacing allow."""
    found: list[Band] = []
    rows = binades(fmt)
    for place, row in enumerate(rows):
        above = rows[place + 1] if place + 1 < len(rows) else None
        if found:
            before, kind = found[-1].binades[-1], found[-1].kind
            unlike = row.precision is None or row.precision != before.precision
            # A binade with the spacing of the band below and the precision of the binade above begins a new band.
            unlike_fixed = row.gaps != before.gaps or (above is not None and above.precision == row.precision)
            if row.gaps is None and kind != "uneven":
                found[-1] = Band((*found[-1].binades, row), kind)
                continue
            if kind == "floating" and not unlike:
                found[-1] = Band((*found[-1].binades, row), "floating")
                continue
            if not unlike_fixed and (kind == "fixed" or len(found[-1].binades) == 1):
                found[-1] = Band((*found[-1].binades, row), "fixed")
                continue
        found.append(Band((row,), "uneven" if row.precision is None else "floating"))
    return tuple(found)


def relative_spacing(fmt: Format) -> list[tuple[float, float]]:
    """Return points (magnitude, distance to the next larger one / magnitude) of the positive values, ascending.

    Where a binade is evenly spaced its first and its last value stand for all; in between the curve is 1 / magnitude.
    The largest value of all stands with the distance to the one before, if that is the spacing of its binade.
    """
    points: list[tuple[float, float]] = []
    for binade in binades(fmt):
        if binade.gaps is None:
            continue
        if binade.gaps[0] == binade.gaps[1]:
            ends = dict.fromkeys((binade.first, binade.last))
            points += [(value, binade.gaps[0] / value) for value in ends]
            continue
        values = finite_values(fmt)
        low, high = np.searchsorted(values, [binade.first, binade.last])
        own, after = values[low : high + 1], values[low + 1 : high + 2]
        points += [(float(v), float((w - v) / v)) for v, w in zip(own, after, strict=False)]
    return points


def next_magnitude(fmt: Format, magnitude: float, sign: int = 1) -> float | None:
    """Return the next larger magnitude after a finite number (not negative); None after the largest."""
    if magnitude == 0:
        return fmt.smallest_subnormal if _ends(fmt, sign) else None
    integer, exponent = dyadic.from_float(magnitude)
    above = _rounded(fmt, sign, integer << _JUST_ABOVE | 1, exponent - _JUST_ABOVE, away=True)
    return above if above > magnitude else None


def lowest(fmt: Format) -> float:
    """Return the smallest finite value: the negative one of largest magnitude, if there are negative ones."""
    return _exact(fmt).project_finite(-1, 4096, Rounding("rz"), "sat") + 0.0


def contains(fmt: Format, value: float) -> bool:
    """Whether a finite float64 is a value of a format."""
    if value == 0.0:
        return _has_zero(fmt)
    return bool(_exact(fmt).project_finite(*dyadic.from_float(value), Rounding("rz"), "sat") == value)


def _has_zero(fmt: Format) -> bool:
    try:
        return fmt.value_of(fmt.code_of(0.0)) == 0.0
    except ValueError:
        return False


def _enumerated(fmt: Format, sign: int) -> Iterator[Binade]:
    values = finite_values(fmt)
    magnitudes = np.sort(np.abs(values[values * sign > 0]))
    if not magnitudes.size:
        return
    exponents = np.frexp(magnitudes)[1] - 1
    gaps = np.diff(magnitudes)
    starts = np.flatnonzero(np.diff(exponents, prepend=exponents[:1] - 1))
    for start, stop in zip(starts, [*starts[1:], len(magnitudes)], strict=True):
        own = gaps[start:stop]
        span = (float(own.min()), float(own.max())) if own.size else None
        yield Binade(
            int(exponents[start]), float(magnitudes[start]), float(magnitudes[stop - 1]), int(stop - start), span
        )


def _asked(fmt: Format, sign: int) -> Iterator[Binade]:
    ends = _ends(fmt, sign)
    if not ends:
        return
    low, high = (math.frexp(end)[1] - 1 for end in ends)
    for exponent in range(low, high + 1):
        first = _rounded(fmt, sign, 1, exponent, away=True)
        last = _rounded(fmt, sign, (2 << _JUST_ABOVE) - 1, exponent - _JUST_ABOVE, away=False)
        if not math.ldexp(1.0, exponent) <= first <= last:
            continue
        after = next_magnitude(fmt, first, sign)
        if after is None:
            yield Binade(exponent, first, last, 1, None)
        else:
            gap = after - first
            yield Binade(exponent, first, last, int((last - first) / gap) + 1, (gap, gap))


def _ends(fmt: Format, sign: int) -> tuple[float, float] | None:
    """Return the smallest and the largest magnitude of a sign, if there are values of it."""
    largest = fmt.max if sign > 0 else -lowest(fmt)
    return (fmt.smallest_subnormal, largest) if largest > 0 else None


def _rounded(fmt: Format, sign: int, integer: int, exponent: int, away: bool) -> float:
    mode = ("ru" if sign > 0 else "rd") if away else "rz"
    return abs(_exact(fmt).project_finite(sign * integer, exponent, Rounding(mode), "sat"))


def _exact(fmt: Format) -> Format:
    """Return the format whose exact projection has the same values: the packages of qtorch have no exact numbers."""
    return fmt.record if isinstance(fmt, QtorchFormat) else fmt
