"""Rounding to nearest by looking values up: an oracle without any bit arithmetic on the input.

A float format is written down as the sorted table of its magnitudes, straight from the definition of a float
(number-format standards: value = 2**(e - bias) * (1 + t / 2**y), subnormals 2**(1 - bias) * t / 2**y), continued upward
as if there were no largest value. The nearest one is found by distance; in a tie the even code wins.
"""

from __future__ import annotations

import bisect
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from formats.catalogue import FLOATS


class Magnitudes:
    """The table of one format of at most 16 bits.

    Args:
        exponent_bits, fraction_bits, bias: of the format.
        top: code of the largest finite value, without the sign.
    """

    def __init__(self, exponent_bits: int, fraction_bits: int, bias: int, top: int) -> None:
        self.top = top
        # Two binades more than there are, so that a value beyond the largest rounds as if nothing ended there.
        count = ((top >> fraction_bits) + 3) << fraction_bits
        self.exact = [self._value(code, fraction_bits, bias) for code in range(count)]
        self.values = np.array([float(v) for v in self.exact])
        assert all(Fraction(float(v)) == v for v in self.exact)
        self.middles = (self.values[1:] + self.values[:-1]) / 2
        assert exponent_bits + fraction_bits <= 15

    @staticmethod
    def _value(code: int, fraction_bits: int, bias: int) -> Fraction:
        exponent, fraction = divmod(code, 1 << fraction_bits)
        significand = Fraction(fraction, 1 << fraction_bits)
        if exponent == 0:
            return Fraction(2) ** (1 - bias) * significand
        return Fraction(2) ** (exponent - bias) * (1 + significand)

    def code_of_nearest(self, x: Fraction) -> int:
        """Return the code of the magnitude nearest to |x|, by exact distance."""
        x = abs(x)
        above = bisect.bisect_left(self.exact, x)
        if above == 0:
            return 0
        if above == len(self.exact):
            return above - 1
        up, down = self.exact[above] - x, x - self.exact[above - 1]
        if up == down:
            return above if above % 2 == 0 else above - 1
        return above if up < down else above - 1

    def codes_of_nearest(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """The same for an array of finite float64, by comparison with the exact middles."""
        x = np.abs(x)
        code = np.searchsorted(self.middles, x, side="left")
        tie = (code < self.middles.size) & (self.middles[np.minimum(code, self.middles.size - 1)] == x)
        return np.where(tie & (code % 2 == 1), code + 1, code)

    def probes(self) -> NDArray[np.float64]:
        """All values and the middles of adjacent pairs, their float64 neighbours, and values beyond; both signs."""
        last = self.values[self.top]
        ulp = last - self.values[self.top - 1]
        middles = self.middles[: self.top + 1]
        beyond = np.array([last + ulp / 2, last + ulp, 2 * last, 1.5 * last, 3 * last, 1e300])
        ends = np.concatenate([middles, self.values[: self.top + 2], beyond])
        magnitudes = np.concatenate([ends, np.nextafter(ends, np.inf), np.nextafter(ends, -np.inf)])
        magnitudes = magnitudes[magnitudes >= 0]
        return np.concatenate([magnitudes, -magnitudes])


def quantized(
    table: Magnitudes, x: NDArray[np.float64], beyond: float, flush_below: float = 0.0, unsigned_zero: bool = False
) -> NDArray[np.float64]:
    """Return what a use must make of finite x: `beyond` replaces magnitudes past the largest, signs stay.

    Args:
        flush_below: x of smaller magnitude become zero.
    """
    codes = table.codes_of_nearest(x)
    magnitudes = np.where(codes > table.top, beyond, table.values[np.minimum(codes, table.top)])
    magnitudes[np.abs(x) < flush_below] = 0.0
    signed = np.copysign(magnitudes, x)
    if unsigned_zero:
        signed[signed == 0] = 0.0
    return signed


# Dialects that this oracle knows, and the catalogue's formats that have them.
DIALECTS = ("ieee", "fn", "fnuz", "finite")
CATALOGUE = [fmt for fmt in FLOATS if fmt.dialect in DIALECTS]


def top_code(exponent_bits: int, fraction_bits: int, dialect: str) -> int:
    """Code of the largest finite magnitude, by dialect (OCP FP8, OCP MX, IEEE 754, AMD FNUZ)."""
    codes = 1 << (exponent_bits + fraction_bits)
    return {"ieee": codes - (1 << fraction_bits) - 1, "fn": codes - 2, "fnuz": codes - 1, "finite": codes - 1}[dialect]


def special(dialect: str, overflow: str, largest: float) -> float:
    """What replaces +Inf and everything beyond the largest, by the table of overflow modes."""
    if overflow == "sat":
        return largest
    if overflow == "nan":
        return math.nan
    return {"ieee": math.inf, "fn": math.nan, "fnuz": math.nan, "finite": largest}[dialect]
